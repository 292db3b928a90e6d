"""Claims of a paper about a study, judged on its table: a claim holds, does not hold, or is not resolved.

A claim about losses is judged on fresh seeds at the chosen rates, with intervals; where an arm diverged there, or fewer
than 2 seeds are in common, it is not resolved. A claim about learning rates is judged on the tuning seed, whose runs
give no interval over seeds: it counts only where leaving out any one rate does not change the answer.

A claim about several settings holds where it holds in each. It does not hold where it fails in one of them, with an
interval widened for having looked at all (Bonferroni). So either answer is wrong with a chance of 1 - level at most.
"""

import abc
import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxopt_lm.studies.choice import TUNING_SEED, Choice
from jaxopt_lm.studies.curves import RateFit, fit_rates, sensitivity
from jaxopt_lm.studies.fresh import Row, common, fresh, rows
from jaxopt_lm.studies.statistics import Interval, differences, equivalence, holm, paired, t_interval

HOLDS, FAILS, OPEN = "holds", "does not hold", "not resolved"


class Judgement(NamedTuple):
    """What a study says of a claim.

    Attributes:
      name: the claim's.
      text: the claim's.
      outcome: "holds", "does not hold" or "not resolved".
      sentence: the numbers, in one sentence without a full stop.
    """

    name: str
    text: str
    outcome: str
    sentence: str


