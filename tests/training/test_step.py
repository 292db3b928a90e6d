"""The train step: purity, microbatches, one program for all numbers."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_lm import model
from jaxopt_lm.optimizers import OPTIMIZERS, SCHEDULES
from jaxopt_lm.training.loss import Batch
from jaxopt_lm.training.step import HParams, init_state, make_eval_step, make_train_step
from tests.conftest import TINY_MODEL
from tests.optimizers.worlds import slice_of
from tests.training.meshes import ROUNDING, gradients, relative_errors, zipfian

pytestmark = pytest.mark.usefixtures("standard_promotion")

ONE_LAYER = dataclasses.replace(TINY_MODEL, num_layers=1)
IN_FLOAT64 = dataclasses.replace(ONE_LAYER, param_dtype="float64", compute_dtype="float64")
HPARAMS = HParams(
    optimizer=OPTIMIZERS["adamw"](learning_rate=1e-2),
    schedule=SCHEDULES["warmup_cosine"](warmup_steps=2),
    num_train_steps=10,
    z_loss=1e-4,
    max_grad_norm=1.0,
    seed=np.uint32(0),
)


def some_batch(key=0, padded=False) -> Batch:
    tokens = jax.random.randint(jax.random.key(key), (8, 12), 0, TINY_MODEL.vocab_size)
    is_target = jnp.ones(tokens.shape)
    return Batch(tokens, is_target.at[1, 5:].set(0).at[6:].set(0) if padded else is_target)


@functools.cache
def step_of(config, num_microbatches=1):
    """Compiled once for a structure of the hyperparameters; the state is donated."""
    return jax.jit(make_train_step(config, num_microbatches), donate_argnums=0)


def run(config, hparams, steps=3, num_microbatches=1, padded=False):
    state, step = init_state(config, hparams), step_of(config, num_microbatches)
    lines = []
    for number in range(steps):
        state, metrics = step(state, some_batch(number, padded), hparams)
        lines.append({name: float(value) for name, value in metrics.items()})
    return state, lines


@slice_of("muon", "prodigy", "schedule_free_adamw", "sophia")
def test_every_optimizer_trains_at_its_default_rate(name):
    """50 steps of quickstart's optimizer on a tiny shape: all metrics finite, the loss lower by .3 nats."""
    optimizer = OPTIMIZERS[name](**({"calibration_steps": 5} if name == "frozen" else {}))
    steps = 50 + optimizer.calibration_steps
    hparams = HPARAMS._replace(optimizer=optimizer, num_train_steps=steps)
    step = make_train_step(ONE_LAYER)

    @jax.jit
    def train(state):
        return jax.lax.scan(lambda state, _: step(state, some_batch(), hparams), state, length=steps)

    state, metrics = train(init_state(ONE_LAYER, hparams))
    assert int(state.step) == steps
    for metric, values in metrics.items():
        assert np.isfinite(values).all(), metric
    assert metrics["train/loss"][-1] < metrics["train/loss"][0] - 0.3


