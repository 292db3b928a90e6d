"""What figures draw, as tables, from the table of runs and their histories; pure.

A table of runs has one row a run, as `jaxopt_lm.studies.load` gives it. A history is a run's metrics by name, each with
its steps and values.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from jaxopt_lm.optimizers.telemetry import QUANTILES
from jaxopt_lm.runs.read import Series
from jaxopt_lm.studies import frames
from jaxopt_lm.studies.choice import TUNING_SEED
from jaxopt_lm.studies.curves import best_after, fit_rates, sensitivity
from jaxopt_lm.studies.frames import ENDED, fresh_seeds, groups, only, rows

Histories = Callable[[str], Mapping[str, Series]]
"""The history of a run by its id; an empty one where there is none yet."""

_LAYER = "/layer_"


def at_choices(table: pd.DataFrame, choices: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(setting, arm, its fresh seeds' runs that have ended), at each choice; the tuning seed's where there are none."""
    for choice in rows(choices):
        at = {"setting": choice.setting, "arm": choice.arm, "changed": choice.changed}
        runs = only(table, status=ENDED, learning_rate=choice.learning_rate, **at)
        fresh = fresh_seeds(runs)
        yield choice.setting, choice.arm, fresh if len(fresh) else runs


def curve_points(table: pd.DataFrame, choices: pd.DataFrame, history: Histories) -> pd.DataFrame:
    """Evaluation loss over training at the chosen rates.

    Returns:
      Columns setting, arm, diverged_seed (0: the mean of the seeds that completed, at the steps that all have), step,
      seconds (of training alone, evenly over the steps; NaN where unknown), loss, low, high (the seeds' range), seeds.
    """
    found = []
    for setting, arm, runs in at_choices(table, choices):
        found += _means(setting, arm, list(rows(only(runs, status="completed"))), history)
        for run in rows(only(runs, status="diverged")):
            curve = sorted(_eval_loss(history, run.id).items())
            found += [(setting, arm, run.seed, step, step * pace(run), x, x, x, 1) for step, x in curve]
    return frames.table(found, "setting arm diverged_seed step seconds loss low high seeds")


def _means(setting, arm, runs, history):
    curves = [_eval_loss(history, run.id) for run in runs]
    curves = [curve for curve in curves if curve]
    mean_pace = float(np.mean([pace(run) for run in runs])) if runs else math.nan
    for step in sorted(set.intersection(*map(set, curves))) if curves else []:
        losses = [curve[step] for curve in curves]
        yield setting, arm, 0, step, step * mean_pace, float(np.mean(losses)), min(losses), max(losses), len(losses)


def _eval_loss(history: Histories, name: str) -> dict[int, float]:
    series = history(name).get("eval/loss")
    return {} if series is None else dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def pace(run) -> float:
    """Seconds of training a step of a row of the table; NaN where unknown."""
    return run.seconds / run.steps if run.steps else math.nan


def tuning_points(table: pd.DataFrame) -> pd.DataFrame:
    """The least loss to expect of n of an arm's trials on the tuning seed, by `curves.best_after`.

    Returns:
      Columns setting, arm, trials, loss, and low and high of the median's band, NaN where the trials do not bound it,
      and where they bound it at fewer than two numbers of trials; arms of one trial, or none that completed, are left
      out.
    """
    found = []
    for (setting, arm), runs in groups(only(table, seed=TUNING_SEED, status=ENDED), "setting", "arm"):
        if len(runs) > 1 and runs.loss.notna().any():
            trials = np.arange(1, len(runs) + 1)
            best = best_after(runs.loss, trials)
            bounded = np.isfinite(best.low) & np.isfinite(best.high)
            bounded &= bounded.sum() > 1
            band = (np.where(bounded, end, math.nan) for end in (best.low, best.high))
            found += [(setting, arm, *values) for values in zip(trials, best.mean, *band, strict=True)]
    return frames.table(found, "setting arm trials loss low high")


def fit_points(table: pd.DataFrame) -> pd.DataFrame:
    """The learning rate that a parabola through the losses around the best has as its optimum, by `curves.fit_rates`.

    Returns:
      Columns setting, arm, learning_rate, loss, low, high; arms without a fit are left out.
    """
    found = []
    for (setting, arm), runs in groups(_grid(table), "setting", "arm"):
        if fit := fit_rates(runs.learning_rate, runs.loss):
            found.append((setting, arm, fit.learning_rate, fit.loss, fit.low, fit.high))
    return frames.table(found, "setting arm learning_rate loss low high")


