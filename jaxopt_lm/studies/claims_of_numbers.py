"""Claims about the loss over the values of a number that is not the rate, or over settings, on the tuning seed.

The number is the arm's one nuisance axis, tried at its best rate. With one seed there is no interval: a claim says how
far apart two losses must be to be told apart, `noise`, and between it is not resolved. A run that diverged, or ended
above the loss at initialisation, counts as that.
"""

import abc
import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

from jaxopt_lm.studies.choice import TUNING_SEED
from jaxopt_lm.studies.claims import FAILS, HOLDS, OPEN, Claim, Evidence, together, where


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OfOneSeed(Claim, abc.ABC):
    """A claim that one seed decides.

    Attributes:
      noise: nats per token, see above.
    """

    noise: float

    def _outcome(self, value: float, bound: float) -> str:
        """Whether a value is above a bound."""
        return HOLDS if value - bound > self.noise else FAILS if bound - value > self.noise else OPEN


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowerAt(_OfOneSeed):
    """In every setting, at each of the values of the number, an arm's loss is lower than another's.

    Attributes:
      arm: the lower one.
      than: the other; "" the baseline.
      values: of both arms' numbers, none of them an arm's own.
    """

    arm: str
    than: str = ""
    values: tuple[float, ...]

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        than, parts = self.than or evidence.baseline, []
        for setting, value in itertools.product(evidence.settings, self.values):
            ours, theirs = (_over_number(evidence, setting, arm).get(value) for arm in (self.arm, than))
            if ours is None or theirs is None:
                parts.append((OPEN, f"{where(setting)}{self.arm} or {than} has no loss at {value:g}"))
                continue
            numbers = f"{where(setting)}at {value:g} {self.arm} is lower than {than} by {theirs - ours:+.3f} nats"
            parts.append((self._outcome(theirs - ours, 0.0), f"{numbers} (one seed)"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlikeAt(_OfOneSeed):
    """In every setting, at each of the values of the number, the losses of any two of the arms are alike.

    Attributes:
      arms: two at least.
      values: of all arms' numbers, none of them an arm's own.
      within: nats per token, above `noise`.
    """

    arms: tuple[str, ...]
    values: tuple[float, ...]
    within: float

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        pairs, parts = list(itertools.combinations(self.arms, 2)), []
        for setting, value, (arm, other) in itertools.product(evidence.settings, self.values, pairs):
            ours, theirs = (_over_number(evidence, setting, name).get(value) for name in (arm, other))
            if ours is None or theirs is None:
                parts.append((OPEN, f"{where(setting)}{arm} or {other} has no loss at {value:g}"))
                continue
            numbers = f"{where(setting)}at {value:g} {arm} and {other} differ by {abs(ours - theirs):.3f} nats"
            parts.append((self._outcome(self.within, abs(ours - theirs)), f"{numbers} (one seed)"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LessSensitiveTo(_OfOneSeed):
    """An arm is less sensitive to the number than another: it loses less of its best loss on average over the values.

    In every setting; or, `over_settings`, the settings are the values.

    Attributes:
      arm: the less sensitive one.
      than: the other; "" the baseline.
      over_settings: see above.
    """

    arm: str
    than: str = ""
    over_settings: bool = False

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        than, parts = self.than or evidence.baseline, []
        for place in ("",) if self.over_settings else evidence.settings:
            ours, theirs = (
                _mean_excess(
                    _over_settings(evidence, arm) if self.over_settings else _over_number(evidence, place, arm)
                )
                for arm in (self.arm, than)
            )
            if math.isnan(ours) or math.isnan(theirs):
                parts.append((OPEN, f"{where(place)}too few values of {self.arm} or {than}"))
                continue
            numbers = f"{self.arm} loses {ours:.3f} nats on average over the values, {than} {theirs:.3f}"
            parts.append((self._outcome(theirs, ours), f"{where(place)}{numbers} (one seed)"))
        return together(parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallGain(_OfOneSeed):
    """No value of the number lowers an arm's loss by more than `at_most` nats from that at its own value.

    In every setting; or, with `own`, the settings are the values.

    Attributes:
      arms: one at least.
      at_most: nats per token.
      own: the setting with the arms' own value; "": the number is a nuisance axis.
    """

    arms: tuple[str, ...]
    at_most: float
    own: str = ""

    def named_settings(self) -> set[str]:
        return super().named_settings() | ({self.own} if self.own else set())

    def _judged(self, evidence: Evidence) -> tuple[str, str]:
        parts = []
        for place, arm in itertools.product(("",) if self.own else evidence.settings, self.arms):
            losses = _over_settings(evidence, arm) if self.own else _over_number(evidence, place, arm)
            own = losses.get(self.own or None)
            if own is None or len(losses) < 2:
                parts.append((OPEN, f"{where(place)}too few values of {arm}, or none at its own"))
                continue
            gain = own - min(losses.values())
            numbers = f"{where(place)}the best value is {gain:.3f} nats below {arm}'s own (one seed)"
            parts.append((self._outcome(self.at_most, gain), numbers))
        return together(parts)


def _over_number(evidence: Evidence, setting: str, arm: str) -> dict[float | str | None, float]:
    """Losses by the value of the arm's nuisance axis, None its own; empty where none has ended."""
    tuning = [run for run in evidence.runs if (run.setting, run.arm, run.seed) == (setting, arm, TUNING_SEED)]
    tried = [run for run in tuning if run.changed and run.status in ("completed", "diverged")]
    at = {run.learning_rate for run in tried}
    own = [run for run in tuning if not run.changed and run.learning_rate in at]
    capped = {run: _capped(run.loss, run.loss_at_init) for run in (*own, *tried)}
    values = {run: float(run.changed.rpartition("=")[2]) if run.changed else None for run in capped}
    return {values[run]: loss for run, loss in capped.items() if not math.isnan(loss)}


def _over_settings(evidence: Evidence, arm: str) -> dict[float | str | None, float]:
    """The arm's best losses by setting."""
    found: dict[float | str | None, float] = {}
    for setting in evidence.settings:
        _, losses, at_init = evidence.rates(setting, arm)
        capped = [_capped(loss, at_init) for loss in losses.tolist()]
        known = [loss for loss in capped if not math.isnan(loss)]
        if known:
            found[setting] = min(known)
    return found


def _capped(loss: float, at_init: float) -> float:
    """NaN where the run diverged and the loss at initialisation is unknown."""
    if math.isnan(loss):
        return at_init
    return loss if math.isnan(at_init) else min(loss, at_init)


def _mean_excess(losses: Mapping[Any, float]) -> float:
    """Above the least of them, on average; NaN of fewer than 2."""
    values = list(losses.values())
    return sum(values) / len(values) - min(values) if len(values) > 1 else math.nan
