"""More claims that are judged on fresh seeds: sizes of differences, across settings, and deviations over seeds."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from jaxopt_lm.studies.choice import Choice
from jaxopt_lm.studies.claims import (
    FAILS,
    HOLDS,
    OPEN,
    Better,
    Claim,
    Evidence,
    Judgement,
    intervals,
    nothing,
    together,
    where,
    written,
)
from jaxopt_lm.studies.fresh import common, fresh
from jaxopt_lm.studies.statistics import differences, t_interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap(Claim):
    """In every setting, an arm's loss is above another's by a given share of that, give or take `within`.

    It holds where two one-sided tests say so at alpha = 1 - level: the interval of level 1 - 2 alpha of the ratio of
    losses minus 1, which the sentence has, is within. It does not where the interval, widened, is outside.

    Attributes:
      arm: the one with the higher loss.
      than: the other; "" the baseline.
      share: .099 is 9.9%.
      within: of the share, on both sides.
    """

    arm: str
    than: str = ""
    share: float
    within: float

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        than, parts = self.than or evidence.baseline, []
        for setting in evidence.settings:
            both = evidence.losses(setting, self.arm, than)
            if both is None:
                parts.append((OPEN, nothing(setting, self.arm, than)))
                continue
            shares = both[0] / both[1] - 1
            own, (_, wide) = (
                t_interval(shares, 2 * self.level - 1),
                intervals(shares, self.level, len(evidence.settings)),
            )
            least, most = self.share - self.within, self.share + self.within
            inside, outside = least < own.low and own.high < most, wide.high < least or wide.low > most
            outcome = HOLDS if inside else FAILS if outside else OPEN
            numbers = f"{own.mean:+.2%} [{own.low:+.2%}, {own.high:+.2%}] ({own.n} seeds)"
            parts.append((outcome, f"{where(setting)}the loss of {self.arm} is {numbers} above that of {than}"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BetterEarly(Better):
    """`Better` of the losses after a quarter of the steps: the table's `early_loss`."""

    def judge(self, table: pd.DataFrame, choices: Sequence[Choice], baseline: str) -> Judgement:
        return super().judge(table.assign(loss=table["early_loss"]), choices, baseline)

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        outcome, sentence = super()._judged(evidence)
        return outcome, f"after a quarter of the steps {sentence}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowerIn(Claim):
    """Each of the arms has a lower loss in one setting than in another, by more than `by` nats, as in `Better`.

    Attributes:
      arms: one at least.
      setting: where it is lower.
      other: where it is higher.
      by: nats per token.
    """

    arms: tuple[str, ...]
    setting: str
    other: str
    by: float = 0.0

    def named_settings(self) -> set[str]:
        return {self.setting, self.other}

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        parts = []
        for arm in self.arms:
            here, there = (
                fresh(evidence.runs, evidence.chosen.get((setting, arm))) for setting in (self.setting, self.other)
            )
            both = common(here, there)
            if both is None:
                parts.append((OPEN, f"{arm} has not 2 fresh seeds in both settings, or diverged there"))
                continue
            own, wide = intervals(-differences(*both), self.level, len(self.arms))
            outcome = HOLDS if own.low > self.by else FAILS if wide.high < self.by else OPEN
            parts.append((outcome, f"{arm} is lower in {self.setting} than in {self.other} by {written(own)}"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steadier(Claim):
    """In every setting, an arm's losses deviate less over seeds than another's: by an F test, for normal losses.

    It holds where the interval of the ratio of deviations, the other's over the arm's, is above 1, and does not where,
    widened, it is below.

    Attributes:
      arm: the steadier one.
      than: the other; "" the baseline.
    """

    arm: str
    than: str = ""

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        than, parts = self.than or evidence.baseline, []
        for setting in evidence.settings:
            found = [fresh(evidence.runs, evidence.chosen.get((setting, name))) for name in (self.arm, than)]
            ours, theirs = (np.array(list(one.losses.values())) for one in found)
            if len(ours) < 2 or len(theirs) < 2 or any(one.diverged for one in found) or not np.ptp(ours):
                parts.append((OPEN, nothing(setting, self.arm, than)))
                continue
            ratio, low, high = _deviations(ours, theirs, self.level)
            wide = _deviations(ours, theirs, 1 - (1 - self.level) / len(evidence.settings))
            outcome = HOLDS if low > 1 else FAILS if wide[2] < 1 else OPEN
            numbers = f"{ratio:.2f} [{low:.2f}, {high:.2f}] times those of {self.arm}"
            parts.append((outcome, f"{where(setting)}losses of {than} deviate over seeds by {numbers}"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapGrows(Claim):
    """From each setting to the next, loss(arm) - loss(than) grows, over the seeds that all of them have in common.

    It holds where the interval of each growth is above 0, and does not where one, widened, is below.

    Attributes:
      arm: the one with the higher loss.
      than: the other; "" the baseline.
    """

    arm: str
    than: str = ""

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        than, parts = self.than or evidence.baseline, []
        pairs = list(itertools.pairwise(evidence.settings))
        for setting, larger in pairs:
            before, after = (self._gaps(evidence, place, than) for place in (setting, larger))
            seeds = sorted(before.keys() & after.keys())
            if len(seeds) < 2:
                parts.append((OPEN, f"{self.arm} and {than} have not 2 fresh seeds in {setting} and {larger}"))
                continue
            growth = np.array([after[seed] - before[seed] for seed in seeds])
            own, wide = intervals(growth, self.level, len(pairs))
            outcome = HOLDS if own.low > 0 else FAILS if wide.high < 0 else OPEN
            parts.append((outcome, f"from {setting} to {larger} {self.arm} falls behind {than} by {written(own)} more"))
        return together(parts)

    def _gaps(self, evidence: Evidence, setting: str, than: str) -> dict[int, float]:
        """By seed; none where one of them diverged."""
        ours, theirs = (fresh(evidence.runs, evidence.chosen.get((setting, name))) for name in (self.arm, than))
        if ours.diverged or theirs.diverged:
            return {}
        return {seed: ours.losses[seed] - theirs.losses[seed] for seed in ours.losses.keys() & theirs.losses.keys()}


def _deviations(ours: np.ndarray, theirs: np.ndarray, level: float) -> tuple[float, float, float]:
    """The ratio of deviations, theirs over ours, and its interval."""
    ratio = float(np.var(theirs, ddof=1) / np.var(ours, ddof=1))
    degrees = len(theirs) - 1, len(ours) - 1
    low, high = (ratio / stats.f.isf(tail, *degrees) for tail in ((1 - level) / 2, (1 + level) / 2))
    return math.sqrt(ratio), math.sqrt(low), math.sqrt(high)
