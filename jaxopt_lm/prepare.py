"""Turns text into tokens on disk: flat shards, their vocabulary and a manifest.

    python -m jaxopt_lm.prepare --task=sotu --vocab_size=8192 --tokens_dir=tokens/sotu_8192
    python -m jaxopt_lm.prepare --task=text --files='books/*.txt' --vocab_size=8192 --tokens_dir=tokens/books

The same command again goes on where it was stopped, in any number of processes at once; where all is done it checks
every file against its checksum, those of the text too. Training calls this by itself when the tokens of its config are
missing.
"""

import os
import sys
import time
from typing import TYPE_CHECKING

from jaxopt_lm.config_io import parse_command_line
from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.errors import report_input_errors

if TYPE_CHECKING:
    from rich.console import Console

    from jaxopt_lm.data.prepare import Report


def quiet_tensorflow() -> None:
    """Keeps TensorFlow's start-up notes off the terminal and this process off the accelerator. Before its import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # tokens need none, and it prints a note
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


class _Display:
    """Shows reports: a bar on a terminal, elsewhere a line at most every five seconds; a context manager."""

    def __init__(self, console: "Console"):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(bar_width=16), TextColumn("{task.description}"), TimeRemainingColumn())
        self._console, self._begun, self._shown = console, None, float("-inf")
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> "_Display":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def show(self, report: "Report") -> None:
        now = time.monotonic()
        start, fraction = self._begun = self._begun or (now, report.fraction)
        rate = report.num_tokens / max(now - start, 1e-3)
        text = (
            f"tokens of {report.split}: shard {report.shard}, {report.num_shards} in all  {report.fraction:.1%}  "
            f"{report.num_tokens:,} tokens  {rate:,.0f} tokens/s"
        )
        self._bar.update(self._task, completed=report.fraction, description=text)
        if not self._console.is_terminal and (now - self._shown >= 5 or report.fraction >= 1):
            self._shown, gained = now, report.fraction - fraction
            left = divmod(round((1 - report.fraction) * (now - start) / gained), 60) if gained > 0 else None
            say(self._console, text + ("  left {}:{:02}".format(*left) if left else ""))


def say(console: "Console", text: str) -> None:
    """Prints a line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@report_input_errors
def main() -> None:
    """The command line."""
    config = parse_command_line(TokensConfig, __doc__ or "")
    quiet_tensorflow()
    from rich.console import Console

    from jaxopt_lm.data.prepare import is_prepared, prepare

    console, start, prepared = Console(), time.monotonic(), is_prepared(config)
    what = "checking the tokens" if prepared else "preparing text and vocabulary, then tokens"
    say(console, f"{config.tokens_dir}: {what} of task {config.task}")
    with _Display(console) as display:
        manifest = prepare(config, display.show, lambda line: say(console, line))
    counts = ", ".join(f"{split.num_tokens:,} {name} tokens" for name, split in manifest.splits.items())
    say(console, f"{'checked' if prepared else 'prepared'} {counts} in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
