"""From the table of a study to its verdicts: each arm against the baseline, on fresh seeds, at the rate it chose.

Rates are chosen on the tuning seed, and the best of many noisy losses is too good on average. So a verdict is of fresh
seeds alone, which chose nothing, and is unbiased.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from jaxopt_lm.studies.choice import TUNING_SEED, Choice
from jaxopt_lm.studies.fresh import Row, common, fresh, rows
from jaxopt_lm.studies.statistics import (
    Interval,
    Paired,
    differences,
    holm,
    holm_levels,
    interval,
    paired,
    seeds_needed,
    smallest_detectable,
    t_interval,
)


class Verdict(NamedTuple):
    """An arm against the baseline in one setting. Losses are in nats per token.

    Attributes:
      setting: its name.
      arm: its name.
      baseline: its name.
      kind: "baseline"; "better", "worse" or "not resolved"; or "no fresh seeds" where there is nothing to judge: fewer
        than 2 fresh seeds that both arms completed, no rate chosen, or an arm diverged on a fresh seed.
      learning_rate: the chosen one; NaN without.
      changed: other chosen numbers that are not the arm's own.
      inside: whether the chosen rate is inside its range; otherwise the arm's loss is a bound.
      baseline_inside: likewise for the baseline.
      loss: the arm's mean on the fresh seeds it completed, with its interval at the study's level; NaN without any. It
        flatters an arm that diverged on others.
      difference: mean of arm minus baseline over common fresh seeds; NaN where it is not judged.
      low: lower end of its interval, which is widened for the study's many comparisons.
      high: upper end of its interval; the two leave out 0 exactly where the verdict is "better" or "worse".
      p: of no difference, two-sided, corrected by Holm over the study.
      effect_size: d_z.
      seeds_needed: fresh seeds at which such an effect is found with 80% power, at this comparison's share of alpha.
      n: common fresh seeds.
      diverged: the arm's fresh seeds that diverged.
      baseline_diverged: the baseline's.
    """

    setting: str
    arm: str
    baseline: str
    kind: str
    learning_rate: float
    changed: str
    inside: bool
    baseline_inside: bool
    loss: Interval
    difference: float
    low: float
    high: float
    p: float
    effect_size: float
    seeds_needed: float
    n: int
    diverged: int
    baseline_diverged: int

    @property
    def sentence(self) -> str:
        """The verdict in one plain sentence, without a full stop."""
        where = f"{self.setting}: " if self.setting else ""
        judged = self.kind in ("better", "worse", "not resolved")
        ends = {
            self.arm: self.inside or math.isnan(self.learning_rate),
            self.baseline: self.baseline_inside or not judged,
        }
        bounds = [f"{arm}'s best rate is not inside its range: its loss is a bound" for arm in ends if not ends[arm]]
        return "; ".join([where + self._plain(), *bounds])

    def _plain(self) -> str:
        ends, seeds = f"[{self.low:+.3f}, {self.high:+.3f}]", f"{self.n} seeds, Holm p {written_p(self.p)}"
        if self.kind == "baseline":
            return f"{self.arm}, the baseline, {_written_loss(self.loss)}"
        if self.kind == "no fresh seeds":
            return f"{self.arm} is not judged: {self._reason()}"
        if self.kind == "not resolved":
            start = f"{self.arm} and {self.baseline} are not resolved: difference {self.difference:+.3f} nats"
            return f"{start} {ends} ({seeds}); {_seeds_would_settle(self.seeds_needed)}"
        ends = sorted((abs(self.low), abs(self.high)))
        start = f"{self.arm} is {self.kind} than {self.baseline} by {abs(self.difference):.3f} nats"
        return f"{start} [{ends[0]:.3f}, {ends[1]:.3f}] ({seeds})"

    def _reason(self) -> str:
        for arm, diverged in ((self.arm, self.diverged), (self.baseline, self.baseline_diverged)):
            if diverged:
                runs = "run" if diverged == 1 else "runs"
                return f"{diverged} {runs} of {arm} on fresh seeds diverged at the rate it chose"
        if math.isnan(self.learning_rate):
            return "no rate is chosen"
        return f"{self.n} common fresh {'seed' if self.n == 1 else 'seeds'} finished, 2 are needed"


class Noise(NamedTuple):
    """How far apart runs are that differ in their seed alone; see `noise`. All in nats per token.

    Attributes:
      setting: its name.
      learning_rate: at which it was measured.
      deviation: of the baseline's losses over seeds; NaN of fewer than 2.
      low: lower end of its interval, of the chi-squared distribution, which takes losses to be normal.
      high: upper end of its interval.
      n: the seeds it was measured on.
      detectable: the smallest true difference that is found with 80% power, without correction.
    """

    setting: str
    learning_rate: float
    deviation: float
    low: float
    high: float
    n: int
    detectable: float


def verdicts(table: pd.DataFrame, choices: Sequence[Choice], baseline: str, level: float = 0.95) -> list[Verdict]:
    """One verdict for each setting and arm: those of `choices` in their order, then those that chose nothing.

    An arm is compared with the baseline by a paired t test over the fresh seeds that both completed at the rates they
    chose (`paired`). Of all comparisons in the study, the p values are corrected together by Holm: with a chance of
    `level`, not one "better" or "worse" is false. The interval of a difference is Student's, at the level that Holm's
    steps give it (`holm_levels`), at least `level`: it leaves out 0 exactly where the corrected p is below 1 - level.

    A diverged run has no loss, and to drop it would flatter its arm. So an arm, or a baseline, that diverged on a fresh
    seed gets no verdict on its loss, and the sentence says how often it did: that finding is the verdict. A run that
    failed or has not finished says nothing of its optimizer: its seed is left out.

    Args:
      table: of the study, as `load` gives it.
      choices: what was chosen, one for each setting and arm at most.
      baseline: the name of the arm to compare with.
      level: of intervals; 1 - level is the chance of any false "better" or "worse" in the study.
    """
    runs, chosen = rows(table), {(choice.setting, choice.arm): choice for choice in choices}
    pairs = dict.fromkeys([*chosen, *((run.setting, run.arm) for run in runs)])
    contests = [_Contest(runs, chosen, setting, arm, baseline) for setting, arm in pairs]
    p = np.array([contest.compared.p for contest in contests])
    corrected = zip(contests, holm(p).tolist(), holm_levels(p, level).tolist(), strict=True)
    return [contest.verdict(level, *own) for contest, *own in corrected]


def noise(
    table: pd.DataFrame,
    baseline: str,
    learning_rate: float | None = None,
    seeds: int | None = None,
    level: float = 0.95,
) -> list[Noise]:
    """How far apart runs of the baseline are that differ in their seed alone, and what can be told apart: by setting.

    The deviation is s = sqrt(sum (loss - mean)^2 / (n - 1)) over its completed fresh seeds at its own numbers. An arm
    of the same noise, with nothing in common with the baseline on a seed, differs from it by sqrt(2) s: this gives
    `detectable`. Where a seed moves both arms alike, less can be detected than it says.

    Args:
      table: of the study.
      baseline: its name.
      learning_rate: its default; None: the rate with the most fresh seeds, the lowest of equal ones.
      seeds: planned for each arm; None: as many as were measured.
      level: of the deviation's interval; 1 - level is the test's alpha.
    """
    measured: dict[str, dict[float, list[float]]] = {}
    for run in rows(table):
        if run.arm == baseline and run.changed == "" and run.seed > TUNING_SEED and run.status == "completed":
            measured.setdefault(run.setting, {}).setdefault(run.learning_rate, []).append(run.loss)
    found = []
    for setting, losses in measured.items():
        most = min(losses, key=lambda rate: (-len(losses[rate]), rate))
        rate = most if learning_rate is None else learning_rate
        found.append(_noise(setting, rate, losses.get(rate, []), seeds, level))
    return found


def _noise(setting: str, rate: float, losses: list[float], seeds: int | None, level: float) -> Noise:
    n = len(losses)
    if n < 2:
        return Noise(setting, rate, math.nan, math.nan, math.nan, n, math.nan)
    deviation = float(np.std(losses, ddof=1))
    low, high = (math.sqrt((n - 1) / stats.chi2.isf(tail, n - 1)) for tail in ((1 - level) / 2, (1 + level) / 2))
    detectable = smallest_detectable(math.sqrt(2) * deviation, n if seeds is None else seeds, alpha=1 - level)
    return Noise(setting, rate, deviation, low * deviation, high * deviation, n, detectable)


def written_p(p: float) -> str:
    """`= .004`, `< .001`."""
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace("= 0.", "= .")


class _Contest:
    """An arm and the baseline in one setting, before the study's correction."""

    def __init__(self, runs: list[Row], chosen: dict[tuple[str, str], Choice], setting: str, arm: str, baseline: str):
        self._names = setting, arm, baseline
        self._choice, self._other = chosen.get((setting, arm)), chosen.get((setting, baseline))
        self._ours, self._theirs = fresh(runs, self._choice), fresh(runs, self._other)
        self._both = None if arm == baseline else common(self._ours, self._theirs)
        self.compared = paired(*self._both) if self._both else _NOTHING

    def verdict(self, level: float, p: float, own_level: float) -> Verdict:
        """`p` is corrected, and `own_level` goes with it."""
        setting, arm, baseline = self._names
        ends = t_interval(differences(*self._both), own_level) if self._both else self.compared
        losses = list(self._ours.losses.values())
        return Verdict(
            setting=setting,
            arm=arm,
            baseline=baseline,
            kind="baseline" if arm == baseline else self._kind(p < 1 - level),
            learning_rate=self._choice.learning_rate if self._choice else math.nan,
            changed=self._choice.changed if self._choice else "",
            inside=bool(self._choice and self._choice.inside),
            baseline_inside=bool(self._other and self._other.inside),
            loss=interval(losses, level) if losses else Interval(math.nan, math.nan, math.nan, 0),
            difference=self.compared.difference,
            low=ends.low,
            high=ends.high,
            p=p,
            effect_size=self.compared.effect_size,
            seeds_needed=seeds_needed(self.compared.effect_size, alpha=1 - own_level) if self._both else math.nan,
            n=len(self._ours.losses.keys() & self._theirs.losses.keys()),
            diverged=self._ours.diverged,
            baseline_diverged=self._theirs.diverged,
        )

    def _kind(self, significant: bool) -> str:
        if self._both is None:
            return "no fresh seeds"
        if not significant:
            return "not resolved"
        return "better" if self.compared.difference < 0 else "worse"


_NOTHING = Paired(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, 0)


def _written_loss(loss: Interval) -> str:
    ends = "" if math.isnan(loss.low) else f" [{loss.low:.3f}, {loss.high:.3f}]"
    seeds = f"{loss.n} fresh seed{'s' * (loss.n != 1)}"
    return f"ends at {loss.mean:.3f} nats{ends} ({seeds})" if loss.n else "has no fresh seed that finished"


def _seeds_would_settle(seeds: float) -> str:
    if math.isinf(seeds):
        return "no difference at all was seen"
    return f"about {seeds:.0f} seeds would settle an effect of this size"
