"""Numbers of curves against curves whose numbers are known."""

import itertools
import math

import numpy as np
import pytest

from jaxopt_lm.errors import InputError
from jaxopt_lm.studies.curves import best_after, fit_rates, reach, sensitivity, speed_up, spikes, width

RATES = 10.0 ** np.array([-4, -3.5, -3, -2.5, -2, -1.5, -1])
NAN = math.nan


def bowl(rates=RATES, optimum=2e-3, curvature=0.4, least=3.0) -> np.ndarray:
    return least + curvature / 2 * np.log10(rates / optimum) ** 2


def there(found):
    """What may be None, and is not."""
    assert found is not None
    return found


def test_a_parabola_in_the_rates_logarithm_is_found():
    """Curvature is per decade squared; in the natural logarithm it would be 5.3 times as small."""
    fit = there(fit_rates(RATES, bowl()))
    np.testing.assert_allclose((fit.learning_rate, fit.loss, fit.curvature), (2e-3, 3, 0.4))
    np.testing.assert_allclose((fit.error, fit.low, fit.high), (0, 2e-3, 2e-3), atol=1e-9)


def test_a_fit_is_of_the_five_rates_nearest_to_the_best_in_any_order():
    losses = bowl()
    losses[[0, 6]] = 9, NAN  # the best is 10^-2.5: its two neighbours on either side count
    losses[1] += 0.01
    order = np.random.default_rng(0).permutation(7)
    fit = there(fit_rates(RATES[order], losses[order]))
    a, b, c = np.polyfit(np.log10(RATES[1:6]), losses[1:6], 2)
    assert fit.learning_rate == pytest.approx(10 ** (-b / (2 * a)))
    assert fit.loss == pytest.approx(c - b**2 / (4 * a))
    assert fit.curvature == pytest.approx(2 * a)


def test_leave_one_out_errors_are_those_of_fits_without_the_rate():
    losses = bowl()[1:6] + np.array([0.003, -0.002, 0.001, 0.002, -0.004])
    fit, x = there(fit_rates(RATES[1:6], losses)), np.log10(RATES[1:6])
    without = [np.polyfit(np.delete(x, i), np.delete(losses, i), 2) for i in range(5)]
    errors = [losses[i] - np.polyval(without[i], x[i]) for i in range(5)]
    optima = [10 ** (-b / (2 * a)) for a, b, _ in without]
    assert fit.error == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert (fit.low, fit.high) == pytest.approx((min(optima), max(optima)))


@pytest.mark.parametrize(
    ("what", "losses"),
    [
        ("three finite losses", [3.1, 3.0, 3.1, NAN, NAN, NAN, math.inf]),
        ("it opens downwards", -bowl()),
        ("a line", 3 + 0.1 * np.arange(7)),
        ("a constant", np.full(7, 3.0)),
        ("its minimum is outside", bowl(optimum=1e-5)),
    ],
)
def test_there_is_no_fit_where_there_is_no_bowl(what, losses):
    assert fit_rates(RATES, losses) is None, what


def test_an_optimum_that_a_rate_left_out_takes_away_has_no_range():
    """Without the last of 3.0, 3.0, 3.0, 3.2 there is no bowl."""
    fit = there(fit_rates(RATES[:4], [3.0, 3.0, 3.0, 3.2]))
    assert (math.isnan(fit.low), math.isnan(fit.high)) == (True, True)


def test_sensitivity_is_the_mean_gap_to_the_best_and_divergence_costs_as_much_as_no_training():
    """Gaps .3, 0, .5 and, both capped at the loss at init, 7, 7."""
    losses = [3.3, 3.0, 3.5, NAN, 20.0]
    assert sensitivity(RATES[:5], losses, 10.0) == pytest.approx((0.3 + 0 + 0.5 + 7 + 7) / 5)
    assert sensitivity(RATES[4::-1], losses[::-1], 10.0) == pytest.approx(14.8 / 5)
    assert sensitivity(RATES[:2], [3.0, math.inf], 4.0) == 0.5


