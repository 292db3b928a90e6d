"""Statistics of losses against answers that are known in closed form, printed in books, or planted in simulations."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from jaxopt_lm.errors import InputError
from jaxopt_lm.studies import statistics
from jaxopt_lm.studies.statistics import (
    differences,
    equivalence,
    holm,
    holm_levels,
    interval,
    paired,
    seeds_needed,
    share,
    smallest_detectable,
    t_interval,
    welch,
)

STUDIES = 2000


def p_of_three(t: float) -> float:
    """Two-sided, of Student's distribution with 2 degrees of freedom."""
    return 1 - t / math.sqrt(2 + t**2)


def held(intervals, truth: float) -> float:
    return float(np.mean([each.low <= truth <= each.high for each in intervals]))


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 499)


def test_the_interval_of_three_losses_is_students():
    """s = 1 (n - 1), and t is 4.302653 with 2 degrees of freedom."""
    half = 4.302653 / math.sqrt(3)
    np.testing.assert_allclose(interval([1.0, 2.0, 3.0]), (2, 2 - half, 2 + half, 3), rtol=1e-6)
    assert interval([1.0, 2.0, 3.0], level=0.9).high == pytest.approx(2 + 2.919986 / math.sqrt(3), rel=1e-6)


@pytest.mark.parametrize(("losses", "width"), [([3.0], math.nan), ([0.1] * 3, 0.0), ([0.1] * 30, 0.0)])
def test_one_loss_has_no_interval_and_equal_ones_one_of_no_width(losses, width):
    np.testing.assert_equal(interval(losses).high - interval(losses).low, width)
    assert interval(losses).mean == pytest.approx(losses[0])


