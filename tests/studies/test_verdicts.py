"""Verdicts of studies whose truth is planted, and what they say in words."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxopt_lm.studies.statistics import holm, interval, paired, seeds_needed, smallest_detectable, t_interval
from jaxopt_lm.studies.verdicts import noise, verdicts, written_p
from tests.studies.tables import choice, fresh_table, fresh_tables, row, table_of

NAN = math.nan
ADAMW = [3.00, 3.01, 3.02]
WORSE, BETTER, NEAR = [3.02, 3.031, 3.042], [2.98, 2.991, 3.002], [3.004, 3.0, 3.028]


def judged(losses, **options):
    """The verdicts by arm."""
    table, choices = fresh_table(losses)
    return {verdict.arm: verdict for verdict in verdicts(table, choices, "adamw", **options)}


def test_planted_differences_are_found_with_their_numbers():
    """Three comparisons; WORSE differs by .02, .021, .022: mean .021, deviation .001."""
    found = judged({"adamw": ADAMW, "lion": WORSE, "muon": BETTER, "sgd": NEAR})
    assert [each.kind for each in found.values()] == ["baseline", "worse", "better", "not resolved"]
    lion, muon = found["lion"], found["muon"]
    alone = paired(WORSE, ADAMW)
    assert (lion.difference, lion.effect_size, lion.n) == pytest.approx((0.021, 21, 3))
    assert lion.p == pytest.approx(3 * alone.p)
    assert muon.p == lion.p  # twice its own is less than that: corrected values keep their order
    assert muon.difference == pytest.approx(-0.019)
    assert (lion.low, lion.high) == pytest.approx(t_interval([0.02, 0.021, 0.022], 1 - 0.05 / 3)[1:3])
    assert lion.seeds_needed == seeds_needed(21, alpha=0.05 / 3)
    assert lion.loss == interval(WORSE)
    assert found["adamw"].loss == interval(ADAMW)
    assert (lion.setting, lion.baseline, lion.learning_rate, lion.diverged) == ("", "adamw", 0.01, 0)
    assert all(math.isnan(x) for x in (found["adamw"].difference, found["adamw"].p, found["adamw"].low))


def test_one_comparison_is_not_corrected_and_the_level_is_used():
    found = judged({"adamw": ADAMW, "sgd": NEAR}, level=0.6)["sgd"]
    alone = paired(NEAR, ADAMW, 0.6)
    wanted = (alone.p, alone.low, alone.high, alone.seeds_needed)
    assert (found.p, found.low, found.high, found.seeds_needed) == pytest.approx(wanted)
    assert found.loss == interval(NEAR, 0.6)
    assert found.kind == "not resolved"
    assert judged({"adamw": ADAMW, "sgd": NEAR}, level=0.05)["sgd"].kind == "worse"


def test_all_settings_are_corrected_together():
    table, choices = fresh_tables({f"width {w}": {"adamw": ADAMW, "lion": WORSE} for w in (64, 128, 256)})
    found = [each for each in verdicts(table, choices, "adamw") if each.arm == "lion"]
    assert [each.setting for each in found] == ["width 64", "width 128", "width 256"]
    assert [each.p for each in found] == pytest.approx([3 * paired(WORSE, ADAMW).p] * 3)


def test_seeds_are_paired_by_their_number_at_the_chosen_rate_with_the_chosen_numbers():
    """The tuning seed, other rates and other numbers have losses that would turn the verdict; a seed is missing."""
    rows = [row("adamw", seed, loss) for seed, loss in enumerate(ADAMW, 1)]
    rows += [
        row("lion", seed, loss, 0.003, changed="b2=0.9") for seed, loss in zip((3, 4, 1), (3.042, 9, 3.02), strict=True)
    ]
    rows += [row("lion", seed, 1.0 + seed, 0.001, changed="b2=0.9") for seed in range(4)]
    rows += [row("lion", seed, 1.0 + seed, 0.003) for seed in range(4)]
    rows += [row("lion", 0, 1.0, 0.003, changed="b2=0.9"), row("adamw", 0, 5.0)]
    rows += [row("lion", 2, NAN, 0.003, changed="b2=0.9", status="missing")]
    chosen = [choice("adamw"), choice("lion", 0.003 * (1 + 1e-12), changed="b2=0.9")]
    found = verdicts(table_of(rows), chosen, "adamw")[1]
    assert (found.difference, found.n, found.changed) == (pytest.approx(0.021), 2, "b2=0.9")
    assert found.loss.n == 3


@pytest.mark.parametrize("status", ["missing", "failed"])
def test_one_seed_gives_no_verdict(status):
    rows = [row("adamw", 1, 3.0), row("adamw", 2, 3.1), row("lion", 1, 2.0), row("lion", 2, NAN, status=status)]
    baseline, found = verdicts(table_of(rows), [choice("adamw"), choice("lion")], "adamw")
    assert (found.kind, found.n, found.loss.mean) == ("no fresh seeds", 1, 2.0)
    assert all(math.isnan(x) for x in (found.difference, found.low, found.high, found.p, found.seeds_needed))
    assert found.sentence == "lion is not judged: 1 common fresh seed finished, 2 are needed"
    assert baseline.kind == "baseline"


def test_an_arm_that_diverged_on_a_fresh_seed_is_not_judged_by_those_that_were_lucky():
    found = judged({"adamw": ADAMW, "lion": [2.0, 2.0, NAN], "muon": BETTER})
    lion = found["lion"]
    assert (lion.kind, lion.diverged, lion.n) == ("no fresh seeds", 1, 2)
    assert lion.sentence == "lion is not judged: 1 run of lion on fresh seeds diverged at the rate it chose"
    assert found["muon"].p == pytest.approx(paired(BETTER, ADAMW).p)  # lion is no test
    found = judged({"adamw": [*ADAMW[:2], NAN], "lion": WORSE})
    assert found["lion"].kind == "no fresh seeds"
    assert "of adamw on fresh seeds diverged" in found["lion"].sentence


def test_an_arm_that_chose_nothing_is_named():
    table, choices = fresh_table({"adamw": ADAMW, "lion": [NAN] * 3})
    found = verdicts(table, choices[:1], "adamw")
    assert [each.arm for each in found] == ["adamw", "lion"]
    assert (found[1].kind, math.isnan(found[1].learning_rate), found[1].loss.n) == ("no fresh seeds", True, 0)
    assert found[1].sentence == "lion is not judged: no rate is chosen"


def test_sentences():
    """By Student's t with 2 degrees of freedom, at 97.5% and, of the last step, 95%."""
    found = judged({"adamw": ADAMW, "lion": WORSE, "sgd": NEAR})
    assert found["lion"].sentence == "lion is worse than adamw by 0.021 nats [0.017, 0.025] (3 seeds, Holm p = .002)"
    assert found["sgd"].sentence == (
        "sgd and adamw are not resolved: difference +0.001 nats [-0.023, +0.024] (3 seeds, Holm p = .914); "
        "about 1580 seeds would settle an effect of this size"
    )
    assert found["adamw"].sentence == "adamw, the baseline, ends at 3.010 nats [2.985, 3.035] (3 fresh seeds)"
    better = judged({"adamw": ADAMW, "muon": BETTER})["muon"].sentence
    assert better == "muon is better than adamw by 0.019 nats [0.017, 0.021] (3 seeds, Holm p < .001)"
    same = judged({"adamw": ADAMW, "copy": ADAMW})["copy"]
    assert (same.kind, same.p) == ("not resolved", 1)
    assert same.sentence.endswith("[+0.000, +0.000] (3 seeds, Holm p = 1.000); no difference at all was seen")
    assert verdicts(*fresh_table({"adamw": []} | {"x": [1.0]}), "adamw")[0].sentence.endswith(
        "no fresh seed that finished"
    )


