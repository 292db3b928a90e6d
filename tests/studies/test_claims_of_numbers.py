"""Claims about other numbers than the rate on studies where they are planted to be true, false, or not resolved."""

import math

import pytest

from jaxopt_lm.studies.claims import Claim
from jaxopt_lm.studies.claims_of_numbers import AlikeAt, LessSensitiveTo, LowerAt, SmallGain
from tests.studies.tables import LOSS_AT_INIT, row, table_of

NAN = math.nan
SAID = {"name": "c", "text": "A claim.", "noise": 0.01}


def tried(arm: str, losses: dict, setting: str = "") -> list[dict]:
    """The tuning seed's losses at the best rate by the value of b1, None its own; and another rate's."""
    runs = [
        row(arm, 0, loss, setting=setting, changed="" if value is None else f"b1={value:g}")
        for value, loss in losses.items()
    ]
    return [*runs, row(arm, 0, 4.0, rate=0.1, setting=setting)]


def outcome(claim: Claim, *runs: list[dict]) -> str:
    return claim.judge(table_of([run for each in runs for run in each]), [], "adamw").outcome


ADAMW = {None: 3.0, 0.5: 3.1, 0.99: 3.2}


@pytest.mark.parametrize(
    ("lion", "wanted"),
    [
        ({None: 3.0, 0.5: 3.0, 0.99: 3.1}, "holds"),
        ({None: 3.0, 0.5: 3.0, 0.99: 3.3}, "does not hold"),
        ({None: 3.0, 0.5: 3.0, 0.99: 3.195}, "not resolved"),
        ({None: 3.0, 0.5: 3.0}, "not resolved"),
        ({None: 3.0, 0.5: 3.0, 0.99: NAN}, "does not hold"),
    ],
)
def test_lower_at_each_value(lion, wanted):
    claim = LowerAt(**SAID, arm="lion", values=(0.5, 0.99))
    assert outcome(claim, tried("adamw", ADAMW), tried("lion", lion)) == wanted


@pytest.mark.parametrize(
    ("lion", "wanted"),
    [
        ({0.5: 3.12, 0.99: 3.18}, "holds"),
        ({0.5: 3.12, 0.99: 3.0}, "does not hold"),
        ({0.5: 3.12, 0.99: 3.155}, "not resolved"),
        ({0.5: 3.12}, "not resolved"),
    ],
)
def test_alike_at_each_value(lion, wanted):
    claim = AlikeAt(**SAID, arms=("adamw", "lion"), values=(0.5, 0.99), within=0.05)
    assert outcome(claim, tried("adamw", ADAMW), tried("lion", lion)) == wanted


@pytest.mark.parametrize(
    ("lion", "wanted"),
    [
        ({None: 3.0, 0.5: 3.01, 0.99: 3.02}, "holds"),
        ({None: 3.0, 0.5: 3.5, 0.99: 3.9}, "does not hold"),
        ({None: 3.0, 0.5: 3.11, 0.99: 3.2}, "not resolved"),
        ({None: 3.0, 0.5: 3.01, 0.99: NAN}, "does not hold"),
        ({None: 3.0}, "not resolved"),
    ],
)
def test_less_sensitive_to_the_number(lion, wanted):
    claim = LessSensitiveTo(**SAID, arm="lion")
    assert outcome(claim, tried("adamw", ADAMW), tried("lion", lion)) == wanted


def test_less_sensitive_over_settings():
    def runs(arm, losses):
        return [row(arm, 0, loss, setting=setting) for setting, loss in zip("abc", losses, strict=True)]

    claim = LessSensitiveTo(**SAID, arm="lion", over_settings=True)
    adamw = runs("adamw", (3.0, 3.1, 3.2))
    assert outcome(claim, adamw, runs("lion", (3.0, 3.01, 3.02))) == "holds"
    assert outcome(claim, adamw, runs("lion", (3.0, 3.01, NAN))) == "does not hold"
    assert outcome(claim, adamw, runs("lion", (3.1, 3.2, 3.31))) == "not resolved"


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ({None: 3.0, 0.5: 2.97, 0.99: 3.5}, "holds"),
        ({None: 3.0, 0.5: 2.9, 0.99: 3.5}, "does not hold"),
        ({None: 3.0, 0.5: 2.955, 0.99: 3.5}, "not resolved"),
        ({0.5: 2.955, 0.99: 3.5}, "not resolved"),
        ({None: NAN, 0.5: 2.955}, "does not hold"),
    ],
)
def test_a_small_gain(losses, wanted):
    claim = SmallGain(**SAID, arms=("adamw",), at_most=0.05)
    assert outcome(claim, tried("adamw", losses)) == wanted


def test_a_small_gain_over_settings():
    claim = SmallGain(**SAID, arms=("adamw", "lion"), at_most=0.05, own="a")
    runs = {
        b: [row(arm, 0, loss, setting=s) for arm in ("adamw", "lion") for s, loss in (("a", 3.0), ("b", b))]
        for b in (2.97, 2.9, 2.955)
    }
    assert [outcome(claim, each) for each in runs.values()] == ["holds", "does not hold", "not resolved"]
    assert outcome(claim, [run for run in runs[2.97] if run["setting"] == "b"]) == "not resolved"
    assert claim.named_settings() == {"a"}


def test_one_setting_in_which_it_fails_is_enough():
    claim = LessSensitiveTo(**SAID, arm="lion")
    flat = {None: 3.0, 0.5: 3.0, 0.99: 3.0}
    runs = [run for s in "ab" for run in tried("adamw", ADAMW, s)]
    assert outcome(claim, runs, tried("lion", flat, "a"), tried("lion", flat, "b")) == "holds"
    worse = {None: 3.0, 0.5: LOSS_AT_INIT + 1, 0.99: 3.0}
    assert outcome(claim, runs, tried("lion", flat, "a"), tried("lion", worse, "b")) == "does not hold"
    found = claim.judge(table_of([*runs, *tried("lion", flat, "a"), *tried("lion", worse, "b")]), [], "adamw")
    assert found.sentence == "b: lion loses 2.333 nats on average over the values, adamw 0.100 (one seed)"
