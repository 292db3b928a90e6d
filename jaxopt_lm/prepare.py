"""Turns a task into tokens on disk: flat shards, their vocabulary and a manifest.

    python -m jaxopt_lm.prepare --task=sotu --vocab_size=4096 --out=tokens/sotu_4096

Training calls this by itself when the tokens of its config are missing.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxopt_lm.config_io import parse_command_line
from jaxopt_lm.errors import report_input_errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare, and where to."""

    task: str
    """Name of the task: sotu."""
    out: str
    """Folder to fill; made if missing, left alone if it already holds these tokens."""
    vocab_size: int = 4096
    """Size of the vocabulary."""


def quiet_tensorflow() -> None:
    """Keeps TensorFlow's start-up notes off the terminal and this process off the accelerator. Before its import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # tokens need none, and it prints a note
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@report_input_errors
def main() -> None:
    """The command line."""
    config = parse_command_line(PrepareConfig, __doc__ or "")
    quiet_tensorflow()
    from rich.console import Console
    from rich.progress import track

    from jaxopt_lm.data.prepare import prepare

    console, start = Console(), time.monotonic()
    console.print(
        f"preparing task {config.task} in {config.out}: text and vocabulary first",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )

    def progress(documents: Iterable[Any], split: str, count: int) -> Iterable[Any]:
        return track(documents, f"tokens of {split}", total=count, console=console)

    manifest = prepare(config.task, Path(config.out), config.vocab_size, progress)
    counts = ", ".join(f"{split.num_tokens:,} {name} tokens" for name, split in manifest.splits.items())
    console.print(
        f"prepared {counts} in {time.monotonic() - start:.0f} s", highlight=False, markup=False, soft_wrap=True
    )


if __name__ == "__main__":
    sys.exit(main())
