"""Claims on studies where they are planted to be true, false, or beyond what the runs can tell."""

import math

import numpy as np
import pytest

from jaxopt_lm.studies.claims import Alike, Better, Claim, LessSensitive, OptimumMoves, SameRanking
from tests.studies.tables import fresh_table, fresh_tables, swept, table_of

NAN = math.nan
ADAMW = [3.00, 3.01, 3.02]
WORSE, BETTER, NEAR = [3.02, 3.031, 3.042], [2.98, 2.991, 3.002], [3.0005, 3.010, 3.0201]
NOISY = [3.05, 2.99, 3.02]


def outcome(claim: Claim, losses) -> str:
    """On the fresh losses of one setting, or of several."""
    make = fresh_tables if isinstance(next(iter(losses.values())), dict) else fresh_table
    table, chosen = make(losses)
    return claim.judge(table, chosen, "adamw").outcome


def better(**fields) -> Better:
    return Better(name="muon wins", text="Muon ends lower than AdamW.", **{"arm": "muon"} | fields)


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ({"adamw": ADAMW, "muon": BETTER}, "holds"),
        ({"adamw": ADAMW, "muon": WORSE}, "does not hold"),
        ({"adamw": ADAMW, "muon": NOISY}, "not resolved"),
        ({"adamw": ADAMW, "muon": ADAMW}, "not resolved"),
        ({"adamw": ADAMW, "muon": [*BETTER[:2], NAN]}, "not resolved"),
        ({"adamw": ADAMW[:1], "muon": BETTER[:1]}, "not resolved"),
        ({"adamw": ADAMW}, "not resolved"),
        ({"a": {"adamw": ADAMW, "muon": BETTER}, "b": {"adamw": ADAMW, "muon": BETTER}}, "holds"),
        ({"a": {"adamw": ADAMW, "muon": BETTER}, "b": {"adamw": ADAMW, "muon": NOISY}}, "not resolved"),
        ({"a": {"adamw": ADAMW, "muon": BETTER}, "b": {"adamw": ADAMW, "muon": WORSE}}, "does not hold"),
    ],
)
def test_better(losses, wanted):
    assert outcome(better(), losses) == wanted


def test_a_claim_across_some_settings_is_judged_in_these_alone():
    losses = {"a": {"adamw": ADAMW, "muon": BETTER}, "b": {"adamw": ADAMW, "muon": WORSE}}
    for across, wanted in ((("a",), "holds"), (("b",), "does not hold"), (("a", "c"), "not resolved")):
        assert outcome(better(across=across), losses) == wanted


def test_better_by_a_margin_and_than_another():
    """The gain is .02, .019, .018: [.0165, .0215]."""
    losses = {"adamw": ADAMW, "muon": BETTER, "lion": WORSE}
    by = {by: outcome(better(by=by), losses) for by in (0.016, 0.017, 0.021, 0.022)}
    assert list(by.values()) == ["holds", "not resolved", "not resolved", "does not hold"]
    assert outcome(better(arm="adamw", than="lion"), losses) == "holds"
    assert outcome(better(by=0.017, level=0.8), losses) == "holds"
    near = {by: outcome(better(arm="lion", by=by), losses) for by in (-0.018, -0.021, -0.024)}  # .0185 to .0235 worse
    assert list(near.values()) == ["does not hold", "not resolved", "holds"]


def test_a_judgement_has_the_claim_and_its_numbers_in_a_sentence():
    table, chosen = fresh_table({"adamw": ADAMW, "muon": BETTER}, ("width 64",))
    assert better().judge(table, chosen, "adamw") == (
        "muon wins",
        "Muon ends lower than AdamW.",
        "holds",
        "width 64: muon is lower than adamw by +0.019 nats [+0.017, +0.021] (3 seeds)",
    )


def test_one_of_many_settings_counts_against_a_claim_only_beyond_chance():
    """Losses that are worse at 95%, p = .03: of one setting they refute it, of four they do not."""
    generator = np.random.default_rng(0)
    t = 4.9  # p = .039
    muon = np.array(ADAMW) + [0.0, 0.01, -0.01] + 0.01 * t / math.sqrt(3)
    assert outcome(better(), {"adamw": ADAMW, "muon": muon}) == "does not hold"
    many = {f"{i}": {"adamw": ADAMW, "muon": BETTER} for i in range(3)} | {"x": {"adamw": ADAMW, "muon": muon}}
    assert outcome(better(), many) == "not resolved"
    false = [
        outcome(
            better(),
            {f"{i}": dict(zip(("adamw", "muon"), generator.normal(3, 0.01, (2, 3)), strict=True)) for i in range(5)},
        )
        for _ in range(200)
    ]
    assert false.count("does not hold") / 200 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_alike_needs_evidence_of_it():
    def alike(within, *arms):
        return Alike(name="alike", text="They are alike.", arms=arms, within=within)

    losses = {"adamw": ADAMW, "near": NEAR, "noisy": NOISY, "lion": WORSE}
    assert outcome(alike(0.002, "adamw", "near"), losses) == "holds"
    assert outcome(alike(0.002, "adamw", "noisy"), losses) == "not resolved"
    assert outcome(alike(0.002, "adamw", "lion"), losses) == "does not hold"
    assert outcome(alike(0.002, "lion", "adamw"), losses) == "does not hold"
    assert outcome(alike(0.03, "adamw", "near", "lion"), losses) == "holds"
    assert outcome(alike(0.01, "adamw", "near", "lion"), losses) == "does not hold"
    assert outcome(alike(0.01, "adamw", "absent"), losses) == "not resolved"
    # Differences .02, .021, .022 with t .90 (90%, one-sided 5%) 2.92: the upper end is .02269, and at 95% .02348.
    assert outcome(alike(0.0228, "adamw", "lion"), losses) == "holds"
    assert outcome(alike(0.0226, "adamw", "lion"), losses) == "not resolved"


