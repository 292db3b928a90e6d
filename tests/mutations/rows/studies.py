"""Statistics of studies: intervals, paired tests, corrections, power, curves, verdicts, claims."""

from tests.mutations.pieces import Rows, drop, put

_STATISTICS = "studies/test_statistics.py -k"
_CURVES = "studies/test_curves.py -k"
_VERDICTS = "studies/test_verdicts.py -k"
_CLAIMS = "studies/test_claims.py -k"
_OF_RATES = "studies/test_claims_of_rates.py -k"
_OF_NUMBERS = "studies/test_claims_of_numbers.py -k"
_OF_SEEDS = "studies/test_claims_of_seeds.py -k"
_ARMS = "studies/test_arms.py -k"
_TUNED = "studies/test_tuned.py -k"

ROWS: Rows = {
    "studies/statistics.py::t_interval": [
        (put("x.std(ddof=1)", "x.std()"), "interval: the deviation by n", f"{_STATISTICS} of_three_losses"),
        (put("(1 - level) / 2", "1 - level"), "interval: one-sided", f"{_STATISTICS} of_three_losses"),
        (put("stats.t.isf((1 - level) / 2, len(x) - 1)", "1.96"), "interval: normal", f"{_STATISTICS} of_three_losses"),
        (drop("/ math.sqrt(len(x))"), "interval: of a value, not of the mean", f"{_STATISTICS} of_three_losses"),
    ],
    "studies/statistics.py::interval": [
        (put('"BCa"', '"percentile"'), "interval: the plain bootstrap", f"{_STATISTICS} from_twenty"),
        (put("default_rng(0)", "default_rng()"), "interval: another at each call", f"{_STATISTICS} from_twenty"),
    ],
    "studies/statistics.py::paired": [
        (put("2 * stats", "1 * stats"), "paired: a one-sided p value", f"{_STATISTICS} paired_comparison_by_hand"),
        (put("std(ddof=1)", "std()"), "paired: the deviation by n", f"{_STATISTICS} paired_comparison_by_hand"),
        (
            put("float(difference.std(ddof=1))", "float(np.hypot(np.std(arm, ddof=1), np.std(baseline, ddof=1)))"),
            "paired: unpaired",
            f"{_STATISTICS} paired_comparison_by_hand",
        ),
        (put("alpha=1 - level", "alpha=0.05"), "paired: seeds at .05", f"{_STATISTICS} paired_comparison_by_hand"),
    ],
    "studies/statistics.py::differences": [
        (put("x - y, float", "y - x, float"), "paired: baseline minus arm", f"{_STATISTICS} paired_comparison_by_hand"),
        (
            put("np.ptp(difference) > _ROUNDING * scale", "np.ptp(difference) > 0"),
            "paired: rounding taken for noise",
            f"{_STATISTICS} equal_to_rounding",
        ),
    ],
    "studies/statistics.py::equivalence": [
        (put("- abs", "+ abs"), "equivalence: the easier of two sides", f"{_STATISTICS} equivalence_by_hand"),
    ],
    "studies/statistics.py::holm": [
        (put("(m - np.arange(m))", "m"), "Holm: Bonferroni", f"{_STATISTICS} holms_correction"),
        (
            put("np.maximum.accumulate(np.minimum(1, (m - np.arange(m)) * p[order]))", "(m - np.arange(m)) * p[order]"),
            "Holm: not monotone",
            f"{_STATISTICS} holms_correction",
        ),
    ],
    "studies/statistics.py::holm_levels": [
        (put("int(p[i] < (1 - level) / left)", "1"), "Holm's levels go on after a failure", f"{_STATISTICS} levels_go"),
    ],
    "studies/statistics.py::_power": [
        (put("alpha / 2", "alpha"), "power: one-sided", f"{_STATISTICS} gpower"),
    ],
    "studies/statistics.py::welch": [
        (put("equal_var=False", "equal_var=True"), "Welch: a pooled deviation", f"{_STATISTICS} papers_table"),
    ],
    "studies/statistics.py::share": [
        (put('"wilson"', '"normal"'), "share: Wald's interval", f"{_STATISTICS} wilsons"),
    ],
    "studies/curves.py::fit_rates": [
        (
            put("np.log10(rates[nearest] / best)", "rates[nearest] / best"),
            "fit of rates: not of logarithms",
            f"{_CURVES} parabola_in",
        ),
        (put("[:FITTED]", "[:]"), "fit of rates: through all", f"{_CURVES} five_rates"),
        (drop("/ (1 - leverage)"), "fit of rates: plain residuals", f"{_CURVES} leave_one_out"),
    ],
    "studies/curves.py::_parabola": [
        (put("float(2 * a)", "float(a)"), "fit of rates: half the curvature", f"{_CURVES} parabola_in"),
    ],
    "studies/curves.py::sensitivity": [
        (
            put("np.minimum(np.where(np.isfinite(losses), losses, math.inf), loss_at_init)", "losses"),
            "sensitivity: losses above that at init",
            f"{_CURVES} sensitivity_is",
        ),
        (put("np.log10(rates)", "rates"), "sensitivity: not over logarithms", f"{_CURVES} sensitivity"),
        (drop("weights=parts"), "sensitivity: added rates weigh fully", f"{_CURVES} share_of_the_range"),
    ],
    "studies/curves.py::width": [
        (put("np.log10(rates)", "rates"), "width: interpolated in the rate", f"{_CURVES} interpolated_in"),
        (put("cut_low or cut_high", "cut_low and cut_high"), "width: cut off on both sides", f"{_CURVES} interpolated"),
    ],
    "studies/curves.py::reach": [
        (put("below[0]", "below[-1]"), "reach: the last touch", f"{_CURVES} first_touch"),
    ],
    "studies/curves.py::_reached": [
        (put("theirs / ours", "ours / theirs"), "speed-up: upside down", f"{_CURVES} speed_ups"),
    ],
    "studies/curves.py::best_after": [
        (put("values[finite].max()", "values[finite].min()"), "best after: divergence is best", f"{_CURVES} best_of_n"),
        (put("u_tuning_curve", "v_tuning_curve"), "best after: with replacement", f"{_CURVES} best_of_n"),
    ],
    "studies/curves.py::spikes": [
        (drop("1.4826 *"), "spikes: not of normal deviations", f"{_CURVES} seven_deviations"),
    ],
    "studies/arms.py::speed_ups": [
        (put("fresh_seeds(runs)", "runs"), "speed-ups: of the tuning seed", f"{_ARMS} other_runs"),
        (drop(', status="completed"'), "speed-ups: to where a divergent baseline ends", f"{_ARMS} other_runs"),
        (put("theirs[run.seed]", "[*theirs.values()][0]"), "speed-ups: of unpaired seeds", f"{_ARMS} of_two_seeds"),
    ],
    "studies/arms.py::_curve": [
        (put('run.status == "completed"', "run.id"), "speed-ups: of runs that diverge", f"{_ARMS} seed_that_diverged"),
    ],
    "studies/arms.py::stability": [
        (put("> WINDOW", "> 20"), "stability: runs too short to be judged", f"{_ARMS} stability"),
        (put('== "diverged"', '!= "diverged"'), "stability: the share that completed", f"{_ARMS} stability"),
    ],
    "studies/tuned.py::_tuned": [
        (put("run.seed == TUNING_SEED", "True"), "infeasible: fresh seeds are trials", f"{_TUNED} diverges_beside"),
    ],
    "studies/tuned.py::_axes": [
        (
            drop("and numbers | {name: 0} == chosen | {name: 0}"),
            "local optimum: two numbers changed",
            f"{_TUNED} numbers_beside",
        ),
    ],
    "studies/tuned.py::doubts": [
        (put("max", "min"), "local optimum: the farthest value below", f"{_TUNED} value_of_one"),
    ],
    "studies/tuned.py::_doubt": [
        (put("excess > 0", "excess >= 0"), "local optimum: a tie is one", f"{_TUNED} value_of_one"),
        (
            put("np.isnan([*losses.values()]).all()", "np.isnan([*losses.values()]).any()"),
            "local optimum: one seed diverged",
            f"{_TUNED} value_of_one",
        ),
    ],
    "studies/tuned.py::_excess": [
        (put("seed != TUNING_SEED", "seed == TUNING_SEED"), "local optimum: as chosen", f"{_TUNED} value_of_one"),
    ],
    "studies/hardware.py::kind": [
        (
            put("dict.fromkeys(found)", "found[:1]"),
            "hardware: where a run began alone",
            "studies/test_hardware.py -k went_on",
        ),
    ],
    "studies/fresh.py::fresh": [
        (
            put("run.seed > TUNING_SEED", "run.seed >= TUNING_SEED"),
            "fresh seeds: the tuning seed too",
            f"{_VERDICTS} fresh_seeds_are_unbiased",
        ),
        (
            drop("and math.isclose(run.learning_rate, choice.learning_rate)"),
            "fresh seeds: of any rate",
            f"{_VERDICTS} chosen_numbers",
        ),
        (put("run.changed", "choice.changed"), "fresh seeds: of other numbers", f"{_VERDICTS} chosen_numbers"),
    ],
    "studies/fresh.py::common": [
        (drop("or ours.diverged or theirs.diverged"), "verdicts: divergence left out", f"{_VERDICTS} lucky"),
        (put("< 2", "< 3"), "verdicts: of three seeds at least", f"{_VERDICTS} chosen_numbers"),
    ],
    "studies/verdicts.py::verdicts": [
        (put("holm(p)", "p"), "verdicts: without correction", f"{_VERDICTS} false_verdict"),
        (put("holm_levels(p, level)", "np.full(len(p), level)"), "verdicts: intervals of one", f"{_VERDICTS} planted"),
    ],
    "studies/verdicts.py::_Contest._kind": [
        (put("< 0", "> 0"), "verdicts: upside down", f"{_VERDICTS} planted"),
    ],
    "studies/verdicts.py::_noise": [
        (drop("math.sqrt(2) *"), "noise: that of an arm for a difference", f"{_VERDICTS} noise_by_hand"),
        (put("ddof=1", "ddof=0"), "noise: the deviation by n", f"{_VERDICTS} noise_by_hand"),
    ],
    "studies/claims.py::Better._judged": [
        (put("own.low > self.by", "own.mean > self.by"), "claims: better on average", f"{_CLAIMS} test_better"),
        (put("wide.high < self.by", "own.high < self.by"), "claims: many looks count as one", f"{_CLAIMS} one_of_many"),
    ],
    "studies/claims.py::Alike._judged": [
        (
            put("equivalence(*both, self.within) <", "1 - paired(*both).p <"),
            "claims: no evidence",
            f"{_CLAIMS} alike_needs",
        ),
    ],
    "studies/claims.py::SameRanking._signs": [
        (
            put("significant, strict", "[True] * len(cases), strict"),
            "claims: ranks of noise",
            f"{_CLAIMS} ranking_that",
        ),
    ],
    "studies/claims.py::LessSensitive._judged": [
        (put("high < other_low", "ours < theirs"), "claims: one rate decides", f"{_CLAIMS} less_sensitive"),
    ],
    "studies/claims.py::OptimumMoves._judged": [
        (put("high <= self.at_most", "factor <= self.at_most"), "claims: an average holds", f"{_CLAIMS} optimum_moves"),
        (put("low > self.at_most", "factor > self.at_most"), "claims: an average fails", f"{_CLAIMS} optimum_moves"),
    ],
    "studies/claims_of_rates.py::Coincide._pair": [
        (
            put("low > self.within", "mean > self.within"),
            "claims: one rate sets curves apart",
            f"{_OF_RATES} coincide_once",
        ),
    ],
    "studies/claims_of_rates.py::LowerBeside._judged": [
        (put("low > self.by", "mean > self.by"), "claims: lower beside on average", f"{_OF_RATES} lower_below"),
        (put("-_apart", "_apart"), "claims: higher beside", f"{_OF_RATES} lower_below"),
    ],
    "studies/claims_of_rates.py::_shifted": [
        (put("x - x[y.argmin()]", "x"), "claims: curves that are not shifted", f"{_OF_RATES} coincide_once"),
    ],
    "studies/claims_of_numbers.py::_OfOneSeed._outcome": [
        (put("value - bound > self.noise", "value > bound"), "claims: noise decides", f"{_OF_NUMBERS} lower_at"),
    ],
    "studies/claims_of_numbers.py::_capped": [
        (
            put("return at_init", "return math.nan"),
            "claims: diverged values are left out",
            f"{_OF_NUMBERS} to_the_number",
        ),
    ],
    "studies/claims_of_seeds.py::Gap._judged": [
        (
            put("least < own.low and own.high < most", "least < own.mean < most"),
            "claims: a gap of the mean",
            f"{_OF_SEEDS} gap_of_a_tenth",
        ),
    ],
    "studies/claims_of_seeds.py::Steadier._judged": [
        (put("low > 1", "ratio > 1"), "claims: steadier by chance", f"{_OF_SEEDS} steadier"),
    ],
    "studies/claims_of_seeds.py::_deviations": [
        (
            put("(1 - level) / 2, (1 + level) / 2", "1 - level, level"),
            "claims: a one-sided F test",
            f"{_OF_SEEDS} f_test",
        ),
    ],
}