def test_telemetry_is_among_the_metrics_where_asked_for():
    """The state, and the other metrics, are those of the step without it."""
    state, batch = init_state(ONE_LAYER, HPARAMS), some_batch()
    plain, metrics = jax.jit(make_train_step(ONE_LAYER))(state, batch, HPARAMS)
    step = make_train_step(ONE_LAYER, telemetry=True, token_counts=np.arange(64))
    after, more = jax.jit(step)(state, batch, HPARAMS)
    chex.assert_trees_all_close(after, plain, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close({name: more[name] for name in metrics}, metrics, rtol=1e-5)
    assert all(name.startswith("telemetry/") for name in more.keys() - metrics.keys())
    for name in ("effective_learning_rate/head/median", "head_second_moment/tenth_9", "grads_norm/mlp/layer_00"):
        assert float(more[f"telemetry/{name}"]) > 0


@pytest.mark.parametrize("name", ["sophia", pytest.param("sophia_h", marks=pytest.mark.full)])
def test_sophia_estimates_in_a_conditional_of_a_population_too(name):
    """The estimator's branch is in the program of members that differ in rate; batched counters make it a select."""
    members = [HPARAMS._replace(optimizer=OPTIMIZERS[name](learning_rate=rate)) for rate in (1e-3, 3e-3)]
    hparams = jax.tree.map(lambda *xs: jnp.asarray(xs), *members)
    shapes = jax.eval_shape(lambda: init_state(ONE_LAYER, members[0]))
    counters = jax.tree.map(lambda x: None if x.ndim == 0 and jnp.issubdtype(x.dtype, jnp.integer) else 0, shapes)

    def program(axes):
        state = jax.eval_shape(jax.vmap(lambda h: init_state(ONE_LAYER, h), out_axes=axes), hparams)
        step = jax.vmap(make_train_step(ONE_LAYER), in_axes=(axes, None, 0), out_axes=(axes, 0))
        return jax.jit(step).lower(state, some_batch(), hparams).as_text()

    assert "stablehlo.case" in program(counters)
    assert "stablehlo.case" not in program(jax.tree.map(lambda _: 0, shapes))


@pytest.mark.parametrize("name", ["sophia", pytest.param("sophia_h", marks=pytest.mark.full)])
def test_estimates_are_those_of_the_whole_batch(name, x64):
    """With microbatches the estimator sums over parts: every row's labels, and Sophia-H's one z, are drawn alike."""
    hparams = HPARAMS._replace(optimizer=OPTIMIZERS[name](learning_rate=1e-3, interval=1, b2=0.0))
    (whole, _), (parts, _) = (run(IN_FLOAT64, hparams, steps=2, num_microbatches=n, padded=True) for n in (1, 2))
    hessians = [optax.tree.get(state.opt_state, "hessian") for state in (whole, parts)]
    chex.assert_trees_all_close(*hessians, rtol=1e-6, atol=1e-12)


@functools.cache
def sophia_step():
    """Compiled once for a shape of the batch."""
    return jax.jit(make_train_step(IN_FLOAT64))


def sophia_steps(batches, seed=0, learning_rate=1e-3):
    """The states after each step of Sophia with an estimate at every one but the first, and their rates."""
    optimizer = OPTIMIZERS["sophia"](learning_rate=learning_rate, interval=1, b2=0.0, rho=0.04)
    hparams = HPARAMS._replace(optimizer=optimizer, seed=np.uint32(seed))
    step, states, rates = sophia_step(), [init_state(IN_FLOAT64, hparams)], []
    for batch in batches:
        state, metrics = step(states[-1], batch, hparams)
        states.append(state)
        rates.append(float(metrics["learning_rate"]))
    return states[1:], rates


def test_sophia_divides_by_the_number_of_targets(x64):
    """59 of the 96 tokens are: u = sign(m) min(abs(m) / (rho n h), 1)."""
    (before, after), (_, rate) = sophia_steps([some_batch(0, padded=True), some_batch(1, padded=True)])
    mu, hessian = (optax.tree.get(after.opt_state, name) for name in ("mu", "hessian"))
    leaves = zip(*map(jax.tree.leaves, (before.params, after.params, mu, hessian)), strict=True)
    found, expected = [], []
    for p, q, m, h in leaves:
        found.append(np.ravel((p - q) / rate))
        expected.append(np.ravel(jnp.sign(m) * jnp.minimum(jnp.abs(m) / (0.04 * 59 * h + 1e-15), 1)))
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-9)
    assert 0.1 < np.mean(np.abs(np.concatenate(expected)) < 1) < 0.9


def test_rows_without_a_target_change_no_estimate(x64):
    padded = [some_batch(number, padded=True) for number in (0, 1)]
    with_rows, _ = sophia_steps(padded)
    without, _ = sophia_steps([jax.tree.map(lambda x: x[:6], batch) for batch in padded])
    chex.assert_trees_all_close(with_rows[-1], without[-1], rtol=1e-9, atol=1e-14)


def test_every_estimate_has_draws_of_its_own(x64):
    """At parameters that stay and on one batch, by step and by the run's seed."""
    same = [some_batch()] * 3
    (_, second, third), _ = sophia_steps(same, learning_rate=0.0)
    (_, other, _), _ = sophia_steps(same, seed=1, learning_rate=0.0)
    heads = [optax.tree.get(state.opt_state, "hessian")["head"] for state in (second, third, other)]
    assert not np.allclose(heads[0], heads[1])
    assert not np.allclose(heads[0], heads[2])


