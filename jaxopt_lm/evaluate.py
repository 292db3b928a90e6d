"""Evaluates a checkpoint of a run: loss, perplexity, bits per byte, and the loss by how frequent the target is.

    python -m jaxopt_lm.evaluate --workdir=runs/quickstart
    python -m jaxopt_lm.evaluate --workdir=runs/quickstart --step=600 --tokens_dir=tokens/books
    python -m jaxopt_lm.evaluate --workdir=runs/quickstart --split=train --max_batches=100

Prints a table and writes the same as JSON into `evaluations/` of the run. Other tokens must be of the run's vocabulary:
python -m jaxopt_lm.prepare --vocabulary=RUN_TOKENS/sentencepiece.model.
"""

import dataclasses
import sys
from typing import Literal

from jaxopt_lm import allocator
from jaxopt_lm.errors import let_interrupts_kill, quiet_orbax, report_input_errors
from jaxopt_lm.terminal import say


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What to evaluate, and on what."""

    workdir: str
    """Folder of a run."""
    step: int | None = None
    """Step of the checkpoint; None: the newest."""
    tokens_dir: str | None = None
    """Folder of prepared tokens; None: those of the run."""
    split: Literal["validation", "train"] = "validation"
    """Which of them."""
    max_batches: int | None = None
    """At most so many batches of the run's eval.batch_size, from the beginning of the split; None: all."""


@report_input_errors
def main() -> None:
    """The command line."""
    allocator.restart()
    from jaxopt_lm import compilation_cache  # jax
    from jaxopt_lm.config_io import parse_command_line

    config = parse_command_line(EvaluateConfig, __doc__ or "")
    quiet_orbax()
    compilation_cache.enable()
    let_interrupts_kill()
    from rich.console import Console

    from jaxopt_lm.training.evaluation import evaluate_run

    evaluation = evaluate_run(
        config.workdir,
        step=config.step,
        tokens_dir=config.tokens_dir,
        split=config.split,
        max_batches=config.max_batches,
    )
    console = Console()
    console.print(evaluation.table())
    say(console, f"written to {evaluation.write(config.workdir)}")


if __name__ == "__main__":
    sys.exit(main())
