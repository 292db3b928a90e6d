"""Which runs a study wants: against losses that are a function of the run."""

import math
import random
from collections.abc import Callable

import pytest

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.optimizers import AdamWConfig, LionConfig
from jaxopt_lm.studies import Arm, Rules, Study, over
from jaxopt_lm.studies.choice import Choice
from jaxopt_lm.studies.search import choices, wanted
from jaxopt_lm.studies.study import Run

GRID = (1e-4, 1e-3, 1e-2)


def arm(name: str = "adamw", rates: tuple[float, ...] = GRID, **fields) -> Arm:
    return Arm(name=name, optimizer=AdamWConfig(learning_rate=2e-3), learning_rates=rates, **fields)


def study(*arms: Arm, settings=({},), **rules: int) -> Study:
    rules = {"noise_seeds": 0} | rules
    return Study(base=TrainConfig(workdir="x"), arms=arms or (arm(),), settings=tuple(settings), rules=Rules(**rules))


def bowl(optimum: float) -> Callable[[Run], float]:
    return lambda run: abs(math.log10(run.learning_rate / optimum)) + run.seed / 1000


def ended(asked: Study, loss: Callable[[Run], float], order: random.Random | None = None) -> dict[Run, float]:
    """The losses of a study that is run to its end; with an order, a random part of what is open at a time."""
    losses: dict[Run, float] = {}
    while open_runs := [run for run in wanted(asked, losses) if run not in losses]:
        some = open_runs if order is None else order.sample(open_runs, order.randint(1, len(open_runs)))
        losses |= {run: loss(run) for run in some}
    return losses


def rates(losses: dict[Run, float], seed: int = 0) -> list[float]:
    return sorted({run.learning_rate for run in losses if run.seed == seed})


def test_an_optimum_inside_its_grid_wants_no_more_rates():
    asked = study(seeds=2)
    losses = ended(asked, bowl(1e-3))
    assert rates(losses) == list(GRID)
    assert {run for run in losses if run.seed} == {Run("", "adamw", (), rate, seed) for rate in GRID for seed in (1, 2)}
    (choice,) = choices(asked, losses)
    assert choice == Choice("", "adamw", 1e-3, "", 0.0, inside=True, trials=3, neighbours=(1e-4, 1e-2))


@pytest.mark.parametrize(
    ("optimum", "more"), [(1e-1, [1e-1, 1.0]), (1.0, [1e-1, 1.0, 1e1, 1e2]), (1e-6, [1e-8, 1e-7, 1e-6, 1e-5])]
)
def test_a_grid_is_extended_two_rates_at_a_time_until_the_best_is_inside(optimum, more):
    losses = ended(study(), bowl(optimum))
    assert rates(losses) == pytest.approx(sorted([*GRID, *more]))
    (choice,) = choices(study(), losses)
    assert choice.learning_rate == pytest.approx(optimum)
    assert (choice.inside, choice.trials) == (True, 3 + len(more))


def test_beyond_the_bound_the_best_is_a_bound():
    asked = study(max_extensions=1)
    losses = ended(asked, bowl(1e3))
    assert rates(losses) == [*GRID, 1e-1, 1.0]
    (choice,) = choices(asked, losses)
    assert (choice.learning_rate, choice.inside, choice.neighbours) == (1.0, False, (1e-1,))
    assert rates(losses, seed=1) == [1e-1, 1.0]


def test_between_the_best_and_a_diverged_rate_two_more_are_tried():
    def loss(run: Run) -> float:
        return math.nan if run.learning_rate > 3e-3 else bowl(1e-1)(run)

    losses = ended(study(max_extensions=2), loss)
    assert rates(losses) == pytest.approx([1e-4, 1e-3, 2.15e-3, 2.78e-3, 3.59e-3, 4.64e-3, 1e-2])
    (choice,) = choices(study(max_extensions=2), losses)
    assert (choice.learning_rate, choice.inside, choice.trials) == (2.78e-3, False, 7)
    assert not any(run.seed and run.learning_rate > 3e-3 for run in losses)


