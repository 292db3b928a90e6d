"""What a page says of each arm at its chosen rate, as tables: speed-ups, divergence and loss spikes; pure."""

import math
from typing import Any

import numpy as np
import pandas as pd

from jaxopt_lm.runs.read import Series
from jaxopt_lm.studies import frames
from jaxopt_lm.studies.curves import WINDOW, Curve, speed_up, spikes
from jaxopt_lm.studies.frames import fresh_seeds, only, rows
from jaxopt_lm.studies.points import Histories, at_choices, pace

_NOTHING = Series(np.zeros(0, int), np.zeros(0))


def speed_ups(
    table: pd.DataFrame, choices: pd.DataFrame, baseline: str, history: Histories, level: float = 0.95
) -> pd.DataFrame:
    """How many times faster each arm reaches the baseline's last evaluation loss, by `curves.speed_up`.

    Over the fresh seeds that the baseline completed and on which the arm has ended; an arm that diverged never gets
    there.

    Returns:
      Columns setting, arm, in_steps, steps_low, steps_high, in_seconds, seconds_low, seconds_high, reached, seeds; arms
      without such a seed are left out.
    """
    at = {(setting, arm): fresh_seeds(runs) for setting, arm, runs in at_choices(table, choices)}
    found = []
    for (setting, arm), runs in at.items():
        of_baseline = at.get((setting, baseline))
        if arm == baseline or of_baseline is None:
            continue
        theirs = {run.seed: run for run in rows(only(of_baseline, status="completed"))}
        pairs = [(run, theirs[run.seed]) for run in rows(runs) if run.seed in theirs]
        if pairs:
            ours, others = ([pair[i] for pair in pairs] for i in (0, 1))
            steps, seconds, reached, n = speed_up(
                [_curve(history, run) for run in ours],
                [_curve(history, run) for run in others],
                [pace(run) for run in ours],
                [pace(run) for run in others],
                level,
            )
            found.append((setting, arm, *steps[:3], *seconds[:3], reached, n))
    columns = "in_steps steps_low steps_high in_seconds seconds_low seconds_high"
    return frames.table(found, f"setting arm {columns} reached seeds")


def _curve(history: Histories, run: Any) -> Curve:
    """Steps and evaluation losses of a run; none of one that diverged."""
    return history(run.id).get("eval/loss", _NOTHING) if run.status == "completed" else _NOTHING


def stability(table: pd.DataFrame, choices: pd.DataFrame, history: Histories) -> pd.DataFrame:
    """How smoothly each arm trains at its chosen rate: fresh seeds, or the tuning seed where there are none yet.

    Returns:
      Columns setting, arm, runs; diverged, the share of them; spikes, the mean number of a run by `curves.spikes` of
      the training loss as it was logged, NaN where none could be judged; judged, the runs that could: those with more
      than `curves.WINDOW` logged losses.
    """
    found = []
    for setting, arm, runs in at_choices(table, choices):
        logged = [history(name).get("train/loss", _NOTHING).values for name in runs.id]
        counts = [spikes(losses) for losses in logged if len(losses) > WINDOW]
        if len(runs):
            diverged = float(np.mean(runs.status == "diverged"))
            mean = float(np.mean(counts)) if counts else math.nan
            found.append((setting, arm, len(runs), diverged, mean, len(counts)))
    return frames.table(found, "setting arm runs diverged spikes judged")
