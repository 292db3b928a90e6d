"""What the tuning of each arm came to: trials in vain, the default rate, and whether the choice is a local optimum.

A choice is *locally optimal* where it is worse with any one number, the rate or that of a nuisance axis, at its next
value below or above. As long as one of these has not been tried, with the other numbers as chosen, that is not known.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxopt_lm.studies.choice import TUNING_SEED, Choice
from jaxopt_lm.studies.search import Losses, written
from jaxopt_lm.studies.study import Arm, Run, Study

_RATE = "learning_rate"

Tried = Mapping[float, Mapping[int, float]]
"""By the value of a number and by seed, losses in nats per token; NaN where a run diverged or failed."""


def tuned(study: Study, losses: Losses, chosen: Iterable[Choice]) -> pd.DataFrame:
    """The choices as a table: the fields of `Choice`, and

    `infeasible`, the share of the trials that diverged or failed; `default_rate`, the arm's own; `default_loss`, there
    on the tuning seed with the arm's own numbers, or "not tried" or "not completed"; `locally_optimal`, "yes" or the
    `doubts`.
    """
    rows = [(*choice, *_tuned(study, losses, choice)) for choice in chosen]
    columns = [*Choice._fields, "infeasible", "default_rate", "default_loss", "locally_optimal"]
    return pd.DataFrame(rows, columns=columns)  # pyright: ignore[reportArgumentType]


def _tuned(study: Study, losses: Losses, choice: Choice) -> tuple[float, float, float | str, str]:
    setting, arm = choice.setting, study.arm(choice.arm)
    mine = {run: loss for run, loss in losses.items() if (run.setting, run.arm) == (setting, arm.name)}
    trials = [loss for run, loss in mine.items() if run.seed == TUNING_SEED]
    default = Run(setting, arm.name, (), arm.optimizer.learning_rate, TUNING_SEED)
    loss = mine.get(default)
    at_default = "not tried" if loss is None else "not completed" if math.isnan(loss) else loss
    axes = _axes(mine, choice, arm, study.config(default).optimizer)
    found = "; ".join(doubt for axis in axes for doubt in doubts(*axis))
    return float(np.mean(np.isnan(trials))), default.learning_rate, at_default, found or "yes"


def _axes(runs: Losses, choice: Choice, arm: Arm, optimizer: Any) -> Iterator[tuple[str, float, Tried]]:
    """What `doubts` asks of the rate and of each nuisance axis; a chosen value of None has none beside it.

    Args:
      runs: of the arm in the setting.
      choice: its choice.
      arm: the arm.
      optimizer: with the numbers of the arm in the setting.
    """
    own: dict[str, Any] = {name: getattr(optimizer, name, None) for name, _ in arm.nuisance}
    changed = next(run.changed for run in runs if written(run.changed) == choice.changed)
    chosen = own | {_RATE: choice.learning_rate} | dict(changed)
    known = {_RATE: [run.learning_rate for run in runs if run.seed == TUNING_SEED]}
    known |= {name: [*values, own[name]] for name, values in arm.nuisance}
    for name in known:
        tried: dict[float, dict[int, float]] = {value: {} for value in known[name] if value is not None}
        for run, loss in runs.items():
            numbers = own | {_RATE: run.learning_rate} | dict(run.changed)
            if numbers[name] is not None and numbers | {name: 0} == chosen | {name: 0}:
                tried.setdefault(numbers[name], {})[run.seed] = loss
        if chosen[name] is not None:
            yield name, chosen[name], tried


def doubts(name: str, value: float, tried: Tried) -> list[str]:
    """Why a value of one number is not known to be a local optimum; nothing: it is one.

    The next value on each side must have finished and be worse: in the mean over the fresh seeds that both completed,
    or, where there is none, on the tuning seed. Nothing is looked for below 0.

    Args:
      name: of the number.
      value: the chosen one.
      tried: losses of it and of all other values that are known of, none where one was not tried.
    """
    below = max((x for x in tried if x < value), default=None)
    above = min((x for x in tried if x > value), default=None)
    found = [] if below is None and value == 0 else [_doubt(name, "below", value, below, tried)]
    return [doubt for doubt in (*found, _doubt(name, "above", value, above, tried)) if doubt]


def _doubt(name: str, side: str, value: float, nearest: float | None, tried: Tried) -> str:
    """Of one side; empty: there is none."""
    if nearest is None:
        return f"{name} {side} {value:g} is missing"
    losses, excess = tried[nearest], _excess(tried[nearest], tried[value])
    if losses and np.isnan([*losses.values()]).all():
        return f"{name} between {min(nearest, value):g} and {max(nearest, value):g} is missing"
    if math.isnan(excess):
        return f"{name}={nearest:g} is missing"
    return "" if excess > 0 else f"{name}={nearest:g} is no worse"


def _excess(losses: Mapping[int, float], chosen: Mapping[int, float]) -> float:
    """By how much they are worse than those of the chosen value; NaN without a seed that both completed."""
    more = {seed: loss - chosen[seed] for seed, loss in losses.items() if seed in chosen}
    fresh = [one for seed, one in more.items() if seed != TUNING_SEED and not math.isnan(one)]
    return float(np.mean(fresh)) if fresh else more.get(TUNING_SEED, math.nan)
