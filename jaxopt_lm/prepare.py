"""Turns text into tokens on disk: flat shards, their vocabulary and a manifest.

    python -m jaxopt_lm.prepare --task=sotu --vocab_size=8192 --tokens_dir=tokens/sotu_8192
    python -m jaxopt_lm.prepare --task=text --files='books/*.txt' --vocab_size=8192 --tokens_dir=tokens/books

The same command again goes on where it was stopped, in any number of processes at once; where all is done it checks
every file against its checksum. Training calls this by itself when the tokens of its config are missing.
"""

import os
import sys
import time

from jaxopt_lm.config_io import parse_command_line
from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.errors import report_input_errors


def quiet_tensorflow() -> None:
    """Keeps TensorFlow's start-up notes off the terminal and this process off the accelerator. Before its import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # tokens need none, and it prints a note
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@report_input_errors
def main() -> None:
    """The command line."""
    config = parse_command_line(TokensConfig, __doc__ or "")
    quiet_tensorflow()
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from jaxopt_lm.data.prepare import Report, is_prepared, prepare

    console, start = Console(), time.monotonic()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    verb = "checking" if is_prepared(config) else "preparing"
    say(f"{verb} task {config.task} in {config.tokens_dir}" + (": text and vocabulary first" * (verb == "preparing")))
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=16), TimeRemainingColumn(), console=console,
        disable=not console.is_terminal,
    )  # fmt: skip
    task, first, last = bar.add_task("", total=1.0), None, float("-inf")

    def show(report: Report) -> None:
        nonlocal first, last
        now = time.monotonic()
        first = first or (now, report.fraction)
        seconds, gained = now - first[0], report.fraction - first[1]
        text = f"tokens of {report.split}: shard {report.shard} of {report.num_shards} in all, {report.fraction:.1%}"
        text += f"  {report.num_tokens:,} tokens  {report.num_tokens / max(seconds, 1e-3):,.0f} tokens/s"
        bar.update(task, completed=report.fraction, description=text)
        if not console.is_terminal and (now - last >= 5 or report.fraction >= 1):
            last = now
            left = round((1 - report.fraction) * seconds / gained) if gained > 0 else None
            say(text + ("" if left is None else "  left {}:{:02}".format(*divmod(left, 60))))

    with bar:
        manifest = prepare(config, show)
    counts = ", ".join(f"{split.num_tokens:,} {name} tokens" for name, split in manifest.splits.items())
    say(f"{'prepared' if first else 'checked'} {counts} in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
