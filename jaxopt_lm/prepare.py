"""Turns text into tokens on disk: flat shards, their vocabulary and a manifest.

    python -m jaxopt_lm.prepare --task=sotu --vocab_size=8192 --tokens_dir=tokens/sotu_8192
    python -m jaxopt_lm.prepare --task=text --files='books/*.txt' --vocab_size=8192 --tokens_dir=tokens/books
    python -m jaxopt_lm.prepare --task=c4 --files=/data/tfds --vocabulary=cc_all.32000.model --tokens_dir=tokens/c4

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
from jaxopt_lm.terminal import ProgressLine, say

if TYPE_CHECKING:
    from rich.console import Console

    from jaxopt_lm.data.prepare import Report


def quiet_tensorflow() -> None:
    """Keeps TensorFlow's start-up notes off the terminal and this process off the accelerator. Before its import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # tokens need none, and it prints a note
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


class PreparationLine(ProgressLine):
    """Shows reports of a preparation; a context manager."""

    def __init__(self, console: "Console"):
        super().__init__(console, 1.0)
        self._begun = None

    def show(self, report: "Report") -> None:
        now = time.monotonic()
        start, fraction = self._begun = self._begun or (now, report.fraction)
        rate, gained = report.num_tokens / max(now - start, 1e-3), report.fraction - fraction
        text = (
            f"tokens of {report.split}: shard {report.shard}, {report.num_shards} in all  {report.fraction:.1%}  "
            f"{report.num_tokens:,} tokens  {rate:,.0f} tokens/s"
        )
        left = (1 - report.fraction) * (now - start) / gained if gained > 0 else None
        self.update(report.fraction, text, left, at_once=report.fraction >= 1)


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
    with PreparationLine(console) as display:
        manifest = prepare(config, display.show, lambda line: say(console, line))
    counts = ", ".join(f"{split.num_tokens:,} {name} tokens" for name, split in manifest.splits.items())
    say(console, f"{'checked' if prepared else 'prepared'} {counts} in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
