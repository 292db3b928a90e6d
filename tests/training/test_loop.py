"""The loop without folders: what it tells, how it stops, and members that diverge."""

import dataclasses
import itertools
import runpy

import jax
import numpy as np
import pytest

from jaxopt_lm.config import EvalConfig
from jaxopt_lm.optimizers import SgdwConfig
from jaxopt_lm.optimizers.schedules import ConstantConfig
from jaxopt_lm.training import population
from jaxopt_lm.training.loop import Divergence, Due, Observer, fit
from jaxopt_lm.training.setup import Setup
from jaxopt_lm.training.step import HParams
from tests.write_config_dumps import ROOT

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture
def small(tiny):
    model = dataclasses.replace(tiny.model, num_layers=1)
    return dataclasses.replace(tiny, model=model, num_train_steps=6, workdir="nowhere")


class Told(Observer):
    def __init__(self):
        self.lines, self.saved = {}, []

    def metrics(self, step, values):
        assert step not in self.lines
        self.lines[step] = values

    def save(self, step, state):
        assert step in self.lines
        self.saved.append((step, int(state.step)))


def fitted(ready: Setup, hparams: HParams, due: Due, **options):
    told = Told()
    state = ready.program.init(hparams)
    return fit(ready.program, state, hparams, ready.batches(0), due=due, observer=told, **options), told


def test_what_is_due_is_told(small):
    ready = Setup.of(small)
    due = Due(num_train_steps=7, log_every_steps=2, eval_every_steps=3, save_every_steps=5)
    found, told = fitted(ready, ready.hparams, due, evaluate=ready.evaluate)
    assert (found.status, found.step, int(found.state.step)) == ("completed", 7, 7)
    assert list(told.lines) == [0, 2, 3, 4, 5, 6, 7]
    assert [step for step, values in told.lines.items() if "eval/loss" in values] == [0, 3, 6, 7]
    assert [step for step, values in told.lines.items() if "train/loss" in values] == [2, 3, 4, 5, 6, 7]
    assert told.saved == [(5, 5), (7, 7)]
    for name in ("train/loss", "grads/norm", "learning_rate"):
        assert told.lines[2][name].shape == ()
        assert told.lines[2][name].dtype == np.float64


def test_without_an_evaluation_or_saves_the_last_step_is_told(small):
    ready = Setup.of(small)
    found, told = fitted(ready, ready.hparams, Due(num_train_steps=3, log_every_steps=2))
    assert found.status == "completed"
    assert list(told.lines) == [2, 3]
    assert told.saved == []