def test_a_ranking_that_survives_and_one_that_turns():
    def ranking(*arms):
        return SameRanking(name="ranking", text="The ranking survives scale.", arms=arms)

    three = {"adamw": ADAMW, "lion": WORSE, "muon": BETTER}
    same = {"a": three, "b": three}
    turned = {"a": three, "b": three | {"lion": BETTER, "muon": WORSE}}
    blurred = {"a": three, "b": three | {"lion": NOISY}}
    table, chosen = fresh_tables(same)
    found = ranking("lion", "adamw", "muon").judge(table, chosen, "adamw")
    assert (found.outcome, found.sentence) == (
        "holds",
        "muon < adamw < lion in 2 settings, every difference significant",
    )
    table, chosen = fresh_tables(turned)
    found = ranking("lion", "adamw", "muon").judge(table, chosen, "adamw")
    assert found.outcome == "does not hold"
    assert found.sentence.startswith("lion and adamw, lion and muon, adamw and muon change places")
    assert outcome(ranking("lion", "adamw"), blurred) == "not resolved"
    assert outcome(ranking("muon", "adamw"), blurred) == "holds"
    assert outcome(ranking("muon", "absent"), same) == "not resolved"
    assert outcome(ranking("muon", "adamw"), {"a": three}) == "not resolved"


RATES = 10.0 ** np.arange(-5, 0.5, 0.5)


def bowl(curvature, optimum=10**-2.5):
    return 3 + curvature * np.log10(RATES / optimum) ** 2


def test_less_sensitive_only_where_no_single_rate_decides_it():
    def judged(lion, adamw=None, settings=("",)):
        adamw = bowl(0.1) if adamw is None else adamw
        rows = [run for s in settings for run in swept("lion", RATES, lion, s) + swept("adamw", RATES, adamw, s)]
        claim = LessSensitive(name="flat", text="Lion is less sensitive.", arm="lion")
        return claim.judge(table_of(rows), [], "adamw")

    found = judged(bowl(0.02))
    assert found.outcome == "holds"
    assert found.sentence.startswith("lion loses 0.050 nats on average over its range [0.04")
    assert judged(bowl(0.5)).outcome == "does not hold"
    assert judged(bowl(0.095)).outcome == "not resolved"
    one_diverged = np.where(np.arange(11) == 10, NAN, bowl(0.02))  # costs 7/11 on average
    assert judged(one_diverged).outcome == "not resolved"
    assert judged(bowl(0.02), settings=("a", "b")).outcome == "holds"
    few = table_of(swept("lion", RATES[:3], bowl(0.1)[:3]) + swept("adamw", RATES, bowl(0.5)))
    claim = LessSensitive(name="flat", text="Lion is less sensitive.", arm="lion", than="adamw")
    assert claim.judge(few, [], "sgd").outcome == "not resolved"


def test_how_far_an_optimum_moves():
    def judged(at_most, ratio=2.0, noise=0.0, across=()):
        wobble = noise * np.cos(3.0 * np.arange(11) ** 2)
        rows = swept("lion", RATES, bowl(0.3, 0.002) + wobble, "a")
        rows += swept("lion", RATES, bowl(0.3, 0.002 * ratio) + wobble, "b")
        rows += swept("lion", RATES[:2], [3.0, 3.1], "c") if across else []
        claim = OptimumMoves(name="transfer", text="The optimum stays.", arm="lion", at_most=at_most, across=across)
        return claim.judge(table_of(rows), [], "adamw")

    assert judged(2.1).outcome == "holds"
    assert judged(1.9).outcome == "does not hold"
    assert judged(1.9, ratio=0.5).outcome == "does not hold"
    wobbling = "the optimum of lion moves by a factor of 2.04, [1.97, 2.19] with one rate left out"
    for at_most in (2.0, 2.1):
        found = judged(at_most, noise=0.008)
        assert (found.outcome, found.sentence.partition(":")[0]) == ("not resolved", wobbling)
    assert judged(2.1, across=("a", "b")).outcome == "holds"
    assert judged(2.1, across=("a", "c")).outcome == "not resolved"
    assert judged(2.1, across=("a",)).outcome == "not resolved"
    sentence = judged(2.1).sentence
    assert sentence == (
        "the optimum of lion moves by a factor of 2, [2, 2] with one rate left out: 0.002 in a, 0.004 in b (one seed)"
    )
