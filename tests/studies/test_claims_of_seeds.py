"""Claims on fresh seeds about sizes, settings and deviations: planted to be true, false, or not resolved."""

import json
import math

import pytest

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.optimizers import AdamWConfig
from jaxopt_lm.studies import Arm, Study
from jaxopt_lm.studies.claims import Claim
from jaxopt_lm.studies.claims_of_seeds import BetterEarly, Gap, GapGrows, LowerIn, Steadier
from jaxopt_lm.studies.kinds import KINDS
from tests.studies.tables import fresh_table, fresh_tables

NAN = math.nan
SAID = {"name": "c", "text": "A claim."}
ADAMW = [4.00, 4.01, 4.02]


def outcome(claim: Claim, losses) -> str:
    """On the fresh losses of one setting, or of several."""
    make = fresh_tables if isinstance(next(iter(losses.values())), dict) else fresh_table
    table, chosen = make(losses)
    return claim.judge(table, chosen, "adamw").outcome


def times(factor: float, noise: float = 0.001) -> list[float]:
    return [loss * (factor + noise * i) for loss, i in zip(ADAMW, (-1, 0, 1), strict=True)]


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        (times(1.10), "holds"),
        (times(1.05), "does not hold"),
        (times(1.15), "does not hold"),
        (times(1.10, noise=0.03), "not resolved"),
        ([*times(1.1)[:2], NAN], "not resolved"),
    ],
)
def test_a_gap_of_a_tenth(losses, wanted):
    claim = Gap(**SAID, arm="almvr", share=0.1, within=0.02)
    assert outcome(claim, {"adamw": ADAMW, "almvr": losses}) == wanted


def test_a_gap_in_words():
    table, chosen = fresh_table({"adamw": ADAMW, "almvr": times(1.10)})
    found = Gap(**SAID, arm="almvr", share=0.1, within=0.02).judge(table, chosen, "adamw")
    assert found.sentence == "the loss of almvr is +10.00% [+9.83%, +10.17%] (3 seeds) above that of adamw"


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ([4.2, 4.21, 4.22], "holds"),
        ([3.8, 3.811, 3.82], "does not hold"),
        ([4.0, 4.03, 4.01], "not resolved"),
        ([4.2, 4.21, NAN], "not resolved"),
    ],
)
def test_better_early_is_of_early_losses(losses, wanted):
    """Whatever the last ones are, but where a run diverged."""
    claim = BetterEarly(**SAID, arm="adamw", than="almvr")
    table, chosen = fresh_table({"adamw": ADAMW, "almvr": losses})
    early = table.assign(early_loss=table.loss, loss=table.loss.where(table.loss.isna(), 1.0))
    found = claim.judge(early, chosen, "adamw")
    assert found.outcome == wanted
    assert found.sentence.startswith("after a quarter of the steps ")


@pytest.mark.parametrize(
    ("longer", "wanted"),
    [
        ([3.90, 3.911, 3.92], "holds"),
        ([4.10, 4.111, 4.12], "does not hold"),
        ([4.05, 3.99, 4.02], "not resolved"),
        ([3.90, 3.911, NAN], "not resolved"),
    ],
)
def test_lower_in_one_setting_than_in_another(longer, wanted):
    claim = LowerIn(**SAID, arms=("adamw",), setting="long", other="short")
    assert outcome(claim, {"short": {"adamw": ADAMW}, "long": {"adamw": longer}}) == wanted


def test_each_arm_must_be_lower_there():
    claim = LowerIn(**SAID, arms=("adamw", "lion"), setting="long", other="short")
    low, high = [3.90, 3.911, 3.92], [4.10, 4.111, 4.12]
    losses = {"short": {"adamw": ADAMW, "lion": ADAMW}, "long": {"adamw": low, "lion": high}}
    assert outcome(claim, losses) == "does not hold"
    assert claim.named_settings() == {"long", "short"}


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([4.0, 4.3, 4.6, 4.9, 5.2], "holds"),
        ([4.0, 4.0001, 4.0002, 4.0003, 4.0004], "does not hold"),
        ([4.0, 4.01, 4.02, 4.03, 4.05], "not resolved"),
        ([4.0, 4.3, 4.6, 4.9, NAN], "not resolved"),
        ([4.0], "not resolved"),
    ],
)
def test_steadier_over_seeds(others, wanted):
    losses = {"adamw": [4.0, 4.01, 4.02, 4.03, 4.04], "linear": others}
    assert outcome(Steadier(**SAID, arm="adamw", than="linear"), losses) == wanted


def test_the_interval_of_deviations_is_that_of_an_f_test():
    """Deviations .01 and .1 of 3 seeds: F = 100, and F_{.975}(2, 2) is 39."""
    table, chosen = fresh_table({"adamw": ADAMW, "linear": [4.0, 4.1, 4.2]})
    found = Steadier(**SAID, arm="adamw", than="linear").judge(table, chosen, "adamw")
    assert found.outcome == "holds"
    assert found.sentence == "losses of linear deviate over seeds by 10.00 [1.60, 62.45] times those of adamw"


@pytest.mark.parametrize(
    ("gaps", "wanted"),
    [
        ((0.1, 0.2, 0.3), "holds"),
        ((0.1, 0.2, 0.15), "does not hold"),
        ((0.1, 0.2, 0.2), "not resolved"),
        ((0.1,), "not resolved"),
        ((0.1, NAN, 0.2), "not resolved"),
    ],
)
def test_a_gap_that_grows_from_setting_to_setting(gaps, wanted):
    noise = (-0.001, 0.0, 0.001)
    losses = {
        f"{i}": {"adamw": ADAMW, "linear": [x + gap + e * i for x, e in zip(ADAMW, noise, strict=True)]}
        for i, gap in enumerate(gaps)
    }
    assert outcome(GapGrows(**SAID, arm="linear"), losses) == wanted


FIELDS = {
    "arm": "x",
    "arms": ("x", "adamw"),
    "by": 0.5,
    "within": 0.5,
    "at_most": 2.0,
    "noise": 0.1,
    "values": (0.5, 0.9),
    "side": "below",
    "factor": 2.0,
    "learning_rate": 1e-3,
    "setting": "a",
    "other": "b",
    "share": 0.1,
    "own": "a",
}


@pytest.mark.parametrize("name", KINDS)
def test_claims_of_every_kind_are_read_back(name, tmp_path):
    given = {field: value for field, value in FIELDS.items() if field in KINDS[name].__dataclass_fields__}
    claim = KINDS[name](name="c", text="d", across=("a",), **given)
    arms = (
        Arm(name="adamw", optimizer=AdamWConfig(), learning_rates=(1e-3,)),
        Arm(name="x", optimizer=AdamWConfig(), learning_rates=(1e-3,)),
    )
    settings = {"name": "a"}, {"name": "b", "length": 16}
    asked = Study(base=TrainConfig(workdir="x"), arms=arms, settings=settings, claims=(claim,))
    assert Study.from_dict(json.loads(json.dumps(asked.to_dict())), tmp_path).claims == (claim,)
