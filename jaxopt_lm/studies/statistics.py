"""Statistics of final losses over seeds: intervals, paired comparisons, corrections for many of them, and power.

Losses are in nats per token; any other unit passes through. Two arms are compared *paired*: a seed fixes the data order
and the initial parameters of both, so what is judged is their difference on each seed.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from jaxopt_lm.errors import require

BOOTSTRAP_FROM = 20
"""From as many values on, the interval of a mean is by bootstrap."""
RESAMPLES = 9999
"""Of a bootstrap, drawn by a generator whose seed is 0: the same values always give the same interval."""

_ROUNDING = 8 * np.finfo(float).eps  # differences of losses that are apart by less, relative to the losses, are equal
_MANY = 10_000  # seeds; from here on their number is that of the normal distribution


class Interval(NamedTuple):
    """A mean of `n` values and the ends of its interval, in their unit; both NaN of one value."""

    mean: float
    low: float
    high: float
    n: int


class Paired(NamedTuple):
    """An arm against the baseline over common seeds; see `paired`.

    Attributes:
      difference: the mean over seeds of arm minus baseline, nats per token; below 0 the arm is better.
      low: lower end of its interval.
      high: upper end of its interval.
      p: two-sided, of no difference.
      effect_size: d_z, the mean of the differences over their deviation.
      seeds_needed: for a power of 80% at this effect; infinite without one.
      n: the number of seeds.
    """

    difference: float
    low: float
    high: float
    p: float
    effect_size: float
    seeds_needed: float
    n: int


class Share(NamedTuple):
    """A proportion and the ends of its interval, all in [0, 1]."""

    share: float
    low: float
    high: float


def interval(losses: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of one arm's losses with its interval.

    Below `BOOTSTRAP_FROM` values, mean +- t_{(1 + level)/2, n - 1} s / sqrt(n) with s^2 = sum (x - mean)^2 / (n - 1),
    which takes the losses to be normal; from there on, the bias-corrected and accelerated bootstrap (BCa), which does
    not. Equal values give an interval of no width; one value gives none: its ends are NaN.

    Args:
      losses: [number of seeds].
      level: the share of such intervals that hold the true mean.

    Raises:
      InputError: no value, one that is not finite, or a level outside (0, 1).

    Reference: Efron, "Better Bootstrap Confidence Intervals", JASA 1987.
    """
    values = _checked(losses)
    if len(values) < BOOTSTRAP_FROM or not np.ptp(values):
        return t_interval(values, level)
    _check_fraction("level", level)
    found: Any = stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(0)
    )
    low, high = found.confidence_interval
    return Interval(float(values.mean()), float(low), float(high), len(values))


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean with Student's interval at any number of values; otherwise as `interval`.

    It leaves out 0 exactly where the p value of a two-sided t test of mean 0 is below 1 - level.
    """
    x = _checked(values)
    _check_fraction("level", level)
    if len(x) == 1:
        return Interval(float(x[0]), math.nan, math.nan, 1)
    half = 0.0 if not np.ptp(x) else stats.t.isf((1 - level) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean() - half), float(x.mean() + half), len(x))


def paired(arm: ArrayLike, baseline: ArrayLike, level: float = 0.95) -> Paired:
    """The paired comparison of two arms over the same seeds.

    With d = arm - baseline for each seed and s its deviation (n - 1): the mean of d with its interval by the rule of
    `interval`, t = mean(d) sqrt(n) / s, p = 2 P(T_{n-1} > |t|), d_z = mean(d) / s, and `seeds_needed(d_z)` at
    alpha = 1 - level. The p value is Student's at every n, so from `BOOTSTRAP_FROM` seeds on, where the interval is by
    bootstrap, one may just leave out 0 where the other is just not significant.

    At the edges. One seed: all but the difference is NaN. Differences that are equal to rounding: the limit of the
    formulas, an interval of no width and, of a difference that is not 0, p = 0, d_z infinite and 2 seeds needed; of no
    difference, p = 1, d_z = 0 and infinitely many seeds.

    Args:
      arm: [number of seeds], its losses, nats per token.
      baseline: [number of seeds], the baseline's, of the same seeds in the same order.
      level: of the interval.

    Raises:
      InputError: other numbers of seeds, none, or a loss that is not finite.
    """
    difference = differences(arm, baseline)
    mean, low, high, n = interval(difference, level)
    if n == 1:
        return Paired(mean, low, high, math.nan, math.nan, math.nan, n)
    deviation = 0.0 if not np.ptp(difference) else float(difference.std(ddof=1))
    effect = _over(mean, deviation)
    p = float(2 * stats.t.sf(abs(effect) * math.sqrt(n), n - 1))
    return Paired(mean, low, high, p, effect, seeds_needed(effect, alpha=1 - level), n)


def differences(arm: ArrayLike, baseline: ArrayLike) -> np.ndarray:
    """[number of seeds], arm minus baseline; all their mean where they are equal to rounding.

    Raises:
      InputError: as in `paired`.
    """
    x, y = _checked(arm), _checked(baseline)
    require(len(x) == len(y), f"{len(x)} losses against {len(y)}: give the same seeds of both")
    difference, scale = x - y, float(max(np.abs(x).max(), np.abs(y).max()))
    if np.ptp(difference) > _ROUNDING * scale:
        return difference
    mean = difference.mean()
    return np.full(len(x), mean if abs(mean) > _ROUNDING * scale else 0.0)


def equivalence(arm: ArrayLike, baseline: ArrayLike, within: float) -> float:
    """The p value of two one-sided paired t tests that |mean(arm - baseline)| is `within` or more; NaN of one seed.

    p is the larger of P(T > (mean + within) sqrt(n)/s) and P(T > (within - mean) sqrt(n)/s). It is below alpha exactly
    where the interval of level 1 - 2 alpha is inside (-within, within).

    Reference: Schuirmann, "A Comparison of the Two One-Sided Tests Procedure …", 1987.
    """
    difference = differences(arm, baseline)
    if len(difference) == 1:
        return math.nan
    deviation = 0.0 if not np.ptp(difference) else float(difference.std(ddof=1))
    margin = within - abs(float(difference.mean()))
    return float(stats.t.sf(_over(margin, deviation) * math.sqrt(len(difference)), len(difference) - 1))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's corrected p values, in the order given: below alpha, they keep the chance of any false one below alpha.

    Of m values, sorted, the i-th from 1 becomes max over j <= i of min(1, (m - j + 1) p_j). A NaN is no test: it stays
    NaN and does not count.

    Reference: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    p = np.asarray(p_values, float)
    corrected, m = np.full(p.shape, math.nan), int(np.sum(~np.isnan(p)))
    order = np.argsort(p)[:m]  # NaN is last
    # statsmodels' multipletests gives the same, but collects garbage at each call: 0.1 s.
    corrected[order] = np.maximum.accumulate(np.minimum(1, (m - np.arange(m)) * p[order]))
    return corrected


def holm_levels(p_values: ArrayLike, level: float = 0.95) -> np.ndarray:
    """For each p value, the level at which its own interval leaves out 0 exactly where Holm's correction rejects.

    With alpha = 1 - level: 1 - alpha/m for the smallest of m p values, 1 - alpha/(m - 1) for the next and so on, as
    long as they are rejected; that of the first that is not, for all after it. So each is `level` or more. NaN stays.
    """
    p = np.asarray(p_values, float)
    levels = np.full(p.shape, math.nan)
    left = int(np.sum(~np.isnan(p)))
    for i in np.argsort(p, kind="stable")[:left]:
        levels[i] = 1 - (1 - level) / left
        left -= int(p[i] < (1 - level) / left)
    return levels


def seeds_needed(effect_size: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The fewest seeds at which a two-sided paired t test finds an effect with this power; a whole number.

    Power is P(|T| > t_{1 - alpha/2, n - 1}), T noncentral with parameter |d_z| sqrt(n). 2 at least; infinite where
    there is no effect, to rounding; NaN of NaN. Of an effect that a few seeds estimate, it is a rough estimate too.

    Args:
      effect_size: d_z, the mean of the differences over their deviation; the sign does not count.
      power: the chance to find it.
      alpha: the chance to find an effect where there is none.
    """
    effect = abs(effect_size)
    _check_fraction("power", power)
    _check_fraction("alpha", alpha)
    if math.isnan(effect):
        return math.nan
    if effect < _ROUNDING:
        return math.inf
    normal = ((stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) / effect) ** 2  # a bound from below
    n = max(2, math.ceil(normal))
    while n < _MANY and _power(effect, n, alpha) < power:
        n += 1
    return float(n)


