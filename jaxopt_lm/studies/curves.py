"""Numbers of curves: the loss against the learning rate, against training steps, against the number of trials.

Learning rates count by their logarithm to base 10, so that a decade is 1. A run that diverged has a loss that is not
finite (NaN or infinite).
"""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxopt_lm.errors import require
from jaxopt_lm.studies.statistics import Interval, t_interval

FITTED = 5
"""Rates, the nearest to the best, through which the parabola of `fit_rates` is laid."""
NEEDED = 4
"""Finite losses below which there is no fit."""
WINDOW = 50
"""Logged losses before a point, by which `spikes` judges it."""


class RateFit(NamedTuple):
    """A parabola through the losses around the best learning rate; see `fit_rates`.

    Attributes:
      learning_rate: where it is least.
      loss: there, nats per token.
      curvature: its second derivative, nats per token per decade squared.
      error: root mean square of the leave-one-out errors, nats per token.
      low: the lowest optimum of the fits that leave one rate out.
      high: the highest of them; both NaN where one such fit has no minimum within the rates fitted.
    """

    learning_rate: float
    loss: float
    curvature: float
    error: float
    low: float
    high: float


class Width(NamedTuple):
    """The range of good learning rates; see `width`.

    Attributes:
      factor: high / low.
      low: the lowest rate of the range.
      high: the highest rate of the range.
      cut_off: an end of the grid is in the range, so the true one may be wider.
    """

    factor: float
    low: float
    high: float
    cut_off: bool


class SpeedUp(NamedTuple):
    """How many times faster an arm gets where the baseline ends; see `speed_up`.

    Attributes:
      steps: the ratio of steps, baseline over arm, with its interval over seeds.
      seconds: the ratio of training seconds, likewise.
      reached: the seeds on which the arm gets there.
      n: all seeds.
    """

    steps: Interval
    seconds: Interval
    reached: int
    n: int


class BestAfter(NamedTuple):
    """The best loss of n trials drawn at random, nats per token, by n; see `best_after`.

    Attributes:
      mean: [number of n], its expectation.
      median: [number of n].
      low: [number of n], of the band of the median; -inf where the trials set no bound.
      high: [number of n], likewise; inf where they set none.
    """

    mean: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def fit_rates(rates: ArrayLike, losses: ArrayLike) -> RateFit | None:
    """Loss as a parabola in the learning rate's logarithm around the best: a x^2 + b x + c, x = log10(rate / best).

    Least squares through the `FITTED` finite losses whose rates are nearest to the best of them (the lower one first):
    further out the loss is no parabola. The optimum is at x = -b / (2a), its curvature 2a. The leave-one-out error of
    a point with residual e and leverage h is e / (1 - h).

    Returns:
      The fit; None with fewer than `NEEDED` finite losses, where the parabola does not open upwards, and where its
      minimum is outside the rates fitted: an extrapolation is no estimate.

    Raises:
      InputError: rates that are not positive, or not apart from one another.
    """
    rates, losses = _finite_part(rates, losses)
    if len(rates) < NEEDED:
        return None
    best = rates[losses.argmin()]
    nearest = np.argsort(np.abs(np.log10(rates / best)).round(6), kind="stable")[:FITTED]
    x, y = np.log10(rates[nearest] / best), losses[nearest]
    optimum, curvature, fitted = _parabola(x, y, x)
    if math.isnan(optimum):
        return None
    design = np.vander(x, 3)
    leverage = np.diag(design @ np.linalg.pinv(design))
    without = [_parabola(np.delete(x, i), np.delete(y, i), x)[0] for i in range(len(x))]
    error = float(np.sqrt(np.mean(((y - fitted) / (1 - leverage)) ** 2)))
    loss = float(np.polyval(np.polyfit(x, y, 2), optimum))
    low, high = (float(best * 10**end) for end in (np.min(without), np.max(without)))
    return RateFit(float(best * 10**optimum), loss, curvature, error, low, high)


def sensitivity(rates: ArrayLike, losses: ArrayLike, loss_at_init: float) -> float:
    """Sensitivity to the learning rate: how much is lost on average over the swept range, nats per token.

    The mean over the range of min(loss, loss_at_init) - min over the range of the same; a diverged run counts as
    `loss_at_init`. The mean is over the logarithm of the rate: each loss stands for the part of the range nearest to
    its rate. So an even grid gives the plain mean, and rates added near the best do not make an arm less sensitive.

    Returns:
      At least 0; NaN with fewer than 2 rates, without a finite loss, or where `loss_at_init` is NaN.

    Raises:
      InputError: as in `fit_rates`.

    Reference: Wortsman et al., "Small-scale proxies for large-scale Transformer training instabilities", 2023.
    """
    rates, losses = _sorted(rates, losses)
    if len(rates) < 2 or not np.isfinite(losses).any() or math.isnan(loss_at_init):
        return math.nan
    capped = np.minimum(np.where(np.isfinite(losses), losses, math.inf), loss_at_init)
    gaps = np.diff(np.log10(rates))
    parts = np.concatenate([gaps[:1], (gaps[:-1] + gaps[1:]) / 2, gaps[-1:]])
    return float(np.average(capped - capped.min(), weights=parts))