class Evidence(NamedTuple):
    """What claims are judged by: the rows of the table, the choices by (setting, arm), the settings in their order."""

    runs: list[Row]
    chosen: dict[tuple[str, str], Choice]
    settings: list[str]
    baseline: str

    def losses(self, setting: str, arm: str, than: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Both arms' losses on their common fresh seeds; None where there is nothing to judge (`common`)."""
        return common(*(fresh(self.runs, self.chosen.get((setting, name))) for name in (arm, than)))

    def rates(self, setting: str, arm: str) -> tuple[np.ndarray, np.ndarray, float]:
        """An arm's rates on the tuning seed, at its own numbers, their losses, NaN where diverged, and that at init."""
        ended = [
            run
            for run in self.runs
            if (run.setting, run.arm, run.changed, run.seed) == (setting, arm, "", TUNING_SEED)
            and run.status in ("completed", "diverged")
        ]
        at_init = [run.loss_at_init for run in ended if not math.isnan(run.loss_at_init)]
        rates, losses = np.array([run.learning_rate for run in ended]), np.array([run.loss for run in ended])
        return rates, losses, float(np.median(at_init)) if at_init else math.nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim(abc.ABC):
    """A claim about a study.

    Attributes:
      name: short, its own within a study.
      text: what the paper says, in a sentence.
      level: 1 - level is the chance of a wrong answer, where there is an interval.
      across: the settings that it is about, in their order; () all.
    """

    name: str
    text: str
    level: float = 0.95
    across: tuple[str, ...] = ()

    def named_arms(self) -> set[str]:
        """The arms that it is about, the baseline apart where it is not named."""
        named = (getattr(self, name, ()) for name in ("arms", "arm", "than"))
        return {arm for value in named for arm in (value if isinstance(value, tuple) else (value,)) if arm}

    def named_settings(self) -> set[str]:
        """Those that it names."""
        return set(self.across)

    def judge(self, table: pd.DataFrame, choices: Sequence[Choice], baseline: str) -> Judgement:
        """Judges it.

        Args:
          table: of the study, as `load` gives it.
          choices: what was chosen, one for each setting and arm at most.
          baseline: the name of the arm that a claim compares with unless it names another.
        """
        runs, chosen = rows(table), {(choice.setting, choice.arm): choice for choice in choices}
        settings = list(dict.fromkeys([setting for setting, _ in chosen] + [run.setting for run in runs]))
        outcome, sentence = self._judged(Evidence(runs, chosen, list(self.across) or settings, baseline))
        return Judgement(self.name, self.text, outcome, sentence)

    @abc.abstractmethod
    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        """The outcome and the sentence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Better(Claim):
    """In every setting, an arm's loss is lower than another's by more than `by` nats: the interval says so.

    It does not hold where the interval of loss(than) - loss(arm) is below `by` in a setting.

    Attributes:
      arm: the better one.
      than: the other; "" the baseline.
      by: nats per token; below 0 the arm may be the worse one by so much.
    """

    arm: str
    than: str = ""
    by: float = 0.0

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        than = self.than or evidence.baseline
        parts = []
        for setting in evidence.settings:
            both = evidence.losses(setting, self.arm, than)
            if both is None:
                parts.append((OPEN, nothing(setting, self.arm, than)))
                continue
            gain = -differences(*both)
            own, wide = intervals(gain, self.level, len(evidence.settings))
            outcome = HOLDS if own.low > self.by else FAILS if wide.high < self.by else OPEN
            parts.append((outcome, f"{where(setting)}{self.arm} is lower than {than} by {written(own)}"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alike(Claim):
    """In every setting, the losses of any two of the arms differ by less than `within` nats.

    It holds where two one-sided tests say so for each two at alpha = 1 - level (`equivalence`): the interval of level
    1 - 2 alpha, which the sentence has, is within. It does not where the interval of a difference, widened, is beyond
    `within`. That a difference is not significant is no evidence for either.

    Attributes:
      arms: two at least.
      within: nats per token.
    """

    arms: tuple[str, ...]
    within: float

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        pairs = list(itertools.combinations(self.arms, 2))
        parts = []
        for setting, (arm, other) in itertools.product(evidence.settings, pairs):
            both = evidence.losses(setting, arm, other)
            if both is None:
                parts.append((OPEN, nothing(setting, arm, other)))
                continue
            _, wide = intervals(differences(*both), self.level, len(pairs) * len(evidence.settings))
            apart = wide.low > self.within or wide.high < -self.within
            alike = equivalence(*both, self.within) < 1 - self.level
            outcome = HOLDS if alike else FAILS if apart else OPEN
            own = t_interval(differences(*both), 2 * self.level - 1)
            parts.append((outcome, f"{where(setting)}{arm} and {other} differ by {written(own)}"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SameRanking(Claim):
    """The arms rank alike in all settings: the ranking survives scale.

    It holds where of any two arms the same one is better in every setting, each time significantly after Holm's
    correction for all of these comparisons. It does not where one is significantly better in a setting and
    significantly worse in another. One setting leaves it unresolved.

    Attributes:
      arms: two at least.
    """

    arms: tuple[str, ...]

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        if len(evidence.settings) < 2:
            return OPEN, f"{len(evidence.settings)} setting: a ranking survives across two at least"
        signs = self._signs(evidence)
        turned = [f"{arm} and {other}" for (arm, other), each in signs.items() if {-1.0, 1.0} <= set(each)]
        blurred = [f"{arm} and {other}" for (arm, other), each in signs.items() if 0.0 in each]
        if turned:
            return FAILS, f"{', '.join(turned)} change places, each time significantly"
        if blurred:
            return OPEN, f"not significant in every setting: {', '.join(blurred)}"
        beaten = dict.fromkeys(self.arms, 0.0)
        for (arm, other), (sign, *_) in signs.items():
            beaten[arm] += sign
            beaten[other] -= sign
        ranking = " < ".join(sorted(self.arms, key=lambda arm: beaten[arm]))
        return HOLDS, f"{ranking} in {len(evidence.settings)} settings, every difference significant"

    def _signs(self, evidence: Evidence) -> dict[tuple[str, str], list[float]]:
        """For each two arms, setting by setting, the sign of their difference; 0 where it is not significant."""
        cases = list(itertools.product(itertools.combinations(self.arms, 2), evidence.settings))
        pairs = [evidence.losses(setting, *arms) for arms, setting in cases]
        found = [paired(*both) if both else None for both in pairs]
        significant = holm([each.p if each else math.nan for each in found]) < 1 - self.level
        signs: dict[tuple[str, str], list[float]] = {}
        for (arms, _), each, is_one in zip(cases, found, significant, strict=True):
            signs.setdefault(arms, []).append(float(np.sign(each.difference)) if each and is_one else 0.0)
        return signs


@dataclasses.dataclass(frozen=True, kw_only=True)
class LessSensitive(Claim):
    """In every setting, an arm is less sensitive to its learning rate than another (`sensitivity`, on the tuning seed).

    Each over its own swept range. There is no interval over seeds. It holds only where the arm is the less sensitive
    one however one rate of either is left out, in every setting; it does not where it is the more sensitive one so in a
    setting. Otherwise it is not resolved.

    Attributes:
      arm: the less sensitive one.
      than: the other; "" the baseline.
    """

    arm: str
    than: str = ""

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        than, parts = self.than or evidence.baseline, []
        for setting in evidence.settings:
            (ours, low, high), (theirs, other_low, other_high) = (
                sensitivities(*evidence.rates(setting, arm)) for arm in (self.arm, than)
            )
            if math.isnan(low) or math.isnan(other_low):
                parts.append((OPEN, f"{where(setting)}too few rates of {self.arm} or {than}"))
                continue
            outcome = HOLDS if high < other_low else FAILS if low > other_high else OPEN
            numbers = f"{self.arm} loses {ours:.3f} nats on average over its range [{low:.3f}, {high:.3f}]"
            other = f"{than} {theirs:.3f} [{other_low:.3f}, {other_high:.3f}]"
            parts.append((outcome, f"{where(setting)}{numbers}, {other}"))
        outcome, sentence = together(parts)
        return outcome, f"{sentence} (one seed; in brackets, with one rate left out)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimumMoves(Claim):
    """Across the settings, an arm's best learning rate moves by a factor of `at_most` at most.

    The optima are those of parabolas through the tuning seed's losses (`fit_rates`). There is no interval over seeds:
    it holds where the factor is at most `at_most` however one rate of each setting is left out, and does not where it
    is above it so. A setting without a fit leaves it unresolved.

    Attributes:
      arm: its name.
      at_most: a factor, at least 1.
    """

    arm: str
    at_most: float

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        settings = evidence.settings
        fits = {setting: fit_rates(*evidence.rates(setting, self.arm)[:2]) for setting in settings}
        known = {setting: fit for setting, fit in fits.items() if fit and not math.isnan(fit.low)}
        if len(known) < len(settings) or len(known) < 2:
            lacking = [setting or "the only setting" for setting in settings if setting not in known]
            return OPEN, f"no optimum of {self.arm} that a rate left out lets stand in {', '.join(lacking or settings)}"
        factor, low, high = _moved(known.values())
        outcome = HOLDS if high <= self.at_most else FAILS if low > self.at_most else OPEN
        optima = ", ".join(f"{fit.learning_rate:.3g} in {setting}" for setting, fit in known.items())
        left_out = f"[{low:.3g}, {high:.3g}] with one rate left out"
        return outcome, f"the optimum of {self.arm} moves by a factor of {factor:.3g}, {left_out}: {optima} (one seed)"


def intervals(values: np.ndarray, level: float, tests: int) -> tuple[Interval, Interval]:
    """At `level`, and widened for so many tests."""
    return t_interval(values, level), t_interval(values, 1 - (1 - level) / tests)


def sensitivities(rates: np.ndarray, losses: np.ndarray, at_init: float) -> tuple[float, float, float]:
    """With all rates, and the least and greatest with one left out; NaN of fewer than 4 rates."""
    if len(rates) < 4:
        return math.nan, math.nan, math.nan
    each = [sensitivity(np.delete(rates, i), np.delete(losses, i), at_init) for i in range(len(rates))]
    return sensitivity(rates, losses, at_init), min(each), max(each)


def _moved(fits: Iterable[RateFit]) -> tuple[float, float, float]:
    """The factor between the lowest and the highest optimum, and its bounds with one rate of each left out."""
    fits = list(fits)
    rates = [fit.learning_rate for fit in fits]
    least = max(one.low / other.high for one, other in itertools.permutations(fits, 2))
    return max(rates) / min(rates), max(1.0, least), max(fit.high for fit in fits) / min(fit.low for fit in fits)


def together(parts: list[tuple[str, str]]) -> tuple[str, str]:
    """It fails where one part does, holds where all do; the sentence has the parts that decide it."""
    outcomes = {outcome for outcome, _ in parts}
    outcome = next((each for each in (FAILS, OPEN) if each in outcomes), HOLDS if parts else OPEN)
    return outcome, "; ".join(sentence for each, sentence in parts if each == outcome) or "no setting"


def where(setting: str) -> str:
    return f"{setting}: " if setting else ""


def nothing(setting: str, arm: str, than: str) -> str:
    return f"{where(setting)}{arm} and {than} have not 2 fresh seeds in common, or one of them diverged there"


def written(interval: Interval) -> str:
    return f"{interval.mean:+.3f} nats [{interval.low:+.3f}, {interval.high:+.3f}] ({interval.n} seeds)"