def smallest_detectable(deviation: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true mean difference that a paired t test of `n` seeds finds with this power; infinite below 2.

    It is d `deviation`, where d solves power(d, n) = `power` (see `seeds_needed`).

    Args:
      deviation: of the differences. Of two arms that deviate by s each and have nothing in common, it is sqrt(2) s.
      n: seeds.
      power: the chance to find it.
      alpha: the chance to find one where there is none.
    """
    _check_fraction("power", power)
    _check_fraction("alpha", alpha)
    require(deviation >= 0, f"deviation={deviation}: must be at least 0")
    if n < 2:
        return math.inf
    high = 1.0
    while _power(high, n, alpha) < power:
        high *= 2
    root = optimize.brentq(lambda effect: _power(effect, n, alpha) - power, 0, high)
    return deviation * float(root)  # pyright: ignore[reportArgumentType]


def welch(mean1: float, sd1: float, n1: int, mean2: float, sd2: float, n2: int) -> float:
    """The two-sided p value of Welch's unpaired t test, from means and deviations (n - 1) as a paper prints them.

    t = (mean1 - mean2) / sqrt(sd1^2/n1 + sd2^2/n2), with Welch and Satterthwaite's degrees of freedom. Without any
    deviation, p is 0, or 1 of equal means.

    Raises:
      InputError: fewer than 2 seeds of an arm.
    """
    require(min(n1, n2) >= 2, f"n={min(n1, n2)}: Welch's test needs 2 seeds of each arm at least")
    if sd1 == sd2 == 0:
        return float(mean1 == mean2)
    test: Any = stats.ttest_ind_from_stats(mean1, sd1, n1, mean2, sd2, n2, equal_var=False)
    return float(test.pvalue)


def share(k: int, n: int, level: float = 0.95) -> Share:
    """k of n, the rate of divergence say, with Wilson's interval; NaN of none.

    Reference: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    require(0 <= k <= n, f"{k} of {n}: must be from 0 to {n}")
    if n == 0:
        return Share(math.nan, math.nan, math.nan)
    from statsmodels.stats.proportion import proportion_confint  # takes long

    low, high = cast(tuple[float, float], proportion_confint(k, n, alpha=1 - level, method="wilson"))
    return Share(k / n, float(low), float(high))


def _power(effect: float, n: int, alpha: float) -> float:
    from statsmodels.stats.power import ttest_power  # takes long

    right, wrong = (ttest_power(effect, n, alpha / 2, alternative=side) for side in ("larger", "smaller"))
    return float(right + np.nan_to_num(wrong))  # SciPy's noncentral t is NaN far out in the tail of the wrong sign


def _over(mean: float, deviation: float) -> float:
    if deviation:
        return mean / deviation
    return math.copysign(math.inf, mean) if mean else 0.0


def _checked(losses: ArrayLike | Sequence[float]) -> np.ndarray:
    values = np.asarray(losses, float)
    require(values.ndim == 1 and values.size > 0, f"losses have shape {values.shape}: give one at least, in one row")
    require(bool(np.isfinite(values).all()), f"losses={values.tolist()}: must be finite; leave diverged runs out")
    return values


def _check_fraction(name: str, value: float) -> None:
    require(0 < value < 1, f"{name}={value}: must be above 0 and below 1")