def width(rates: ArrayLike, losses: ArrayLike, delta: float) -> Width | None:
    """The range of learning rates around the best whose loss is within `delta` of the best loss, without a gap.

    Its ends are where the loss, interpolated linearly in the rate's logarithm, crosses best + delta. Towards a run that
    diverged there is nothing to interpolate: the range ends at the last finite one.

    Args:
      rates: [number of rates].
      losses: [number of rates], nats per token.
      delta: nats per token, at least 0.

    Returns:
      The range; None without a finite loss.

    Raises:
      InputError: as in `fit_rates`.
    """
    rates, losses = _sorted(rates, losses)
    require(delta >= 0, f"delta={delta}: must be at least 0")
    losses = np.where(np.isfinite(losses), losses, math.inf)
    if not np.isfinite(losses).any():
        return None
    x, above, best = np.log10(rates), losses - losses.min() - delta, int(losses.argmin())
    down, cut_low = _edge(x[best::-1], above[best::-1])
    up, cut_high = _edge(x[best:], above[best:])
    return Width(float(10 ** (up - down)), float(10**down), float(10**up), cut_low or cut_high)


def reach(steps: ArrayLike, losses: ArrayLike, target: float) -> float | None:
    """The first step at which a curve touches `target`, whether or not it stays below; None: never.

    Between two points the curve is a straight line. Points that are not finite are left out. Give evaluation losses:
    one lucky training batch touches a target early.

    Args:
      steps: [number of points], growing.
      losses: [number of points].
      target: in the losses' unit.
    """
    x, y = np.asarray(steps, float), np.asarray(losses, float)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    below = np.flatnonzero(y <= target)
    if not below.size:
        return None
    i = int(below[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (x[i] - x[i - 1]) * (y[i - 1] - target) / (y[i - 1] - y[i]))


Curve = tuple[ArrayLike, ArrayLike]
"""Steps and losses."""


def speed_up(
    arm: Sequence[Curve],
    baseline: Sequence[Curve],
    seconds_per_step: Sequence[float] | None = None,
    baseline_seconds_per_step: Sequence[float] | None = None,
    level: float = 0.95,
) -> SpeedUp:
    """How many times faster an arm reaches the baseline's last loss, seed by seed: 2 is half the steps.

    For each seed the target is the last finite loss of the baseline's curve, and the ratio that of `reach`, baseline
    over arm. The mean is geometric, exp of the mean of log ratios, and so is its t interval. A schedule that ends later
    than the target holds the arm back, so this is a bound from below of what a schedule of its own would give.

    A seed on which the arm never gets there has no ratio, and leaving it out would flatter the arm: then mean and ends
    are NaN. So are the seconds where either time of a step is not given, and the ends of one seed.

    Args:
      arm: one curve a seed.
      baseline: one curve a seed, the same seeds in the same order.
      seconds_per_step: [number of seeds], the arm's.
      baseline_seconds_per_step: [number of seeds], likewise.
      level: of the intervals.

    Raises:
      InputError: other numbers of seeds, or none.
    """
    require(len(arm) == len(baseline) > 0, f"{len(arm)} curves against {len(baseline)}: give the same seeds of both")
    pairs = [_reached(*curves) for curves in zip(arm, baseline, strict=True)]
    reached = sum(not math.isnan(ratio) for ratio in pairs)
    ratios = np.asarray(pairs)
    times = np.asarray(math.nan)
    if seconds_per_step is not None and baseline_seconds_per_step is not None:
        times = np.divide(baseline_seconds_per_step, seconds_per_step)
    return SpeedUp(_geometric(ratios, level), _geometric(ratios * times, level), reached, len(arm))


def best_after(losses: ArrayLike, n: ArrayLike, level: float = 0.95) -> BestAfter:
    """The best loss after n trials drawn at random from those that were made: what a tuning budget buys.

    The expectation is the unbiased one, over all subsets of n of the trials. The median is that of n independent draws
    from the trials' distribution, and the band is its own: with a chance of `level` it holds the true median at all n
    at once (simultaneous), however the losses are distributed. It takes many trials to be narrow: of 9 trials the best
    of 3 is unbounded below. Diverged trials count as the worst finite loss.

    Args:
      losses: [number of trials].
      n: whole numbers from 1 to the number of trials.
      level: of the band.

    Raises:
      InputError: no finite loss, or an n outside.

    References: Dodge et al., "Show Your Work", 2019; Lourie et al., "Show Your Work with Confidence", 2023.
    """
    from opda.nonparametric import EmpiricalDistribution  # its import takes longer than all of a study's commands

    values, n = np.asarray(losses, float), np.atleast_1d(np.asarray(n))
    finite = np.isfinite(values)
    require(bool(finite.any()), "best_after: no trial has a finite loss; give one at least")
    inside = bool((n == n.round()).all() and n.min() >= 1 and n.max() <= len(values))
    require(inside, f"best_after: n={n.tolist()} must be whole numbers from 1 to {len(values)}, the number of trials")
    values = np.where(finite, values, values[finite].max())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal losses: they make the band wider than it need be
        low, middle, high = EmpiricalDistribution.confidence_bands(
            values, level, method="ld_equal_tailed", n_jobs=1, generator=_generator(len(values), level)
        )
    curves = (each.quantile_tuning_curve(n, minimize=True) for each in (middle, high, low))
    return BestAfter(np.asarray(middle.u_tuning_curve(n, minimize=True)), *(np.asarray(curve) for curve in curves))


def spikes(losses: ArrayLike, window: int = WINDOW, threshold: float = 7.0) -> int:
    """The number of loss spikes of a training curve.

    A point is in a spike where it is more than `threshold` deviations above the median of the `window` points before
    it; the deviation is 1.4826 times their median absolute deviation, that of a normal distribution. A loss that is not
    finite is in a spike too. Points in a row are one spike. The first `window` points are not judged: of a curve that
    is not longer the number is 0.

    Args:
      losses: [number of steps], the training loss of every step, or of every k-th.
      window: points, at least 2.
      threshold: deviations.
    """
    require(window >= 2, f"window={window}: must be at least 2")
    y = np.asarray(losses, float)
    if len(y) <= window:
        return 0
    before = np.lib.stride_tricks.sliding_window_view(np.where(np.isfinite(y), y, math.inf), window)[:-1]
    median = np.median(before, axis=1)
    median = np.where(np.isfinite(median), median, math.inf)
    with np.errstate(invalid="ignore"):  # inf - inf, amid divergence
        deviation = 1.4826 * np.median(np.abs(before - median[:, None]), axis=1)
    spiking = ~np.isfinite(y[window:]) | (y[window:] > median + threshold * deviation)
    return int(np.sum(np.diff(spiking.astype(int), prepend=0) == 1))


def _parabola(x: np.ndarray, y: np.ndarray, within: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Its minimum, NaN where it has none in the range of `within`, its second derivative, and its values at `x`."""
    a, b, c = np.polyfit(x, y, 2)
    rounding = 1e-12 * np.abs(y).max() / np.ptp(x) ** 2  # of three points in a line, a is not quite 0
    optimum = -b / (2 * a) if a > rounding else math.nan
    inside = within.min() <= optimum <= within.max()
    return float(optimum) if inside else math.nan, float(2 * a), a * x**2 + b * x + c


def _edge(x: np.ndarray, above: np.ndarray) -> tuple[float, bool]:
    """Where `above` first crosses 0 on the way from x[0], and whether it never does."""
    outside = np.flatnonzero(above > 0)
    if not outside.size:
        return float(x[-1]), True
    i = int(outside[0])
    if math.isinf(above[i]):
        return float(x[i - 1]), False
    return float(x[i - 1] + (x[i] - x[i - 1]) * above[i - 1] / (above[i - 1] - above[i])), False


def _reached(arm: Curve, baseline: Curve) -> float:
    """The baseline's step over the arm's; NaN where the arm does not get there."""
    losses = np.asarray(baseline[1], float)
    losses = losses[np.isfinite(losses)]
    target = float(losses[-1]) if losses.size else -math.inf
    ours, theirs = reach(*arm, target), reach(*baseline, target)
    return theirs / ours if ours and theirs else math.nan


def _geometric(ratios: np.ndarray, level: float) -> Interval:
    if not np.isfinite(ratios).all():
        return Interval(math.nan, math.nan, math.nan, len(ratios))
    mean, low, high, n = t_interval(np.log(ratios), level)
    return Interval(math.exp(mean), math.exp(low), math.exp(high), n)


@functools.cache
def _generator(trials: int, level: float) -> np.random.Generator:
    """Its own for each band: opda simulates a band once for each, and the order of calls does not change it."""
    return np.random.default_rng(0)


def _sorted(rates: ArrayLike, losses: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both, lowest rate first."""
    x, y = np.asarray(rates, float), np.asarray(losses, float)
    require(x.ndim == 1 and x.shape == y.shape, f"rates {x.shape}, losses {y.shape}: give one loss for each rate")
    order = np.argsort(x)
    x, y = x[order], y[order]
    require(bool(np.all(np.diff(x, prepend=0) > 0)), f"rates={x.tolist()}: must be above 0 and apart from one another")
    return x, y


def _finite_part(rates: ArrayLike, losses: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = _sorted(rates, losses)
    return x[np.isfinite(y)], y[np.isfinite(y)]