def _grid(table: pd.DataFrame) -> pd.DataFrame:
    """The tuning seed's runs with the arms' own numbers."""
    return only(table, seed=TUNING_SEED, changed="", status=ENDED)


def size_points(table: pd.DataFrame, choices: pd.DataFrame) -> pd.DataFrame:
    """What was chosen against the number of parameters, where settings have several.

    Returns:
      Columns setting, arm, num_params, learning_rate, inside, loss, sensitivity (of `curves.sensitivity`; NaN where it
      is unknown).
    """
    found, columns = [], "setting arm num_params learning_rate inside loss sensitivity"
    if table.num_params[table.num_params > 0].nunique() < 2:
        return frames.table([], columns)
    for choice in rows(choices):
        runs = only(_grid(table), setting=choice.setting, arm=choice.arm)
        least = sensitivity(runs.learning_rate, runs.loss, runs.loss_at_init.median())
        size = int(only(table, setting=choice.setting).num_params.max())
        at = choice.setting, choice.arm, size, choice.learning_rate, choice.inside, choice.loss
        found.append((*at, least))
    return frames.table(found, columns)


def grid_points(table: pd.DataFrame) -> pd.DataFrame:
    """The tuning seed's losses over the rate and a second number: a setting, or a number that was changed.

    Returns:
      Columns arm, row (the second number), learning_rate, status, loss; of arms with two rows of two rates at least.
    """
    ended = only(table, seed=TUNING_SEED, status=ENDED)
    names = [", ".join(filter(None, pair)) or "own" for pair in zip(ended.setting, ended.changed, strict=True)]
    kept, columns = [], ["arm", "row", "learning_rate", "status", "loss"]
    for _, runs in groups(ended.assign(row=names), "arm"):
        several = tuple(name for name, mine in groups(runs, "row") if mine.learning_rate.nunique() > 1)
        if len(several) > 1 and (runs.status == "completed").any():
            kept.append(only(runs, row=several))
    return pd.concat(kept).filter(columns).reset_index(drop=True) if kept else frames.table([], " ".join(columns))


def gradient_points(table: pd.DataFrame, choices: pd.DataFrame, history: Histories) -> pd.DataFrame:
    """Norms of gradients by layer over training, of one seed at the chosen rate, in the largest setting that has them.

    Returns:
      Columns setting, arm, layer, step, norm: over all roles of the layer's parameters.
    """
    found = []
    for setting, arm, metrics in _watched(table, choices, history):
        squares: dict[tuple[int, int], float] = {}
        for name, series in metrics.items():
            role, by_layer, layer = name.removeprefix("telemetry/grads_norm/").partition(_LAYER)
            if by_layer and name.startswith("telemetry/grads_norm/") and role:
                for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
                    squares[int(layer), step] = squares.get((int(layer), step), 0.0) + value**2
        found += [(setting, arm, layer, step, math.sqrt(x)) for (layer, step), x in sorted(squares.items())]
    return _largest(frames.table(found, "setting arm layer step norm"), table)


def effective_rate_points(table: pd.DataFrame, choices: pd.DataFrame, history: Histories) -> pd.DataFrame:
    """Quantiles of effective learning rates over training, of one seed at the chosen rate, in the largest setting.

    Returns:
      Columns setting, arm, role, step, and one a quantile; steps before any gradient are left out.
    """
    found, head = [], "telemetry/effective_learning_rate/"
    for setting, arm, metrics in _watched(table, choices, history):
        roles = {name[len(head) :].rpartition("/")[0] for name in metrics if name.startswith(head)}
        for role in sorted(roles):
            columns = [metrics[f"{head}{role}/{quantile}"] for quantile in QUANTILES]
            for step, *values in zip(columns[0].steps.tolist(), *(column.values for column in columns), strict=True):
                if all(value > 0 for value in values):
                    found.append((setting, arm, role, step, *map(float, values)))
    return _largest(frames.table(found, f"setting arm role step {' '.join(QUANTILES)}"), table)


def _watched(table, choices, history):
    """(setting, arm, history) of the first seed of each choice."""
    for setting, arm, runs in at_choices(table, choices):
        if len(runs):
            yield setting, arm, history(runs.sort_values("seed").id.iloc[0])


def _largest(points: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The points of the setting with the most parameters of those that have points."""
    if not len(points):
        return points
    mine = only(table, setting=tuple(points.setting)).sort_values("num_params")
    return only(points, setting=mine.setting.iloc[-1]).reset_index(drop=True)