def test_from_twenty_losses_on_the_interval_is_by_bootstrap():
    """Of skewed losses it is not symmetric as Student's is, and leans to the long tail; it is the same each time."""
    losses = np.random.default_rng(0).exponential(size=20)
    assert interval(losses[:19]) == t_interval(losses[:19])
    found = interval(losses)
    assert found.high - found.mean > 1.1 * (found.mean - found.low) > 0
    assert interval(losses) == found
    resampled = np.random.default_rng(1).choice(losses, (50_000, 20)).mean(1)
    bias = stats.norm.ppf(np.mean(resampled < losses.mean()))
    away = losses - losses.mean()  # a mean's jackknife: its skewness over 6 sqrt(n)
    acceleration = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
    z = bias + stats.norm.ppf([0.025, 0.975])
    ends = np.quantile(resampled, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    np.testing.assert_allclose((found.low, found.high), ends, atol=0.02)


@pytest.mark.parametrize("n", [3, 5])
def test_students_interval_holds_the_mean_as_often_as_it_says(n):
    losses = np.random.default_rng(n).normal(3.0, 0.02, (STUDIES, n))
    for level in (0.95, 0.8):
        assert held((interval(each, level) for each in losses), 3.0) == pytest.approx(level, abs=0.02)


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("draw", ["normal", pytest.param("gamma", marks=pytest.mark.full)])
def test_the_bootstrap_holds_the_mean_as_often_as_it_says(draw):
    generator, size = np.random.default_rng(4), (STUDIES, 50)
    losses = generator.normal(2.0, 0.1, size) if draw == "normal" else generator.gamma(4.0, 0.5, size)
    assert held(map(interval, losses), 2.0) == pytest.approx(0.95, abs=0.02)


def test_a_paired_interval_holds_the_difference_as_often_as_it_says_and_an_unpaired_one_would_be_wide():
    """Seeds move both arms by ten times as much as the arms' own noise."""
    generator = np.random.default_rng(2)
    seeds, own = generator.normal(3.0, 0.1, (STUDIES, 3)), generator.normal(0, 0.01, (2, STUDIES, 3))
    found = [paired(x, y) for x, y in zip(seeds + own[0] + 0.02, seeds + own[1], strict=True)]
    assert held(found, 0.02) == pytest.approx(0.95, abs=0.02)
    assert np.mean([each.high - each.low for each in found]) < 0.1  # 0.06; an unpaired one is 0.45
    assert np.mean([each.p < 0.05 for each in found]) == pytest.approx(
        statistics._power(0.02 / (0.01 * math.sqrt(2)), 3, 0.05), abs=0.03
    )


def test_a_paired_comparison_by_hand():
    """Differences .1, .2, .3: mean .2, deviation .1, t = 2 sqrt(3)."""
    found = paired([4.1, 5.2, 3.3], [4.0, 5.0, 3.0])
    half = 4.302653 * 0.1 / math.sqrt(3)
    wanted = (0.2, 0.2 - half, 0.2 + half, p_of_three(2 * math.sqrt(3)), 2.0, 5, 3)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    turned = paired([4.0, 5.0, 3.0], [4.1, 5.2, 3.3])
    assert (turned.difference, turned.effect_size, turned.p) == pytest.approx((-0.2, -2.0, found.p))
    assert paired([4.1, 5.2, 3.3], [4.0, 5.0, 3.0], level=0.999).seeds_needed == seeds_needed(2.0, alpha=0.001) > 5


def test_differences_that_are_equal_to_rounding_have_none_of_its_noise():
    """4.2 - 4.0 and 4.3 - 4.1 are apart by 4e-16."""
    found = paired([4.2, 4.3, 4.7], [4.0, 4.1, 4.5])
    assert found.low == found.difference == found.high == pytest.approx(0.2)
    assert (found.p, found.effect_size, found.seeds_needed) == (0, math.inf, 2)
    assert paired([4.0, 4.1, 4.5], [4.2, 4.3, 4.7]).effect_size == -math.inf
    np.testing.assert_equal(tuple(paired([0.3, 0.3], [0.1 + 0.2, 0.3])), (0, 0, 0, 1, 0, math.inf, 2))
    assert np.ptp(differences([1.0, 1.0 + 1e-12], [1.0, 1.0])) > 0


def test_one_seed_gives_a_difference_and_nothing_more():
    np.testing.assert_equal(tuple(paired([3.0], [2.5])), (0.5, *[math.nan] * 5, 1))
    assert math.isnan(equivalence([3.0], [3.0], 1.0))


def test_students_interval_leaves_out_zero_exactly_where_p_is_small():
    for losses in np.random.default_rng(3).normal(0.02, 0.02, (300, 4)):
        zeros, own = np.zeros(4), t_interval(losses, 0.9)
        assert (paired(losses, zeros).p < 0.1) == (own.low > 0 or own.high < 0)


def test_equivalence_by_hand():
    """Mean .2 and deviation .1 within .3: one-sided, t = (.3 - .2) sqrt(3)/.1 with 2 degrees of freedom."""
    arm, baseline = [4.1, 5.2, 3.3], [4.0, 5.0, 3.0]
    assert equivalence(arm, baseline, 0.3) == pytest.approx(p_of_three(math.sqrt(3)) / 2)
    assert equivalence(baseline, arm, 0.3) == pytest.approx(p_of_three(math.sqrt(3)) / 2)
    assert equivalence(arm, baseline, 0.1) == pytest.approx(1 - p_of_three(math.sqrt(3)) / 2)
    for within in (0.3, 0.4, 0.5, 1.0):
        inside = t_interval(differences(arm, baseline), 0.9).high < within
        assert (equivalence(arm, baseline, within) < 0.05) == inside
    assert equivalence([2.0, 3.0], [1.0, 2.0], 1.5) == 0
    assert equivalence([2.0, 3.0], [1.0, 2.0], 0.5) == 1


def test_arms_at_the_bound_are_called_equivalent_no_more_often_than_alpha():
    losses = np.random.default_rng(5).normal(0.01, 0.004, (STUDIES, 4))
    assert np.mean([equivalence(each, np.zeros(4), 0.01) < 0.05 for each in losses]) == pytest.approx(0.05, abs=0.015)


def test_holms_correction_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.02]), [0.04, 0.06, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.6, 0.001]), [1, 1, 0.003])
    np.testing.assert_allclose(holm([0.01, math.nan, 0.04]), [0.02, math.nan, 0.04])
    assert np.isnan(holm([math.nan])).all()
    assert holm([]).shape == (0,)
    many = np.random.default_rng(0).uniform(0, 0.1, 40).round(3)  # some are equal
    np.testing.assert_allclose(holm(many), multipletests(many, method="holm")[1])