def test_a_calibration_moves_nothing_and_then_the_schedule_begins():
    optimizer = OPTIMIZERS["frozen"](calibration_steps=3, learning_rate=1e-2, weight_decay=0.1)
    hparams = HPARAMS._replace(optimizer=optimizer, num_train_steps=8)
    before = init_state(ONE_LAYER, hparams).params
    still, lines = run(ONE_LAYER, hparams, steps=3)
    chex.assert_trees_all_equal(still.params, before)
    assert [line["learning_rate"] for line in lines] == [0.0] * 3
    _, lines = run(ONE_LAYER, hparams, steps=8)
    plain = [float(1e-2 * hparams.schedule.multiplier(count, 5)) for count in range(5)]
    assert [line["learning_rate"] for line in lines[3:]] == pytest.approx(plain)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (OPTIMIZERS["adamw"](learning_rate=0.2), {"learning_rate": 0.2}),
        (
            OPTIMIZERS["hybrid"](learning_rate=0.2, adaptive=OPTIMIZERS["adamw"](learning_rate=1e-3)),
            {"learning_rate": 0.2, "learning_rate/sgd": 0.2, "learning_rate/adaptive": 1e-3},
        ),
        (OPTIMIZERS["prodigy"](learning_rate=0.2, first_estimate=1e-3), {"learning_rate": 0.2e-3}),
    ],
    ids=["adamw", "hybrid", "prodigy"],
)
def test_metrics_show_the_rates_applied(optimizer, expected):
    hparams = HPARAMS._replace(optimizer=optimizer, schedule=SCHEDULES["constant"]())
    _, (line,) = run(ONE_LAYER, hparams, steps=1)
    assert {name: value for name, value in line.items() if "learning_rate" in name} == pytest.approx(expected)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("num_microbatches", [pytest.param(2, marks=pytest.mark.full), 8])
def test_microbatches_are_the_whole_batch(num_microbatches, padded, x64):
    whole, whole_lines = run(IN_FLOAT64, HPARAMS, padded=padded)
    parts, parts_lines = run(IN_FLOAT64, HPARAMS, num_microbatches=num_microbatches, padded=padded)
    chex.assert_trees_all_close(whole, parts, rtol=1e-8, atol=1e-10)
    for a, b in zip(whole_lines, parts_lines, strict=True):
        assert a == pytest.approx(b, rel=1e-9)


def test_metrics_say_what_they_are(x64):
    hparams = HPARAMS._replace(optimizer=OPTIMIZERS["sgdw"](learning_rate=0.5, momentum=0.0), z_loss=0.25)
    state, batch = init_state(IN_FLOAT64, hparams), some_batch()

    def loss(params):
        logits = model.logits(IN_FLOAT64, params, batch.tokens)[:, :-1]
        log_z = jax.nn.logsumexp(logits, -1)
        ce = (log_z - jnp.take_along_axis(logits, batch.tokens[:, 1:, None], -1)[..., 0]).mean()
        z = jnp.square(log_z).mean()
        return ce + 0.25 * z, (ce, z)

    (_, (ce, z)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.params)
    norm = float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))))
    rate = 0.5 * (0.1 + 0.9 / 2)
    scale = rate * min(1.0, 1.0 / (norm + 1e-6))
    expected = jax.tree.map(lambda p, g: p - scale * g, state.params, grads)
    size = sum(g.size for g in jax.tree.leaves(grads))
    after, metrics = jax.jit(make_train_step(IN_FLOAT64))(state, batch, hparams)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-6)
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
        {
            "train/loss": float(ce),
            "train/log_z_squared": float(z),
            "grads/norm": norm,
            "learning_rate": rate,
            "updates/rms": scale * norm / size**0.5,
            "params/norm": float(jnp.sqrt(sum(jnp.sum(p**2) for p in jax.tree.leaves(expected)))),
        },
        rel=1e-6,
    )


@pytest.mark.parametrize(
    "name", ["adamw", *(pytest.param(name, marks=pytest.mark.full) for name in ("sophia", "sgdw", "lion", "frozen"))]
)
def test_one_program_for_all_numbers_and_a_population(name):
    """Changing any number compiles nothing; vmapped with an unbatched counter, members equal their solo runs."""
    step = make_train_step(ONE_LAYER)
    chosen = [
        HPARAMS._replace(optimizer=OPTIMIZERS[name](learning_rate=1e-3), z_loss=1e-3),
        HPARAMS._replace(
            optimizer=OPTIMIZERS[name](learning_rate=3e-3, weight_decay=0.1),
            schedule=SCHEDULES["warmup_cosine"](warmup_steps=5, end_fraction=0.0),
            num_train_steps=20,
            max_grad_norm=0.3,
        ),
    ]
    solo_step, solo = jax.jit(step), []
    for hparams in chosen:
        state = init_state(ONE_LAYER, hparams)
        for number in range(2):
            state, _ = solo_step(state, some_batch(number), hparams)
        solo.append(state)
    assert solo_step._cache_size() == 1

    hparams = jax.tree.map(lambda *xs: jnp.asarray(xs), *chosen)
    shapes = jax.eval_shape(lambda: init_state(ONE_LAYER, chosen[0]))
    axes = jax.tree.map(lambda x: None if x.ndim == 0 and jnp.issubdtype(x.dtype, jnp.integer) else 0, shapes)
    init = jax.vmap(lambda h: init_state(ONE_LAYER, h), out_axes=axes)
    population = jax.jit(jax.vmap(step, in_axes=(axes, None, 0), out_axes=(axes, 0)))
    state = init(hparams)
    for number in range(2):
        state, _ = population(state, some_batch(number), hparams)
    assert state.step.shape == ()
    for member, alone in enumerate(solo):
        mine = jax.tree.map(lambda leaf, axis, i=member: leaf if axis is None else leaf[i], state, axes)
        if name in ("adamw", "sgdw"):  # a sign turns rounding into a whole step
            chex.assert_trees_all_close(mine, alone, rtol=2e-3, atol=2e-5)
        chex.assert_trees_all_equal_shapes_and_dtypes(mine, alone)