def test_an_arm_that_always_diverges_is_tried_lower_and_has_no_choice():
    asked = study(max_extensions=2)
    losses = ended(asked, lambda run: math.nan)
    assert rates(losses) == pytest.approx([1e-8, 1e-7, 1e-6, 1e-5, *GRID])
    assert choices(asked, losses) == []
    assert {run.seed for run in losses} == {0}


def test_a_grid_of_one_rate_grows_to_both_sides():
    losses = ended(study(arm(rates=(1e-3,))), bowl(1e-3))
    assert rates(losses) == [1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2]


def test_the_noise_of_the_baseline_comes_before_all_else():
    asked = study(arm(), arm("other"), settings=over("model.mlp_dim", 16, 32), noise_seeds=2, seeds=1)
    noise = {Run(setting, "adamw", (), 2e-3, seed) for setting in ("mlp_dim=16", "mlp_dim=32") for seed in (1, 2)}
    assert set(wanted(asked, {})) == noise
    assert set(wanted(asked, {next(iter(noise)): 1.0})) == noise
    rest = set(wanted(asked, dict.fromkeys(noise, 1.0)))
    assert rest > noise
    places = {(f"mlp_dim={width}", name) for width in (16, 32) for name in ("adamw", "other")}
    assert {(run.setting, run.arm) for run in rest} == places


def test_an_arm_is_searched_in_its_settings_alone():
    asked = study(arm(), arm("other", settings=("mlp_dim=32",)), settings=over("model.mlp_dim", 16, 32), seeds=0)
    losses = ended(asked, bowl(1e-3))
    places = {("mlp_dim=16", "adamw"), ("mlp_dim=32", "adamw"), ("mlp_dim=32", "other")}
    assert {(run.setting, run.arm) for run in losses} == places
    assert {(choice.setting, choice.arm) for choice in choices(asked, losses)} == places


def test_nuisance_axes_are_searched_one_after_another_at_the_best_rate():
    axes = ("weight_decay", (0.0, 0.1, 0.2)), ("b2", (0.95, 0.9, 0.99))
    asked = study(arm(nuisance=axes), seeds=1)

    def loss(run: Run) -> float:
        numbers = {"weight_decay": 0.0, "b2": 0.95} | dict(run.changed)
        return bowl(1e-3)(run) + abs(numbers["weight_decay"] - 0.1) + abs(numbers["b2"] - 0.9)

    losses = ended(asked, loss)
    (choice,) = choices(asked, losses)
    assert (choice.changed, choice.trials) == ("weight_decay=0.1,b2=0.9", 3 + 2 + 2)
    assert choice.loss == pytest.approx(0)
    decayed = ("weight_decay", 0.1)
    tried = {(), (decayed,), (("weight_decay", 0.2),), (decayed, ("b2", 0.9)), (decayed, ("b2", 0.99))}
    assert {run.changed for run in losses if run.seed == 0} == tried
    assert {run.changed for run in losses if run.seed == 1} == {(decayed, ("b2", 0.9))}


def test_a_grid_comes_in_an_order_of_its_own_that_is_always_the_same():
    grid = tuple(10.0**-i for i in range(9, 0, -1))
    asked = study(arm(rates=grid), arm("other", grid))
    orders = {name: [run.learning_rate for run in wanted(asked, {}) if run.arm == name] for name in ("adamw", "other")}
    assert orders["adamw"] != sorted(orders["adamw"])
    assert orders["adamw"] != orders["other"]
    assert wanted(asked, {}) == wanted(asked, {})


@pytest.mark.parametrize("seed", range(5))
def test_the_end_does_not_depend_on_the_order(seed):
    """Nor on where it was killed: what is wanted is a function of what has ended."""
    axes = (("weight_decay", (0.0, 0.1)),)
    lion = Arm(name="lion", optimizer=LionConfig(learning_rate=1e-3), learning_rates=(1e-5, 1e-4), nuisance=axes)
    asked = study(arm(), lion, settings=over("model.mlp_dim", 16, 32), noise_seeds=2)

    def loss(run: Run) -> float:
        return math.nan if run.learning_rate > 0.05 else random.Random(repr(run)).random()

    whole = ended(asked, loss)
    assert ended(asked, loss, random.Random(seed)) == whole
    runs = wanted(asked, whole)
    assert len(set(runs)) == len(runs)
    assert set(runs) == set(whole)
