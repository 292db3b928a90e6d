"""Programs: one for every config of the same structure; populations of members that differ in numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lm.config import DataConfig, TrainConfig
from jaxopt_lm.errors import InputError
from jaxopt_lm.optimizers import OPTIMIZERS
from jaxopt_lm.optimizers.schedules import WarmupCosineConfig
from jaxopt_lm.training import population
from jaxopt_lm.training.loss import Batch
from jaxopt_lm.training.program import Program
from jaxopt_lm.training.step import HParams
from tests.conftest import TINY_MODEL
from tests.optimizers.worlds import config_of, slice_of

pytestmark = pytest.mark.usefixtures("standard_promotion")

STEPS = 20
BASE = TrainConfig(
    workdir="unused",
    model=dataclasses.replace(TINY_MODEL, num_layers=2, scan_layers=True),
    data=DataConfig(vocab_size=64),
    schedule=WarmupCosineConfig(warmup_steps=2),
    num_train_steps=40,
    global_batch_size=4,
    length=12,
)


def batch(step: int) -> Batch:
    tokens = np.random.default_rng(step).integers(0, 64, (BASE.global_batch_size, BASE.length)).astype(np.int32)
    return Batch(jnp.asarray(tokens), jnp.ones(tokens.shape, jnp.float32))


def base_of(name: str) -> TrainConfig:
    """With this optimizer; soap's matrices are square, for a rank-deficient gradient has many eigenbases."""
    if name != "soap":
        return dataclasses.replace(BASE, optimizer=config_of(name))
    square = dataclasses.replace(BASE.model, mlp_dim=16, norm="rmsnorm")
    return dataclasses.replace(BASE, model=square, optimizer=config_of(name, max_dim=16))


def members_of(base: TrainConfig, count: int = 4) -> list[TrainConfig]:
    """Runs that differ in seed, rate, decay, betas, clipping and z-loss."""
    found = []
    for i in range(count):
        fields = {"learning_rate": base.optimizer.learning_rate * (1 + i), "weight_decay": 0.1 * i}
        betas = {"b1": 0.8 + 0.03 * i, "b2": 0.95 + 0.01 * i}
        fields |= {name: value for name, value in betas.items() if hasattr(base.optimizer, name)}
        optimizer = dataclasses.replace(base.optimizer, **fields)
        found.append(dataclasses.replace(base, optimizer=optimizer, seed=7 * i, max_grad_norm=0.5 + i, z_loss=1e-4 * i))
    return found


def trained(program: Program, hparams: HParams, state=None, steps: int = STEPS):
    """(State, losses) after some steps."""
    state, losses = program.init(hparams) if state is None else state, []
    for step in range(steps):
        state, metrics = program.step(state, batch(step), hparams)
        losses.append(np.asarray(metrics["train/loss"]))
    return state, losses


def conditionals(program: Program, hparams: HParams) -> int:
    text = program.step.lower(program.layout, batch(0), hparams).compile().as_text()
    assert text is not None
    return text.count(" conditional(")


def assert_members_equal_their_solo_runs(base: TrainConfig, bound: float):
    configs = members_of(base)
    solo, together = Program.of(base), Program.of(base, members=len(configs))
    states, losses = trained(together, population.stack([HParams.of(config) for config in configs]))
    assert states.step.shape == ()
    for i, config in enumerate(configs):
        state, alone = trained(Program.of(config), HParams.of(config))
        np.testing.assert_allclose([loss[i] for loss in losses], alone, rtol=bound)
        for (path, x), y in zip(
            jax.tree.leaves_with_path(population.member(states, i)), jax.tree.leaves(state), strict=True
        ):
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            if jnp.issubdtype(y.dtype, jnp.floating):
                scale = float(jnp.max(jnp.abs(y), initial=0))
                np.testing.assert_allclose(x, y, rtol=0, atol=bound * scale, err_msg=jax.tree_util.keystr(path))
            else:
                np.testing.assert_array_equal(x, y)
    assert Program.of(configs[-1]) is solo


@slice_of("sophia")
def test_members_of_a_population_equal_their_solo_runs(name, x64):
    """Four that differ in every kind of number and in their seeds, after 20 steps, to 1e-8 of a leaf's largest."""
    base = base_of(name)
    wide = dataclasses.replace(base.model, param_dtype="float64", compute_dtype="float64")
    assert_members_equal_their_solo_runs(dataclasses.replace(base, model=wide), 1e-8)


@slice_of("adamw")
def test_losses_of_members_in_float32_are_those_of_their_solo_runs(name):
    configs = members_of(base_of(name))
    together = Program.of(configs[0], members=len(configs))
    _, losses = trained(together, population.stack([HParams.of(config) for config in configs]))
    # A sign or an eigenbasis turns with a rounding; in float64 they agree as all do.
    bound = 1e-3 if name in ("lion", "signum", "soap") else 1e-5
    for i, config in enumerate(configs):
        _, alone = trained(Program.of(config), HParams.of(config))
        np.testing.assert_allclose([loss[i] for loss in losses], alone, rtol=bound)


