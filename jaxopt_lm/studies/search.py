"""Which runs a study wants next, and which rates it has chosen: pure functions of what has ended.

For each setting and arm, one after another:

1. the baseline's noise: its default rate on fresh seeds, before anything else;
2. the grid of learning rates on the tuning seed;
3. two rates more wherever the best has no finished neighbour: beyond an end of the grid at its ratio, and between it
   and a neighbour that diverged or failed; at most `max_extensions` times;
4. nuisance axes at the best rate, one after another;
5. fresh seeds at the best rate and its finished neighbours, with the chosen numbers.

What is wanted depends on what has ended alone, not on when it did, so a study that was killed ends with the same runs.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxopt_lm.studies.choice import TUNING_SEED, Choice
from jaxopt_lm.studies.study import Arm, Run, Study

Losses = Mapping[Run, float]
"""The loss of every run that has ended; NaN where it diverged or failed."""

_RATIO = math.sqrt(10)  # between the rates that are added to a grid of one


def wanted(study: Study, losses: Losses) -> list[Run]:
    """Every run of the study that is known to be needed so far, ended or not, each once, in the order to train them.

    It has none that has not ended exactly where the study is done. Runs of a grid come in a random order, the same at
    every call, so that a study that is cut short has seen all of its range.
    """
    noise = noise_runs(study)
    if not all(run in losses for run in noise):
        return noise
    found = noise + [run for setting, arm in study.contests for run in _Search(study, setting, arm, losses).runs]
    return list(dict.fromkeys(found))


class Progress(NamedTuple):
    """Where a study is.

    Attributes:
      runs: wanted so far.
      losses: of those that have ended.
    """

    runs: list[Run]
    losses: dict[Run, float]

    @property
    def open(self) -> list[Run]:
        """What has not ended, in the order to train it."""
        return [run for run in self.runs if run not in self.losses]


def followed(
    study: Study, find: Callable[[Sequence[Run]], Mapping[Run, float]], known: Losses | None = None
) -> Progress:
    """Where a study is.

    Args:
      study: the study.
      find: the losses of those of the runs that have ended.
      known: losses that need not be found again.
    """
    losses = dict(known or {})
    while True:
        runs = wanted(study, losses)
        new = find([run for run in runs if run not in losses])
        if not new:
            return Progress(runs, losses)
        losses |= new


def choices(study: Study, losses: Losses) -> list[Choice]:
    """What was chosen, of the arms whose tuning has ended with one finished run at least."""
    searches = (_Search(study, setting, arm, losses) for setting, arm in study.contests)
    return [search.choice for search in searches if search.choice]


def written(changed: tuple[tuple[str, float], ...]) -> str:
    """`weight_decay=0.1,b2=0.99`."""
    return ",".join(f"{name}={value:g}" for name, value in changed)


def noise_runs(study: Study) -> list[Run]:
    """The baseline at its default rate on fresh seeds, in every setting."""
    default = study.baseline.optimizer.learning_rate
    seeds = _fresh(study.rules.noise_seeds)
    return [Run(setting, study.baseline.name, (), default, seed) for seed in seeds for setting in study.setting_names]


class _Search:
    """The search of one arm in one setting, as far as what has ended takes it.

    Attributes:
      runs: wanted so far.
      choice: once tuning has ended; None before, and where every run diverged.
    """

    def __init__(self, study: Study, setting: str, arm: Arm, losses: Losses):
        self.runs: list[Run] = []
        self.choice: Choice | None = None
        self._setting, self._arm, self._losses, self._rules = setting, arm, losses, study.rules
        rates = self._tuned_rates()
        best = self._best(rates) if rates else None
        if not rates or best is None:
            return
        changed = self._tuned_numbers(rates[best])
        if changed is None:
            return
        sides = [rates[i] for i in (best - 1, best + 1) if 0 <= i < len(rates) and self._finished(rates[i])]
        tried = len(self.runs)
        loss = losses[Run(setting, arm.name, changed, rates[best], TUNING_SEED)]
        inside = len(sides) == 2
        self.choice = Choice(setting, arm.name, rates[best], written(changed), loss, inside, tried, tuple(sides))
        fresh = _fresh(study.rules.seeds)
        self.runs += [Run(setting, arm.name, changed, rate, seed) for seed in fresh for rate in (rates[best], *sides)]

    def _tuned_rates(self) -> list[float] | None:
        """The rates, lowest first, once all have ended and no more are wanted."""
        rates = list(self._arm.learning_rates)
        self._want(_shuffled(rates, self._setting + self._arm.name))
        for _ in range(self._rules.max_extensions):
            if not self._ended():
                return None
            more = self._beyond(rates)
            if not more:
                break
            self._want(more)
            rates = sorted({*rates, *more})
        return rates if self._ended() else None

    def _beyond(self, rates: list[float]) -> list[float]:
        """The rates that are missing around the best; of an arm whose runs all diverged, lower ones."""
        best, lowered = self._best(rates), rates[::-1]
        if best is None:
            return _further(lowered, 1 / _RATIO)
        more = []
        for ordered, ratio, outwards in ((lowered, 1 / _RATIO, rates[:best][::-1]), (rates, _RATIO, rates[best + 1 :])):
            if not outwards:
                more += _further(ordered, ratio)
            elif not self._finished(outwards[0]):
                more += _between(rates[best], outwards[0])
        return [rate for rate in more if rate not in rates]

    def _tuned_numbers(self, rate: float) -> tuple[tuple[str, float], ...] | None:
        """The best value of each nuisance axis that is not the arm's own, once all have ended."""
        changed: tuple[tuple[str, float], ...] = ()
        for name, values in self._arm.nuisance:
            others = [value for value in dict.fromkeys(values) if value != getattr(self._arm.optimizer, name, None)]
            tried = [changed, *((*changed, (name, value)) for value in others)]
            runs = [Run(self._setting, self._arm.name, each, rate, TUNING_SEED) for each in tried]
            self.runs += [run for run in runs if run not in self.runs]
            if not self._ended():
                return None
            changed = min(runs, key=lambda run: _or_infinite(self._losses[run])).changed
        return changed

    def _want(self, rates: list[float]) -> None:
        self.runs += [Run(self._setting, self._arm.name, (), rate, TUNING_SEED) for rate in rates]

    def _ended(self) -> bool:
        return all(run in self._losses for run in self.runs)

    def _loss(self, rate: float) -> float:
        return _or_infinite(self._losses[Run(self._setting, self._arm.name, (), rate, TUNING_SEED)])

    def _finished(self, rate: float) -> bool:
        return self._loss(rate) < math.inf

    def _best(self, rates: list[float]) -> int | None:
        """The index of the rate of least loss, the lowest of equal ones; None: all diverged."""
        best = min(range(len(rates)), key=lambda i: self._loss(rates[i]))
        return best if self._finished(rates[best]) else None


def _fresh(seeds: int) -> range:
    """So many fresh seeds."""
    return range(TUNING_SEED + 1, TUNING_SEED + 1 + seeds)


def _or_infinite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _further(rates: list[float], ratio: float) -> list[float]:
    """Two rates beyond the last of them, at the ratio of the last two, or of a single one at `ratio`."""
    ratio = rates[-1] / rates[-2] if len(rates) > 1 else ratio
    return [_rounded(rates[-1] * ratio), _rounded(rates[-1] * ratio**2)]


def _between(rate: float, other: float) -> list[float]:
    """Two rates between two, evenly in their logarithms."""
    ratio = (other / rate) ** (1 / 3)
    return [_rounded(rate * ratio), _rounded(rate * ratio**2)]


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def _shuffled(rates: list[float], seed: str) -> list[float]:
    return random.Random(seed).sample(rates, len(rates))