def test_telemetry_is_told_where_it_is_due(small):
    """Of a population too, for every member; between, there is none, and the run is the same."""
    for members in (None, 2):
        ready = Setup.of(small, members)
        hparams = ready.hparams if members is None else population.stack([ready.hparams] * members)
        found, told = fitted(ready, hparams, Due(num_train_steps=5, log_every_steps=3, telemetry_every_steps=2))
        assert list(told.lines) == [2, 3, 4, 5]
        named = {step: [name for name in line if name.startswith("telemetry/")] for step, line in told.lines.items()}
        assert [step for step, names in named.items() if names] == [2, 4]
        assert {told.lines[2][name].shape for name in named[2]} == {() if members is None else (members,)}
        whole, _ = fitted(ready, hparams, Due(num_train_steps=5))
        for x, y in zip(jax.tree.leaves(found.state), jax.tree.leaves(whole.state), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_a_stop_is_saved_and_a_state_goes_on(small):
    """At the end of the step under way, and bit for bit the run that was not stopped."""
    ready = Setup.of(small)
    due = Due.of(small)
    whole, straight = fitted(ready, ready.hparams, due)
    asked = itertools.count()
    found, told = fitted(ready, ready.hparams, due, stop=lambda: next(asked) == 4)
    assert (found.status, found.step, told.saved) == ("interrupted", 4, [(4, 4)])
    rest = Told()
    again = fit(ready.program, found.state, ready.hparams, ready.batches(4), due=due, observer=rest)
    for x, y in zip(jax.tree.leaves(again.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(x, y)
    joined = told.lines | rest.lines
    assert list(joined) == list(straight.lines)
    assert [line["train/loss"] for line in joined.values()] == [line["train/loss"] for line in straight.lines.values()]


def test_a_stop_before_the_first_step_does_nothing(small):
    ready = Setup.of(small)
    found, told = fitted(ready, ready.hparams, Due.of(small), stop=lambda: True)
    assert (found.status, found.step, told.lines, told.saved) == ("interrupted", 0, {}, [])


def overflowing(small):
    """Without a norm of queries and keys, a rate of 1e30 overflows within a few steps."""
    return dataclasses.replace(
        small,
        model=dataclasses.replace(small.model, qk_norm="none"),
        optimizer=SgdwConfig(learning_rate=1e30, momentum=0.0),
        schedule=ConstantConfig(warmup_steps=5, start_fraction=0.0),
        eval=EvalConfig(every_steps=2, batch_size=4),
    )


def test_a_run_that_diverges_ends_as_data(small):
    config = overflowing(small)
    ready = Setup.of(config)
    found, told = fitted(ready, ready.hparams, Due.of(config), evaluate=ready.evaluate)
    assert found.status == "diverged"
    assert not found.divergence.alive
    assert 1 <= int(found.divergence.step) <= 6
    assert found.divergence.metric[()] in ready.program.step.eval_shape(
        ready.program.layout, next(ready.batches(0)), ready.hparams
    )[1].keys() | {"eval/loss"}
    assert not np.isfinite(found.divergence.value)
    assert max(told.lines) < int(found.divergence.step)
    assert all(np.isfinite(value) for values in told.lines.values() for value in values.values())


def test_a_member_that_diverges_is_told_as_nan_and_the_others_go_on(small):
    """Lines, evaluations too, have a value for every member; the others' are those of a population without it."""
    config = overflowing(small)
    sound = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=0.1))
    ready = Setup.of(config, members=3)
    due = Due.of(config)
    three = population.stack([HParams.of(each) for each in (sound, config, sound)])
    found, told = fitted(ready, three, due, evaluate=ready.evaluate)
    _, healthy = fitted(ready, population.stack([HParams.of(sound)] * 3), due, evaluate=ready.evaluate)
    assert found.status == "completed"
    assert found.divergence.alive.tolist() == [True, False, True]
    at = int(found.divergence.step[1])
    assert found.divergence.step.tolist() == [0, at, 0]
    assert found.divergence.metric.tolist()[::2] == ["", ""]
    assert list(told.lines) == list(healthy.lines) == [0, 1, 2, 3, 4, 5, 6]
    for step, values in told.lines.items():
        for name, value in values.items():
            assert value.shape == (3,), name
            assert np.isnan(value[1]) == (step >= at), (step, name)
            if name != "tokens_per_sec":
                np.testing.assert_array_equal(value[::2], healthy.lines[step][name][::2])


def test_a_member_that_has_diverged_stays_so_in_a_population_that_goes_on(small):
    """Though its metrics are finite again, as after one step whose loss was not."""
    ready, before = Setup.of(small, members=2), Divergence(2)
    before.watch(1, {"eval/loss": np.asarray([np.inf, 1.0])})
    found, told = fitted(ready, population.stack([ready.hparams] * 2), Due(num_train_steps=2), divergence=before)
    assert found.status == "completed"
    assert found.divergence.step.tolist() == [1, 0]
    for values in told.lines.values():
        assert np.isnan(values["train/loss"]).tolist() == [True, False]


def test_divergence_keeps_the_first_of_each_member():
    divergence, nan = Divergence(3), np.nan
    divergence.watch(1, {"a": np.asarray([1.0, 2.0, 3.0])})
    assert divergence.alive.all()
    told = divergence.watch(2, {"a": np.asarray([1.0, np.inf, 3.0]), "b": np.asarray([1.0, nan, nan])})
    assert divergence.alive.tolist() == [True, False, False]
    assert divergence.metric.tolist() == ["", "a", "b"]
    np.testing.assert_array_equal(divergence.value, [0, np.inf, nan])
    np.testing.assert_array_equal(told["a"], [1.0, nan, nan])
    divergence.watch(3, {"b": np.asarray([nan, nan, 1.0])})
    assert divergence.step.tolist() == [3, 2, 2]


def test_the_example_collects_losses(small):
    losses = runpy.run_path(str(ROOT / "examples" / "fit_without_a_folder.py"))["losses"]
    status, found = losses(dataclasses.replace(small, num_train_steps=25))
    assert status == "completed"
    assert [step for step, _ in found] == [10, 20, 25]
    assert found[-1][1] < found[0][1]