def test_a_rate_at_an_end_of_its_range_is_said():
    table, _ = fresh_table({"adamw": ADAMW, "lion": WORSE}, ("width 64",))
    ends = [(True, False), (False, True), (False, False)]
    for inside, ours in ends:
        chosen = [choice("adamw", setting="width 64", inside=inside), choice("lion", setting="width 64", inside=ours)]
        found = verdicts(table, chosen, "adamw")[1]
        assert (found.inside, found.baseline_inside) == (ours, inside)
        assert found.sentence.startswith("width 64: lion is worse than adamw")
        assert ("; lion's best rate is not inside its range" in found.sentence) != ours
        assert ("; adamw's best rate is not inside its range" in found.sentence) != inside


def test_p_values_as_papers_write_them():
    assert [written_p(p) for p in (0.0004, 0.004, 0.0412, 1.0)] == ["< .001", "= .004", "= .041", "= 1.000"]


def planted(generator, arms: int, effect: float):
    """Three fresh seeds of a baseline, an arm that is worse by `effect`, and others that are as good."""
    seeds, own = generator.normal(3, 0.1, 3), generator.normal(0, 0.01, (arms, 3))
    return {"adamw": seeds + own[0], "worse": seeds + own[1] + effect} | {
        f"arm{i}": seeds + own[i] for i in range(2, arms)
    }