def test_sensitivity_weighs_losses_by_their_share_of_the_range():
    """An end stands for a whole gap, a rate between two gaps for half of each. Many rates give the integral."""
    rates, losses = 10.0 ** np.array([-3, -2, -1.5, -1]), [3.4, 3.0, 3.1, 3.2]
    parts = np.array([1, 0.75, 0.5, 0.5])
    assert sensitivity(rates, losses, 10.0) == pytest.approx(np.sum(parts * [0.4, 0, 0.1, 0.2]) / parts.sum())
    fine = 10.0 ** np.linspace(-4, -1, 2001)
    assert sensitivity(fine, bowl(fine, 10**-2.5), 10.0) == pytest.approx(0.2 * 1.5**2 / 3, rel=2e-3)


def test_sensitivity_at_the_edges():
    assert math.isnan(sensitivity([0.1], [3.0], 10.0))
    assert math.isnan(sensitivity([0.1, 0.2], [NAN, NAN], 10.0))
    assert math.isnan(sensitivity([0.1, 0.2], [3.0, 3.0], NAN))


def test_the_width_is_interpolated_in_the_rates_logarithm():
    """From the best at 1e-2, losses rise by .1 a decade to the left and by .2 to the right."""
    rates, losses = [1e-4, 1e-3, 1e-2, 1e-1, 1.0], [3.2, 3.1, 3.0, 3.2, 3.4]
    np.testing.assert_allclose(width(rates, losses, 0.05), (10**0.75, 10**-2.5, 10**-1.75, False))
    np.testing.assert_allclose(width(rates, losses, 0.15), (10**2.25, 10**-3.5, 10**-1.25, False))
    np.testing.assert_allclose(width(rates, losses, 0.3), (10**3.5, 1e-4, 10**-0.5, True))
    np.testing.assert_allclose(width(rates, losses, 0), (1, 1e-2, 1e-2, False), rtol=1e-6)
    np.testing.assert_allclose(there(width(rates[::-1], losses[::-1], 0.05)).low, 10**-2.5)


def test_the_width_ends_before_divergence_and_has_no_gap():
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    np.testing.assert_allclose(width(rates, [3.4, 3.2, 3.0, 3.05, NAN], 0.1), (10**1.5, 10**-2.5, 0.1, False))
    np.testing.assert_allclose(there(width(rates, [3.0, 3.5, 2.99, 3.49, 3.0], 0.1)).factor, 10**0.4, rtol=0.02)
    assert there(width(rates, [3.0, 3.1, 3.2, 3.3, 3.4], 0.05)).cut_off
    assert width([0.1, 0.2], [NAN, NAN], 0.1) is None


def test_a_target_is_reached_at_the_first_touch():
    steps, losses = [0, 10, 30, 40, 50], [5.0, 4.0, 3.0, 3.6, 2.0]
    assert reach(steps, losses, 3.5) == 20
    assert reach(steps, losses, 3.0) == 30
    assert reach(steps, losses, 2.5) == pytest.approx(40 + 10 * 1.1 / 1.6)
    assert reach(steps, losses, 9.0) == 0
    assert reach(steps, losses, 1.9) is None
    assert reach([0, 10, 20], [5.0, NAN, 3.0], 4.0) == 10
    assert reach([], [], 4.0) is None


def test_speed_ups_by_hand():
    """The baseline ends at 3.0 and 3.2 after 100 steps; the arm gets there at 50 and 25: ratios 2 and 4."""
    baseline = [([0, 100], [5.0, 3.0]), ([0, 100], [5.0, 3.2])]
    arm = [([0, 50, 100], [5.0, 3.0, 2.5]), ([0, 25, 100], [5.0, 3.2, 2.5])]
    found = speed_up(arm, baseline, [2.0, 2.0], [1.0, 1.0])
    half = 12.706205 * math.log(2) / 2  # t with 1 degree of freedom; the logarithms deviate by log(2)/sqrt(2)
    wanted = np.array([1, math.exp(-half), math.exp(half)]) * math.sqrt(8)
    np.testing.assert_allclose(found.steps, (*wanted, 2), rtol=1e-5)
    np.testing.assert_allclose(found.seconds, (*wanted / 2, 2), rtol=1e-5)
    assert (found.reached, found.n) == (2, 2)
    assert np.isnan(speed_up(arm, baseline).seconds[:3]).all()
    assert speed_up(arm[:1], baseline[:1]).steps.mean == 2
    assert speed_up(baseline, baseline).steps[:3] == (1, 1, 1)


