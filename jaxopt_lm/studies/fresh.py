"""What verdicts and claims read of a study's table: its rows, the fresh seeds of an arm, the seeds of two in common."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxopt_lm.studies.choice import TUNING_SEED, Choice


class Row(NamedTuple):
    """A run: columns of the table."""

    setting: str
    arm: str
    changed: str
    learning_rate: float
    seed: int
    status: str
    loss: float
    loss_at_init: float


class Fresh(NamedTuple):
    """An arm's runs on fresh seeds at one rate.

    Attributes:
      losses: of the runs that completed, nats per token, by seed.
      diverged: the number of runs that diverged.
    """

    losses: dict[int, float]
    diverged: int


def rows(table: pd.DataFrame) -> list[Row]:
    """The rows of a table as `load` gives it."""
    return [Row(*values) for values in table[list(Row._fields)].itertuples(index=False)]


def fresh(runs: Iterable[Row], choice: Choice | None) -> Fresh:
    """The fresh seeds of an arm at the rate and with the numbers it chose; none without a choice."""
    if choice is None:
        return Fresh({}, 0)
    mine = [
        run
        for run in runs
        if (run.setting, run.arm, run.changed) == (choice.setting, choice.arm, choice.changed)
        and math.isclose(run.learning_rate, choice.learning_rate)
        and run.seed > TUNING_SEED
    ]
    losses = {run.seed: run.loss for run in mine if run.status == "completed"}
    return Fresh(losses, sum(run.status == "diverged" for run in mine))


def common(ours: Fresh, theirs: Fresh) -> tuple[np.ndarray, np.ndarray] | None:
    """Both arms' losses on the seeds that both completed; None of fewer than 2, or where a run of either diverged."""
    seeds = sorted(ours.losses.keys() & theirs.losses.keys())
    if len(seeds) < 2 or ours.diverged or theirs.diverged:
        return None
    return np.array([ours.losses[seed] for seed in seeds]), np.array([theirs.losses[seed] for seed in seeds])