def test_levels_go_with_holms_correction():
    """The steps are .05/3, .05/2, .05/1; after the first that fails, all stay there."""
    np.testing.assert_allclose(holm_levels([0.001, 0.02, 0.04]), [1 - 0.05 / 3, 0.975, 0.95])
    np.testing.assert_allclose(holm_levels([0.04, 0.001, 0.03]), [0.975, 1 - 0.05 / 3, 0.975])
    np.testing.assert_allclose(holm_levels([0.02, math.nan, 0.9], 0.9), [0.95, math.nan, 0.9])
    for p in np.random.default_rng(6).uniform(0, 0.1, (500, 4)):
        np.testing.assert_array_equal(p < 1 - holm_levels(p), holm(p) < 0.05)


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (-0.5, 34), (1.0, 10), (30.0, 2)])
def test_seeds_needed_are_those_of_gpower(effect, seeds):
    """Paired t test, two-sided, alpha .05, power .8."""
    assert seeds_needed(effect) == seeds


def test_seeds_needed_at_the_edges():
    assert seeds_needed(0) == math.inf
    assert math.isnan(seeds_needed(math.nan))
    assert seeds_needed(math.inf) == seeds_needed(1e6) == 2
    assert seeds_needed(1e-3) == pytest.approx((1.959964 + 0.841621) ** 2 * 1e6, rel=1e-5)
    assert seeds_needed(0.5, power=0.95) == 54
    many = [seeds_needed(effect) for effect in np.geomspace(0.02, 0.05, 30)]
    assert many == sorted(many, reverse=True)  # across the switch to the normal distribution too


@pytest.mark.parametrize(("n", "alpha"), [(2, 0.05), (3, 0.05), (5, 0.01), (20, 0.05)])
def test_the_smallest_detectable_difference_is_found_four_times_in_five(n, alpha):
    difference = smallest_detectable(0.02, n, alpha=alpha)
    losses = np.random.default_rng(n).normal(difference, 0.02, (20_000, n))
    t = losses.mean(1) / losses.std(1, ddof=1) * math.sqrt(n)
    assert np.mean(abs(t) > stats.t.isf(alpha / 2, n - 1)) == pytest.approx(0.8, abs=0.01)
    assert smallest_detectable(0.0, n) == 0
    assert seeds_needed(difference / 0.02 * (1 + 1e-9), alpha=alpha) == n


def test_one_seed_detects_nothing():
    assert smallest_detectable(0.02, 1) == math.inf


@pytest.mark.parametrize(
    ("adamw", "best", "p", "corrected"),
    [
        ((4.97, 0.02), (5.12, 0.05), 0.0013, 0.047),
        ((4.12, 0.03), (4.31, 0.06), 0.0008, 0.028),
        ((3.89, 0.04), (4.05, 0.07), 0.0038, 0.137),
    ],
)
def test_a_papers_table_from_its_printed_means(adamw, best, p, corrected):
    """Layer-adaptive variants against AdamW, 5 seeds: 12 variants at 3 sizes, so Bonferroni's factor is 36."""
    found = welch(*adamw, 5, *best, 5)
    assert (round(found, 4), round(36 * found, 3)) == (p, corrected)
    assert welch(*best, 5, *adamw, 5) == found


def test_welch_at_the_edges():
    """With one deviation of 0, the degrees of freedom are those of the other arm: 2."""
    assert welch(3.0, 0.0, 5, 3.1, 0.1, 3) == pytest.approx(p_of_three(math.sqrt(3)))
    assert (welch(3, 0, 2, 3, 0, 2), welch(3, 0, 2, 4, 0, 2)) == (1, 0)


def test_a_share_has_wilsons_interval():
    np.testing.assert_allclose(share(1, 10), (0.1, 0.01788, 0.40415), atol=1e-5)
    np.testing.assert_allclose(share(0, 10), (0, 0, 0.27753), atol=1e-5)
    assert share(10, 10).low == pytest.approx(1 - share(0, 10).high)
    assert share(1, 10, 0.99).high > share(1, 10).high
    assert np.isnan(share(0, 0)).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: interval([]), "one at least"),
        (lambda: interval([[1.0]]), r"shape \(1, 1\)"),
        (lambda: interval([1.0, math.nan]), "must be finite"),
        (lambda: interval([1.0, 2.0], level=95), "level=95: must be above 0 and below 1"),
        (lambda: paired([1.0], [1.0, 2.0]), "1 losses against 2"),
        (lambda: seeds_needed(1, power=1), "power=1"),
        (lambda: seeds_needed(1, alpha=0), "alpha=0"),
        (lambda: smallest_detectable(-1, 3), "deviation=-1"),
        (lambda: welch(1, 1, 1, 1, 1, 5), "2 seeds"),
        (lambda: share(3, 2), "3 of 2: must be from 0 to 2"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