def test_a_seed_that_does_not_get_there_leaves_no_speed_up():
    baseline = [([0, 100], [5.0, 3.0])] * 2
    found = speed_up([([0, 50, 100], [5.0, 3.0, 2.5]), ([0, 100], [5.0, 3.1])], baseline)
    assert (found.reached, found.n) == (1, 2)
    assert np.isnan(found.steps[:3]).all()


def test_the_best_of_n_trials_is_the_mean_over_their_subsets_and_divergence_is_the_worst():
    losses = np.array([3.4, NAN, 3.0, 3.9, 3.2, math.inf])
    worst = np.where(np.isfinite(losses), losses, 3.9)
    found = best_after(losses, range(1, 7))
    wanted = [np.mean([min(some) for some in itertools.combinations(worst, n)]) for n in range(1, 7)]
    np.testing.assert_allclose(found.mean, wanted)
    np.testing.assert_array_equal(found.median[[0, 5]], [3.4, 3.0])
    assert best_after(losses, 3).mean.shape == (1,)


def test_the_band_holds_the_true_curve_as_often_as_it_says_and_is_the_same_each_time():
    """Of uniform losses the median of the best of n is 1 - 2^(-1/n)."""
    n = np.arange(1, 13)
    truth, trials = 1 - 0.5 ** (1 / n), np.random.default_rng(0).uniform(size=(400, 12))
    bands = [best_after(losses, n, level=0.8) for losses in trials]
    held = [np.all((band.low <= truth) & (truth <= band.high)) for band in bands]
    assert np.mean(held) > 0.8 - 3 * math.sqrt(0.16 / 400)
    assert np.mean(held) < 0.97
    wider = best_after(trials[0], n, level=0.95)
    np.testing.assert_array_equal(best_after(trials[0], n, level=0.8).low, bands[0].low)
    assert np.all(wider.low <= bands[0].low)


def test_spikes_are_counted_in_runs():
    noise = np.random.default_rng(0).normal(0, 0.01, 400)
    calm = 3 + 4 * np.exp(-np.arange(400) / 50) + noise
    assert spikes(calm) == 0
    spiky = calm.copy()
    spiky[100], spiky[200:203], spiky[300], spiky[302] = 9, 9, 9, NAN
    assert spikes(spiky) == 4
    assert spikes(np.flip(calm)[:200]) == 0  # slow growth is none
    assert spikes(np.r_[calm, np.full(80, NAN)]) == 1


def test_a_spike_is_beyond_seven_deviations_of_the_points_before():
    """Losses 0 and 2 in turn: median 1, median absolute deviation 1."""
    before = np.tile([0.0, 2.0], 25)
    assert [spikes(np.r_[before, 1 + 1.4826 * k]) for k in (6.99, 7.01)] == [0, 1]
    assert spikes(np.r_[before, 1 + 1.4826 * 4], threshold=3.9) == 1
    assert spikes(np.r_[before, 99.0], window=51) == 0
    assert spikes(before) == spikes([]) == 0
    assert [spikes(np.r_[np.ones(50), x]) for x in (1.0, 1.001)] == [0, 1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_rates([0.1, 0.1], [1, 2]), "apart from one another"),
        (lambda: sensitivity([0.0, 0.1], [1, 2], 3), "above 0"),
        (lambda: width([0.1], [1, 2], 0.1), "one loss for each rate"),
        (lambda: width([0.1], [1], -0.1), "delta=-0.1"),
        (lambda: speed_up([], []), "0 curves against 0"),
        (lambda: best_after([NAN], 1), "no trial has a finite loss"),
        (lambda: best_after([3.0], [1, 2]), "from 1 to 1"),
        (lambda: best_after([3.0], 0), "from 1 to 1"),
        (lambda: best_after([3.0, 3.1], 1.5), "whole numbers"),
        (lambda: spikes([1.0], window=1), "window=1"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
