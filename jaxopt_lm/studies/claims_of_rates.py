"""Claims about curves of the loss over the learning rate, on the tuning seed.

There is no interval over seeds. A claim holds where it does however one rate is left out, and does not where it fails
so; otherwise it is not resolved.
"""

import dataclasses
import itertools
import math
from typing import Literal

import numpy as np

from jaxopt_lm.studies.claims import FAILS, HOLDS, OPEN, Claim, Evidence, sensitivities, together, where
from jaxopt_lm.studies.curves import fit_rates

Side = Literal["both", "below", "above"]
"""Rates below the best one, above it, or all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coincide(Claim):
    """In every setting, the curves of any two of the arms, each shifted to its best rate, are alike.

    Their mean distance over the rates of the first that the second's range covers is at most `within`. A run that
    diverged, or ended above the loss at initialisation, counts as that.

    Attributes:
      arms: two at least.
      within: nats per token.
      side: where they are compared.
    """

    arms: tuple[str, ...]
    within: float
    side: Side = "both"

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        pairs = itertools.combinations(self.arms, 2)
        return together([self._pair(evidence, *one) for one in itertools.product(evidence.settings, pairs)])

    def _pair(self, evidence: Evidence, setting: str, pair: tuple[str, str]) -> tuple[str, str]:
        mean, low, high = _left_out(np.abs(_apart(evidence, setting, *pair, self.side)))
        if math.isnan(mean):
            return OPEN, f"{where(setting)}too few rates of {pair[0]} and {pair[1]} in common"
        outcome = HOLDS if high <= self.within else FAILS if low > self.within else OPEN
        numbers = f"are {mean:.3f} nats [{low:.3f}, {high:.3f}] apart on average{_SIDES[self.side]}"
        return outcome, f"{where(setting)}shifted to their best rates, {pair[0]} and {pair[1]} {numbers} (one seed)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowerBeside(Claim):
    """In every setting, on one side of the best rate, an arm's loss is lower than another's, by more than `by` nats.

    Each curve is shifted to its best rate, as in `Coincide`, and the mean over the side is judged.

    Attributes:
      arm: the lower one.
      than: the other; "" the baseline.
      side: below or above the best rate, or both.
      by: nats per token.
    """

    arm: str
    than: str = ""
    side: Side
    by: float = 0.0

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        than, parts = self.than or evidence.baseline, []
        for setting in evidence.settings:
            mean, low, high = _left_out(-_apart(evidence, setting, self.arm, than, self.side))
            if math.isnan(mean):
                parts.append((OPEN, f"{where(setting)}too few rates of {self.arm} and {than} in common"))
                continue
            outcome = HOLDS if low > self.by else FAILS if high < self.by else OPEN
            numbers = f"{mean:+.3f} nats [{low:+.3f}, {high:+.3f}] on average{_SIDES[self.side]} (one seed)"
            parts.append((outcome, f"{where(setting)}{self.arm} is lower than {than} by {numbers}"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowerRate(Claim):
    """In every setting, an arm's best learning rate is at least `factor` times lower than another's.

    The optima are those of parabolas (`fit_rates`).

    Attributes:
      arm: the one with the lower rate.
      than: the other; "" the baseline.
      factor: above 1.
    """

    arm: str
    than: str = ""
    factor: float

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        than, parts = self.than or evidence.baseline, []
        for setting in evidence.settings:
            ours, theirs = (fit_rates(*evidence.rates(setting, arm)[:2]) for arm in (self.arm, than))
            if not ours or not theirs or math.isnan(ours.low) or math.isnan(theirs.low):
                parts.append(
                    (OPEN, f"{where(setting)}{self.arm} or {than} has no optimum that a rate left out lets be")
                )
                continue
            low, high = theirs.low / ours.high, theirs.high / ours.low
            outcome = HOLDS if low >= self.factor else FAILS if high < self.factor else OPEN
            rates = f"{ours.learning_rate:.3g} and {theirs.learning_rate:.3g}"
            numbers = f"{theirs.learning_rate / ours.learning_rate:.3g} [{low:.3g}, {high:.3g}]"
            parts.append((outcome, f"{where(setting)}best rates of {self.arm} and {than} {rates}, ratio {numbers}"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimumAt(Claim):
    """In every setting, an arm's best learning rate is a given one within a factor (`fit_rates`).

    Attributes:
      arm: its name.
      learning_rate: the rate.
      within: the factor, above 1.
    """

    arm: str
    learning_rate: float
    within: float

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        parts = []
        for setting in evidence.settings:
            fit = fit_rates(*evidence.rates(setting, self.arm)[:2])
            if not fit or math.isnan(fit.low):
                parts.append((OPEN, f"{where(setting)}no optimum of {self.arm} that a rate left out lets be"))
                continue
            least, most = self.learning_rate / self.within, self.learning_rate * self.within
            inside, outside = least <= fit.low and fit.high <= most, fit.high < least or fit.low > most
            outcome = HOLDS if inside else FAILS if outside else OPEN
            numbers = f"{fit.learning_rate:.3g} [{fit.low:.3g}, {fit.high:.3g}] with one rate left out"
            parts.append((outcome, f"{where(setting)}the optimum of {self.arm} is {numbers}"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LessSensitiveIn(Claim):
    """Each of the arms is less sensitive to its learning rate in one setting than in another (`sensitivity`).

    Attributes:
      arms: one at least.
      setting: where they are less sensitive.
      other: where they are more.
    """

    arms: tuple[str, ...]
    setting: str
    other: str

    def named_settings(self) -> set[str]:
        return {self.setting, self.other}

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        parts = []
        for arm in self.arms:
            (ours, low, high), (theirs, other_low, other_high) = (
                sensitivities(*evidence.rates(setting, arm)) for setting in (self.setting, self.other)
            )
            if math.isnan(low) or math.isnan(other_low):
                parts.append((OPEN, f"too few rates of {arm}"))
                continue
            outcome = HOLDS if high < other_low else FAILS if low > other_high else OPEN
            here, there = f"{ours:.3f} [{low:.3f}, {high:.3f}]", f"{theirs:.3f} [{other_low:.3f}, {other_high:.3f}]"
            parts.append((outcome, f"{arm} loses {here} nats on average in {self.setting}, {there} in {self.other}"))
        outcome, sentence = together(parts)
        return outcome, f"{sentence} (one seed; in brackets, with one rate left out)"


_SIDES = {"both": "", "below": " below them", "above": " above them"}


def _apart(evidence: Evidence, setting: str, arm: str, other: str, side: Side) -> np.ndarray:
    """Loss of arm minus loss of other at the arm's rates, both curves shifted to their best rates."""
    curves = [_shifted(evidence, setting, name) for name in (arm, other)]
    if any(len(x) < 2 for x, _ in curves):
        return np.zeros(0)
    (x, ours), (at, theirs) = curves
    covered = (x >= at[0] - 1e-6) & (x <= at[-1] + 1e-6)
    covered &= {"both": x > -np.inf, "below": x < -1e-6, "above": x > 1e-6}[side]
    return (ours - np.interp(x, at, theirs))[covered]


def _shifted(evidence: Evidence, setting: str, arm: str) -> tuple[np.ndarray, np.ndarray]:
    """log10(rate / best) and losses, lowest rate first; without a loss at initialisation diverged runs are left out."""
    rates, losses, at_init = evidence.rates(setting, arm)
    losses = np.where(np.isfinite(losses), np.fmin(losses, at_init), at_init)
    x, y = np.log10(rates[np.isfinite(losses)]), losses[np.isfinite(losses)]
    order = np.argsort(x)
    x, y = x[order], y[order]
    return (x - x[y.argmin()], y) if len(x) else (x, y)


def _left_out(values: np.ndarray) -> tuple[float, float, float]:
    """Their mean, and the least and the greatest with one left out; NaN of fewer than 2."""
    if len(values) < 2:
        return math.nan, math.nan, math.nan
    each = (values.sum() - values) / (len(values) - 1)
    return float(values.mean()), float(each.min()), float(each.max())