@pytest.mark.full
def test_members_in_bfloat16_have_their_runs_dtypes():
    narrow = dataclasses.replace(BASE.model, param_dtype="bfloat16", compute_dtype="bfloat16")
    configs = members_of(dataclasses.replace(BASE, model=narrow), 2)
    together = Program.of(configs[0], members=2)
    states, losses = trained(together, population.stack([HParams.of(config) for config in configs]))
    for i, config in enumerate(configs):
        state, alone = trained(Program.of(config), HParams.of(config))
        np.testing.assert_allclose([loss[i] for loss in losses], alone, rtol=0.02)
        same = jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), population.member(states, i), state)
        assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", ["sophia", pytest.param("soap", marks=pytest.mark.full)])
def test_conditionals_stay_conditionals(name):
    """Of a population too: that of the estimate, or of the eigenbasis."""
    base = dataclasses.replace(BASE, optimizer=config_of(name))
    configs = members_of(base, 2)
    alone = conditionals(Program.of(base), HParams.of(base))
    together = conditionals(Program.of(base, members=2), population.stack([HParams.of(config) for config in configs]))
    assert alone == together >= 1


@slice_of("adalayer_star")
def test_a_member_that_is_nan_leaves_the_others_bitwise(name):
    """From the sixth step on."""
    configs = members_of(dataclasses.replace(BASE, optimizer=config_of(name)))
    program, hparams = Program.of(configs[0], members=4), population.stack([HParams.of(config) for config in configs])
    sound, _ = trained(program, hparams, steps=5)
    broken = jax.tree.map(jnp.copy, sound)  # states are donated
    broken = broken._replace(params=jax.tree.map(lambda p: p.at[1].set(jnp.nan), broken.params))
    sound, losses = trained(program, hparams, sound)
    found, found_losses = trained(program, hparams, broken)
    assert np.isnan([loss[1] for loss in found_losses]).all()
    assert np.isfinite(losses).all()
    for i in (0, 2, 3):
        assert [loss[i] for loss in found_losses] == [loss[i] for loss in losses]
        for x, y in zip(*(jax.tree.leaves(population.member(state, i)) for state in (found, sound)), strict=True):
            np.testing.assert_array_equal(x, y)


def test_runs_go_on_as_a_population_and_its_members_as_runs():
    """States are donated: those that were put together, or taken apart, are whole still."""
    configs = members_of(dataclasses.replace(BASE, optimizer=config_of("adamw")))
    numbers = [HParams.of(config) for config in configs]
    alone, together = Program.of(configs[0]), Program.of(configs[0], members=4)
    states = [trained(alone, each)[0] for each in numbers]
    stepped, _ = together.step(population.stack(states), batch(STEPS), population.stack(numbers))
    for i, (state, hparams) in enumerate(zip(states, numbers, strict=True)):
        expected, _ = alone.step(state, batch(STEPS), hparams)
        found = population.member(stepped, i)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
        assert int(alone.step(found, batch(0), hparams)[0].step) == int(stepped.step) + 1


def test_what_is_no_population_is_refused():
    hparams = HParams.of(BASE)
    with pytest.raises(InputError, match="differ in more than numbers"):
        population.stack([hparams, HParams.of(dataclasses.replace(BASE, max_grad_norm=None))])
    state = Program.of(BASE).init(hparams)
    later = state._replace(step=state.step + 3)
    with pytest.raises(InputError, match=r"population: step is \[0, 3\] in its members; give states of the same step"):
        population.stack([state, later])
    for given, named in ((hparams, "one run"), (population.stack([hparams] * 2), "2")):
        with pytest.raises(InputError, match=f"hparams: are of {named}, the program is of 4 members"):
            Program.of(BASE, members=4).init(given)


def test_numbers_and_seeds_compile_nothing_new():
    """Neither `init` nor the step nor the evaluation; a number may be written as an integer."""
    base = dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, mlp_dim=24))  # which no other test has
    optimizer = dataclasses.replace(base.optimizer, learning_rate=1, b1=0, eps=1e-6)
    schedule = WarmupCosineConfig(warmup_steps=4, end_fraction=0)
    fields = {"num_train_steps": 20, "seed": 3, "max_grad_norm": 2, "z_loss": 0, "workdir": "x"}
    other = dataclasses.replace(base, optimizer=optimizer, schedule=schedule, **fields)
    compiled = []

    def listen(event: str, seconds: float, **_) -> None:
        compiled.append(event)

    def run(config):
        program = Program.of(config)
        state, _ = trained(program, HParams.of(config))
        program.evaluate(program.eval_params(state), batch(0))
        return program

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        first = run(base)
        assert compiled.count("/jax/core/compile/backend_compile_duration") >= 3
        compiled.clear()
        assert run(other) is first
        assert [event for event in compiled if "/compile/" in event] == []
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
    "change",
    [
        {"max_grad_norm": None},
        {"num_microbatches": 2},
        {"optimizer": OPTIMIZERS["adamw"](mu_dtype="bfloat16")},
        {"optimizer": OPTIMIZERS["lion"]()},
        {"schedule": WarmupCosineConfig(warmup_fraction=0.5)},
        {"model": dataclasses.replace(BASE.model, scan_layers=False)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_structures_are_other_programs(change):
    assert Program.of(dataclasses.replace(BASE, **change)) is not Program.of(BASE)
