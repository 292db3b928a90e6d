"""What tuning came to: each answer planted in losses that are a function of the run."""

import math

import pytest

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.optimizers import AdamWConfig
from jaxopt_lm.studies import Arm, Rules, Study
from jaxopt_lm.studies.search import choices, wanted
from jaxopt_lm.studies.study import Run
from jaxopt_lm.studies.tuned import doubts, tuned

NAN = math.nan
AT = {0: 3.0, 1: 3.1, 2: 3.2}
WORSE = {0: 3.5}


@pytest.mark.parametrize(
    ("tried", "answers"),
    [
        ({1: WORSE, 10: AT, 100: WORSE}, []),
        ({0.1: {0: 2.0}, 1: WORSE, 10: AT, 100: WORSE, 1000: {0: 2.0}}, []),  # the next ones alone are neighbours
        ({10: AT, 100: WORSE}, ["x below 10 is missing"]),
        ({1: WORSE, 10: AT}, ["x above 10 is missing"]),
        ({1: {}, 10: AT, 100: {0: NAN, 1: NAN}}, ["x=1 is missing", "x between 10 and 100 is missing"]),
        ({1: {0: NAN}, 10: AT, 100: WORSE}, ["x between 1 and 10 is missing"]),
        ({1: {3: 9.0}, 10: AT, 100: WORSE}, ["x=1 is missing"]),  # no seed in common
        ({1: {0: 3.0}, 10: AT, 100: {0: 2.9}}, ["x=1 is no worse", "x=100 is no worse"]),
        # Fresh seeds say more than the tuning seed, on which it was chosen; in the mean, of those in common.
        ({1: {0: 9.0, 1: 3.0, 2: 3.2}, 10: AT, 100: {0: 2.0, 1: 3.0, 2: 3.4, 5: 0.0}}, ["x=1 is no worse"]),
        ({1: {0: 9.0, 1: NAN}, 10: AT, 100: {0: 2.0, 1: NAN, 2: 3.3}}, []),
    ],
)
def test_a_value_of_one_number(tried, answers):
    assert doubts("x", 10, tried) == answers


def test_nothing_is_looked_for_below_0():
    assert doubts("weight_decay", 0, {0: AT, 0.1: WORSE}) == []
    assert doubts("weight_decay", 0, {0: AT}) == ["weight_decay above 0 is missing"]


def ended(study: Study, loss) -> dict[Run, float]:
    losses: dict[Run, float] = {}
    while new := [run for run in wanted(study, losses) if run not in losses]:
        losses |= {run: loss(run) for run in new}
    return losses


def found(loss, *nuisance, rate: float = 2e-3, **rules):
    """The row of an arm of three rates, the best in the middle unless `loss` says otherwise."""
    optimizer = AdamWConfig(learning_rate=rate, b2=0.95, weight_decay=0.0)
    arm = Arm(name="adamw", optimizer=optimizer, learning_rates=(1e-4, 1e-3, 1e-2), nuisance=nuisance)
    study = Study(base=TrainConfig(workdir="x"), arms=(arm,), rules=Rules(**{"noise_seeds": 0, "seeds": 2} | rules))
    losses = ended(study, loss)
    (row,) = tuned(study, losses, choices(study, losses)).itertuples()
    return row


def bowl(run: Run) -> float:
    numbers = {"b2": 0.95, "weight_decay": 0.0} | dict(run.changed)
    return 3 + abs(math.log10(run.learning_rate / 1e-3)) + numbers["b2"] - numbers["weight_decay"]


def test_rates_alone():
    row = found(bowl)
    assert (row.learning_rate, row.trials, row.infeasible) == (1e-3, 3, 0)
    assert (row.default_rate, row.default_loss, row.locally_optimal) == (2e-3, "not tried", "yes")
    row = found(bowl, rate=1e-2)
    assert (row.default_rate, row.default_loss) == (1e-2, pytest.approx(4.95))


def test_a_rate_that_diverges_beside_the_best():
    """Two rates are put between once, and both diverge."""
    row = found(lambda run: NAN if run.learning_rate > 1e-3 else bowl(run), rate=1e-2, max_extensions=1)
    assert (row.infeasible, row.trials, row.default_loss) == (3 / 5, 5, "not completed")
    assert row.locally_optimal == "learning_rate between 0.001 and 0.00215 is missing"


def test_without_fresh_seeds_the_tuning_seed_decides():
    assert found(bowl, seeds=0).locally_optimal == "yes"


def test_fresh_seeds_tell_what_the_tuning_seed_did_not():
    """On them the best is the worst."""
    row = found(lambda run: bowl(run) * (1 if run.seed == 0 else -1))
    assert row.locally_optimal == "learning_rate=0.0001 is no worse; learning_rate=0.01 is no worse"


def test_numbers_beside_the_rate():
    """b2 is best at its least; weight_decay, tuned after it, at its largest: b2's neighbour was tried at another."""
    axes = ("b2", (0.9, 0.95, 0.99)), ("weight_decay", (0.0, 0.1, 0.2))
    row = found(bowl, *axes)
    assert row.changed == "b2=0.9,weight_decay=0.2"
    assert row.locally_optimal == "b2 below 0.9 is missing; b2=0.95 is missing; weight_decay above 0.2 is missing"
    row = found(bowl, *axes, seeds=0)
    assert row.locally_optimal.startswith("learning_rate=0.0001 is missing; learning_rate=0.01 is missing; b2 below")
