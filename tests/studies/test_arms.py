"""Speed-ups and stability, by hand: of fresh seeds at the chosen rate, paired by seed."""

import math

import numpy as np
import pandas as pd
import pytest

from jaxopt_lm.runs.read import Series
from jaxopt_lm.studies.arms import speed_ups, stability
from tests.studies.tables import choice, row, table_of

NAN = math.nan
CHOICES = pd.DataFrame([choice("adamw"), choice("lion")])
HALF = 12.706205 * math.log(2) / 2  # t with 1 degree of freedom; the logarithms of 2 and 4 deviate by log(2)/sqrt(2)


def run(arm: str, seed: int, loss: float, pace: float = 1.0, **fields) -> dict:
    return row(arm, seed, loss, **fields) | {"steps": 100, "seconds": 100 * pace if loss == loss else NAN}


RUNS = [
    run("adamw", 1, 3.0),
    run("adamw", 2, 3.2),
    run("lion", 2, 2.5, pace=2.0),
    run("lion", 1, 2.5, pace=2.0),
]
CURVES = {
    "adamw1": ([0, 100], [5.0, 3.0]),
    "adamw2": ([0, 100], [5.0, 3.2]),
    "lion1": ([0, 50, 100], [5.0, 3.0, 2.5]),
    "lion2": ([0, 25, 100], [5.0, 3.2, 2.5]),
}


def history(curves: dict):
    """Of runs at the chosen rate, by arm and seed; what else is asked for is at its end from the start on."""

    def get(name: str) -> dict[str, Series]:
        steps, losses = curves.get(name.replace("0.01", ""), ([0, 100], [1.0, 1.0]))
        return {"eval/loss": Series(np.array(steps), np.array(losses)), "train/loss": Series(np.arange(3), np.zeros(3))}

    return get


def found(runs: list[dict], curves: dict | None = None) -> list[dict]:
    return speed_ups(table_of(runs), CHOICES, "adamw", history(CURVES | (curves or {}))).to_dict("records")


def test_speed_ups_of_two_seeds():
    """The arm needs 50 and 25 steps of 2 s for 100 of 1 s: ratios 2 and 4 of steps, 1 and 2 of seconds."""
    (lion,) = found(RUNS)
    wanted = np.array([1, math.exp(-HALF), math.exp(HALF)]) * math.sqrt(8)
    assert (lion["setting"], lion["arm"], lion["reached"], lion["seeds"]) == ("", "lion", 2, 2)
    np.testing.assert_allclose([lion[name] for name in ("in_steps", "steps_low", "steps_high")], wanted, rtol=1e-5)
    seconds = [lion[name] for name in ("in_seconds", "seconds_low", "seconds_high")]
    np.testing.assert_allclose(seconds, wanted / 2, rtol=1e-5)


def test_other_runs_do_not_count():
    """The tuning seed, neighbours, and seeds that one arm has not ended or the baseline has not completed."""
    others = [run(arm, 0, 3.0) for arm in ("adamw", "lion")]
    others += [run(arm, 1, 3.0, rate=0.1) for arm in ("adamw", "lion")]
    others += [run("adamw", 3, NAN), run("lion", 3, 2.5), run("lion", 4, 2.5), run("adamw", 5, 3.0)]
    others += [run("adamw", 6, 3.0), run("lion", 6, NAN, status="missing")]
    assert found(RUNS + others) == found(RUNS)
    assert found([run(arm, 0, 3.0) for arm in ("adamw", "lion")]) == []
    assert found(RUNS[2:]) == []


def test_a_seed_that_diverged_never_gets_there_though_it_was_faster_for_a_while():
    (lion,) = found([*RUNS[:2], run("lion", 1, 2.5), run("lion", 2, NAN)], {"lion2": ([0, 10], [5.0, 1.0])})
    assert (lion["reached"], lion["seeds"]) == (1, 2)
    assert math.isnan(lion["in_steps"])


def test_without_seconds_there_are_steps():
    table = table_of(RUNS).assign(seconds=NAN)
    (lion,) = speed_ups(table, CHOICES, "adamw", history(CURVES)).to_dict("records")
    assert lion["in_steps"] == pytest.approx(math.sqrt(8))
    assert math.isnan(lion["in_seconds"])


def test_stability_by_hand():
    """Of lion's four seeds one diverged; one and three spikes in the two that have more than 50 logged losses."""
    calm = np.tile([3.0, 3.2], 40)
    one, three = calm.copy(), calm.copy()
    one[60] = three[55] = three[60] = three[70:73] = 9.0
    logged = {"1": one, "2": three, "3": calm[:50], "4": calm[:20]}

    def get(name: str) -> dict[str, Series]:
        if name.startswith("adamw"):
            return {}
        return {"train/loss": Series(np.arange(len(logged[name[-1]])), logged[name[-1]])}

    runs = [run("lion", seed, NAN if seed == 4 else 3.0) for seed in (1, 2, 3, 4)]
    runs += [run("lion", 0, NAN), run("lion", 1, NAN, rate=0.1), run("adamw", 0, 3.0)]
    adamw, lion = stability(table_of(runs), CHOICES, get).to_dict("records")
    assert lion == {"setting": "", "arm": "lion", "runs": 4, "diverged": 0.25, "spikes": 2.0, "judged": 2}
    assert (adamw["runs"], adamw["diverged"], adamw["judged"]) == (1, 0, 0)  # the tuning seed: there is no other yet
    assert math.isnan(adamw["spikes"])