def test_evaluation_is_cross_entropy_alone():
    params = jax.jit(model.init, static_argnums=0)(ONE_LAYER, jax.random.key(0))
    batch = some_batch(padded=True)
    ce, count = jax.jit(make_eval_step(ONE_LAYER))(params, batch)
    logits = jax.jit(model.logits, static_argnums=0)(ONE_LAYER, params, batch.tokens)
    log_p = jax.nn.log_softmax(logits)[:, :-1]
    picked = jnp.take_along_axis(log_p, batch.tokens[:, 1:, None], -1)[..., 0]
    np.testing.assert_allclose(ce, -jnp.sum(picked * batch.is_target[:, 1:]), rtol=1e-5)
    assert float(count) == float(batch.is_target[:, 1:].sum())


def test_no_clipping_is_structure():
    grads_far_above = HPARAMS._replace(optimizer=OPTIMIZERS["sgdw"](learning_rate=1e-3, momentum=0.0))
    _, clipped = run(ONE_LAYER, grads_far_above._replace(max_grad_norm=1e-3), steps=1)
    _, free = run(ONE_LAYER, grads_far_above._replace(max_grad_norm=None), steps=1)
    ratio = free[0]["updates/rms"] / clipped[0]["updates/rms"]
    assert ratio == pytest.approx((free[0]["grads/norm"] + 1e-6) / 1e-3, rel=1e-4)


@pytest.mark.parametrize("tied", [False, pytest.param(True, marks=pytest.mark.full)], ids=["untied", "tied"])
def test_gradients_in_bfloat16_are_those_in_float32_to_rounding(tied):
    """Of every parameter, on tokens as uneven as words are: no sum, of a frequent token's row say, stalls."""
    expected = gradients(zipfian(tied, "float32"))
    for parts in (1, 4):
        errors = relative_errors(gradients(zipfian(tied, "bfloat16", num_microbatches=parts)), expected)
        assert max(errors.values()) < ROUNDING, (parts, errors)


def test_parts_of_bfloat16_parameters_add_up_in_float32():
    """The gradient's error stays that of one rounding to bfloat16, 2^-9, and does not grow with the number of parts."""

    wide = zipfian(False, "float32")
    params = jax.tree.map(lambda p: p.astype("bfloat16"), model.init(wide.model, jax.random.key(0)))

    def found(dtype, parts):
        decoder = dataclasses.replace(wide.model, param_dtype=dtype)
        config = dataclasses.replace(wide, model=decoder, num_microbatches=parts)
        return gradients(config, jax.tree.map(lambda p: p.astype(dtype), params))

    expected = found("float32", 1)
    for parts in (1, 128):
        errors = relative_errors(found("bfloat16", parts), expected)
        assert max(errors.values()) < 2.5e-3, (parts, errors)


def test_norms_of_bfloat16_parameters_are_summed_in_float32():
    config = dataclasses.replace(TINY_MODEL, num_layers=2, param_dtype="bfloat16")
    hparams = HPARAMS._replace(optimizer=OPTIMIZERS["sgdw"](learning_rate=0.5, momentum=0.5), max_grad_norm=None)
    state, (metrics,) = run(config, hparams, steps=1)

    def norm(tree):
        return sum(float(np.square(np.asarray(x, np.float64)).sum()) for x in jax.tree.leaves(tree)) ** 0.5

    # XLA may take the norm of the parameters before they are rounded: 2e-5 apart. A sum in bfloat16 is wrong by tenths.
    assert metrics["params/norm"] == pytest.approx(norm(state.params), rel=1e-4)
    assert metrics["grads/norm"] == pytest.approx(norm(optax.tree.get(state.opt_state, "mu")), rel=1e-4)