def test_a_study_has_a_false_verdict_no_more_often_than_it_says_and_finds_what_is_there():
    """Six null arms: without Holm's correction, one in five studies has a false verdict."""
    generator, studies = np.random.default_rng(0), 200
    false, uncorrected, found = [], [], []
    for _ in range(studies):
        losses = planted(generator, 8, 0.5)
        _, worse, *nulls = judgements = list(judged(losses).values())
        p = stats.ttest_rel([losses[each.arm] for each in judgements[1:]], [losses["adamw"]], axis=1).pvalue
        np.testing.assert_allclose([each.p for each in judgements[1:]], holm(p))
        false.append(any(each.kind != "not resolved" for each in nulls))
        uncorrected.append(np.any(p[1:] < 0.05))
        found.append(worse.kind == "worse")
        for each in judgements:
            assert (each.kind in ("better", "worse")) == (each.low > 0 or each.high < 0)
    bound = 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    assert np.mean(false) < bound < np.mean(uncorrected)
    assert np.mean(found) > 0.95


def test_fresh_seeds_are_unbiased_where_the_tuning_seed_is_not():
    """Five rates of the same true loss: the best of five is 1.163 deviations too good, and on average is not better."""
    generator, rates, studies = np.random.default_rng(1), 10.0 ** np.arange(-5, 0), 250
    tuned, fresh = [], []
    for _ in range(studies):
        losses = 3 + generator.normal(0, 0.01, (5, 4))  # by rate and seed
        rows = [row("lion", seed, losses[i, seed], rates[i]) for i in range(5) for seed in range(4)]
        rows += [row("adamw", seed, 3.0) for seed in range(4)]
        best = int(losses[:, 0].argmin())
        chosen = [choice("adamw"), choice("lion", rates[best], loss=losses[best, 0])]
        tuned.append(chosen[1].loss - 3)
        fresh.append(verdicts(table_of(rows), chosen, "adamw")[1].difference)
    error = 0.01 / math.sqrt(3 * studies)
    assert abs(np.mean(fresh)) < 3 * error
    assert np.mean(tuned) == pytest.approx(-1.163 * 0.01, rel=0.15)
    assert abs(np.mean(tuned)) > 20 * error


def test_noise_by_hand():
    """Losses 3.00, 3.01, 3.02 deviate by .01; of chi squared, 2 degrees of freedom: .0506 and 7.378."""
    rows = [row("adamw", seed, loss, 0.01, setting="a") for seed, loss in enumerate(ADAMW, 1)]
    rows += [row("adamw", seed, 9.0 * seed, 0.03, setting="a") for seed in (1, 2)]
    rows += [row("adamw", 0, 8.0, 0.01, setting="a"), row("lion", 1, 7.0, 0.01, setting="a")]
    rows += [row("adamw", 4, 6.0, 0.01, setting="a", changed="b2=0.9"), row("adamw", 5, NAN, 0.01, setting="a")]
    rows += [row("adamw", 1, 3.0, 0.01, setting="b")]
    one, other = noise(table_of(rows), "adamw")
    np.testing.assert_allclose(
        one[1:6], (0.01, 0.01, 0.01 * math.sqrt(2 / 7.37776), 0.01 * math.sqrt(2 / 0.0506356), 3), rtol=1e-5
    )
    assert one.detectable == pytest.approx(math.sqrt(2) * smallest_detectable(0.01, 3))
    assert (other.setting, other.n, math.isnan(other.deviation), math.isnan(other.detectable)) == ("b", 1, True, True)
    planned = noise(table_of(rows), "adamw", seeds=10)[0]
    assert planned.detectable == pytest.approx(math.sqrt(2) * smallest_detectable(0.01, 10))
    assert noise(table_of(rows), "adamw", 0.03)[0].deviation == pytest.approx(9 / math.sqrt(2))
    assert noise(table_of(rows), "adamw", 0.1)[0].n == 0
    assert noise(table_of(rows), "adamw", level=0.5)[0].low > one.low
