"""Claims about curves over the learning rate on studies where they are planted to be true, false, or not resolved."""

import math

import numpy as np
import pytest

from jaxopt_lm.studies.claims import Claim
from jaxopt_lm.studies.claims_of_rates import Coincide, LessSensitiveIn, LowerBeside, LowerRate, OptimumAt
from tests.studies.tables import LOSS_AT_INIT, swept, table_of

RATES = 10.0 ** np.arange(-4, 0.5, 0.5)
NAN = math.nan
SAID = {"name": "c", "text": "A claim."}


def bowl(curvature=0.1, optimum=1e-2, least=3.0):
    return least + curvature * np.log10(RATES / optimum) ** 2


def outcome(claim: Claim, losses: dict[str, np.ndarray]) -> str:
    """Of losses over RATES by arm, or by `setting/arm`."""
    rows = [
        run
        for name, each in losses.items()
        for run in swept(name.rpartition("/")[2], RATES[: len(each)], each, name.rpartition("/")[0])
    ]
    return claim.judge(table_of(rows), [], "adamw").outcome


@pytest.mark.parametrize(
    ("lion", "wanted"),
    [
        (bowl(), "holds"),
        (bowl(optimum=1e-3), "holds"),
        (bowl(least=3.04), "holds"),
        (bowl(least=3.2), "does not hold"),
        (bowl(curvature=0.3), "does not hold"),
        (np.where(np.arange(9) == 8, NAN, bowl()), "not resolved"),  # (10 - 3.4) / 9 is .73, without it 0
        (bowl()[:1], "not resolved"),
    ],
)
def test_curves_that_coincide_once_shifted(lion, wanted):
    claim = Coincide(**SAID, arms=("adamw", "lion"), within=0.1)
    assert outcome(claim, {"adamw": bowl(), "lion": lion}) == wanted


def test_curves_that_coincide_on_one_side_in_every_setting():
    steep = np.where(RATES > 1e-2, bowl(0.5), bowl())
    losses = {"a/adamw": bowl(), "a/lion": bowl(), "b/adamw": bowl(), "b/lion": steep}
    sides = {
        side: outcome(Coincide(**SAID, arms=("lion", "adamw"), within=0.1, side=side), losses)
        for side in ("below", "above", "both")
    }
    assert sides == {"below": "holds", "above": "does not hold", "both": "does not hold"}
    only_a = Coincide(**SAID, arms=("lion", "adamw"), within=0.1, across=("a",))
    assert outcome(only_a, losses) == "holds"
    found = Coincide(**SAID, arms=("lion", "adamw"), within=0.1).judge(
        table_of(swept("lion", RATES, bowl(least=3.05)) + swept("adamw", RATES, bowl())), [], "adamw"
    )
    assert found.sentence == (
        "shifted to their best rates, lion and adamw are 0.050 nats [0.050, 0.050] apart on average (one seed)"
    )


def test_diverged_runs_count_as_the_loss_at_initialisation():
    high = np.where(RATES > 0.1, NAN, bowl())
    as_init = np.where(RATES > 0.1, LOSS_AT_INIT, bowl())
    claim = Coincide(**SAID, arms=("adamw", "lion"), within=0.01)
    assert outcome(claim, {"adamw": as_init, "lion": high}) == "holds"


@pytest.mark.parametrize(
    ("lion", "wanted"),
    [
        (np.where(RATES < 1e-2, bowl(0.02), bowl()), "holds"),
        (np.where(RATES < 1e-2, bowl(0.3), bowl()), "does not hold"),
        (bowl(), "does not hold"),
        (bowl() + np.array([-0.35, 0.1, 0.1, 0.1, 0, 0, 0, 0, 0]), "not resolved"),
    ],
)
def test_lower_below_the_best_rate(lion, wanted):
    claim = LowerBeside(**SAID, arm="lion", side="below", by=0.0001)
    assert outcome(claim, {"adamw": bowl(), "lion": lion}) == wanted
    assert outcome(claim, {"adamw": bowl()}) == "not resolved"


@pytest.mark.parametrize(
    ("optimum", "wanted"), [(1e-3, "holds"), (10**-1.75, "does not hold"), (10**-2.25, "does not hold")]
)
def test_a_rate_that_is_lower_by_a_factor(optimum, wanted):
    claim = LowerRate(**SAID, arm="lion", factor=3.0)
    assert outcome(claim, {"adamw": bowl(), "lion": bowl(optimum=optimum)}) == wanted


def test_a_lower_rate_that_one_rate_decides_is_not_resolved():
    wobbly = bowl(0.1, 10**-2.5) + 0.01 * np.cos(3.0 * np.arange(9) ** 2)
    claims = [LowerRate(**SAID, arm="lion", factor=factor) for factor in (2.0, 3.1, 4.5)]
    found = [outcome(claim, {"adamw": bowl(), "lion": wobbly}) for claim in claims]
    assert found == ["holds", "not resolved", "does not hold"]
    assert outcome(claims[0], {"adamw": bowl(), "lion": bowl()[:3]}) == "not resolved"


def test_an_optimum_at_a_rate():
    def judged(rate, losses):
        return outcome(OptimumAt(**SAID, arm="adamw", learning_rate=rate, within=1.8), {"adamw": losses})

    wobbly = bowl(0.1, 10**-2.25) + 0.01 * np.cos(3.0 * np.arange(9) ** 2)
    assert [judged(rate, bowl()) for rate in (6e-3, 1e-2, 1.7e-2)] == ["holds"] * 3
    assert [judged(rate, bowl()) for rate in (5e-3, 2e-2)] == ["does not hold"] * 2
    assert "not resolved" in {judged(rate, wobbly) for rate in np.geomspace(5e-3, 2e-2, 30)}
    assert judged(1e-2, bowl()[:3]) == "not resolved"


@pytest.mark.parametrize(
    ("wide", "wanted"),
    [(bowl(0.02), "holds"), (bowl(0.3), "does not hold"), (bowl(0.095), "not resolved"), (bowl()[:3], "not resolved")],
)
def test_less_sensitive_in_one_setting_than_in_another(wide, wanted):
    claim = LessSensitiveIn(**SAID, arms=("adamw",), setting="a", other="b")
    assert outcome(claim, {"a/adamw": wide, "b/adamw": bowl()}) == wanted


def test_each_arm_must_be_less_sensitive_there():
    claim = LessSensitiveIn(**SAID, arms=("adamw", "lion"), setting="a", other="b")
    losses = {"a/adamw": bowl(0.02), "b/adamw": bowl(), "a/lion": bowl(0.3), "b/lion": bowl()}
    assert outcome(claim, losses) == "does not hold"
    assert claim.named_settings() == {"a", "b"}
