"""What a resume refuses: a run goes on only as the run that was begun.

Nothing that decides its numbers may change (`TrainConfig.identity`; what may is `config.MAY_DIFFER_ON_RESUME`), nor its
tokens, nor may the metrics up to its checkpoint be gone. Its length, and its schedule's, may change where every step so
far would have had the same rate.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.data.tokens import Manifest
from jaxopt_lm.dumps import differences
from jaxopt_lm.errors import require
from jaxopt_lm.runs.read import read_metrics

LENGTHS = ("num_train_steps", "schedule.warmup_", "schedule.decay_")
"""Beginnings of the fields that may change where every step so far would have had the same rate."""

_MEND = "give another --config.workdir"


def check_config(old: TrainConfig, new: TrainConfig, step: int) -> None:
    """Compares the config of a run that is at `step` with the one that it is to go on with.

    Raises:
      InputError: with the new config the run would not be where it is; the fields that differ are named.
    """
    identity = new.identity()
    changed = differences(old.identity(), identity)
    if not changed:
        return
    folder = Path(new.workdir)
    listed = ", ".join(_in_words(name, *values, identity) for name, values in changed.items())
    lengths_alone = all(name.startswith(LENGTHS) for name in changed)
    require(lengths_alone, f"{listed}: cannot change in {folder}; {_MEND}")
    require(step <= new.num_train_steps, f"{listed}: {folder} is at step {step} already; {_MEND}")
    other = _first_other_rate(old, new, step)
    require(
        other is None,
        f"{listed}: in {folder} step {other}, which is done, would have had another learning rate; {_MEND}. A "
        "length may change where the schedule so far does not depend on it: constant, inverse_sqrt, "
        "warmup_stable_decay before its decay (and with warmup_steps, not warmup_fraction)",
    )


def check_tokens(config: TrainConfig, manifest: Manifest, digest: str) -> None:
    """Raises `InputError` unless the tokens are those of a checkpoint, which has the digest of their manifest."""
    require(
        manifest.has_digest(digest),
        f"data.tokens_dir={config.data.tokens_dir}: not the tokens that the run in {config.workdir} began with; put "
        f"those back or {_MEND}",
    )


def check_metrics(folder: Path, step: int) -> None:
    """Raises `InputError` unless `metrics.jsonl` has a line of the step of the checkpoint, 0 where there is none."""
    require(
        step == 0 or any(line["step"] == step for line in read_metrics(folder)),
        f"{folder / 'metrics.jsonl'}: has no line of step {step}, which is checkpointed; put the file back or {_MEND}",
    )


def _in_words(name: str, old: Any, new: Any, dump: dict[str, Any]) -> str:
    """A field that differs from the run's; `dump` has the new one."""
    *sections, field = name.split(".")
    if field == "source_sha256" and old and new:
        own = functools.reduce(dict.__getitem__, sections, dump)["name"]
        return f"the source of {'.'.join(sections)}={own} (the run keeps the one it began with)"
    return f"{name}={new!r} (the run has {old!r})"


def _first_other_rate(old: TrainConfig, new: TrainConfig, step: int) -> int | None:
    """The first of so many steps to which the schedules of two configs give different rates; None: there is none."""

    def multipliers(config: TrainConfig) -> np.ndarray:
        lead = config.optimizer.calibration_steps
        return np.asarray(config.schedule.multiplier(np.arange(step), config.num_train_steps, lead))

    different = np.flatnonzero(multipliers(old) != multipliers(new))
    return int(different[0]) + 1 if different.size else None
