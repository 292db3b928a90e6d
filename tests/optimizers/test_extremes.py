"""Every optimizer where gradients are another dtype, zero, huge or complex, and where buffers are donated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_lm import optimizers as o
from jaxopt_lm.optimizers import OPTIMIZERS
from jaxopt_lm.optimizers.trees import with_wide_state
from tests.optimizers.worlds import LABELS, config_of, random_tree, slice_of, update_once

pytestmark = pytest.mark.usefixtures("standard_promotion")

every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
SHAPES = {"embed": (6, 4), "query": (4, 2, 2), "mlp": (4, 5), "norm": (4,), "head": (4, 6)}
CURVATURE = {"sampled_grads": lambda: draw(0), "batch_tokens": 100, "hutchinson": lambda: draw(0)}


def draw(step, dtype=jnp.float32, scale=1.0):
    return random_tree({leaf: jax.ShapeDtypeStruct(shape, dtype) for leaf, shape in SHAPES.items()}, step, dtype, scale)


def wrapped(tx):
    """A transformation as it is used: alone and in optax's combinators."""
    groups = {leaf: "mlp" if leaf == "mlp" else "rest" for leaf in SHAPES}
    return {
        "alone": tx,
        "chain": optax.chain(optax.clip(1.0), tx),
        "partition": optax.partition({"mlp": tx, "rest": tx}, groups),
        "masked": optax.masked(tx, {leaf: leaf != "norm" for leaf in SHAPES}),
    }


@pytest.mark.parametrize(("of_params", "of_grads"), [("float32", "bfloat16"), ("bfloat16", "float32")])
@every_optimizer
def test_updates_have_the_parameters_dtype(name, of_params, of_grads):
    params, grads = draw(-1, of_params), draw(0, of_grads)
    for where, tx in wrapped(config_of(name, weight_decay=0.1).make(1.0, LABELS)).items():
        update = optax.with_extra_args_support(tx).update
        state = jax.eval_shape(tx.init, params)
        updates, after = jax.eval_shape(functools.partial(update, **CURVATURE), grads, state, params)
        for leaf in [leaf for leaf in SHAPES if (where, leaf) != ("masked", "norm")]:
            assert updates[leaf].dtype == of_params, (where, leaf)
        assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)


@slice_of("adamw", "frozen", "hybrid", "muon", "prodigy")
def test_gradients_in_bfloat16_are_computed_on_in_float32(name):
    params, grads = draw(-1), draw(0, jnp.bfloat16)
    config = config_of(name)
    state = config.make(1.0, LABELS).init(params)
    update = jax.jit(lambda g: update_once(config, LABELS, state, params, g)[0])
    found, expected = update(grads), update(jax.tree.map(lambda g: g.astype(jnp.float32), grads))
    for leaf in SHAPES:
        np.testing.assert_allclose(found[leaf], expected[leaf], rtol=1e-6, atol=1e-8)


def test_without_parameters_updates_have_the_gradients_dtype():
    tx = with_wide_state(optax.trace(0.9))
    updates, _ = tx.update(draw(0, jnp.bfloat16), tx.init(draw(-1)))
    assert {x.dtype.name for x in jax.tree.leaves(updates)} == {"bfloat16"}


def test_a_heavy_ball_of_bfloat16_gradients_keeps_its_number():
    tx = o.heavy_ball(0.98)
    _, state = tx.update(jnp.ones((), jnp.bfloat16), tx.init(jnp.ones(())))
    m, _ = tx.update(jnp.zeros((), jnp.bfloat16), state)
    np.testing.assert_allclose(m, 0.98, rtol=1e-7)


@functools.cache
def step_of(name):
    """An update whose state and parameters are donated."""
    config = config_of(name)

    def step(state, params, g):
        updates, state = update_once(config, LABELS, state, params, g)
        return state, optax.apply_updates(params, updates)

    return config.make(1.0, LABELS).init, jax.jit(step, donate_argnums=(0, 1), keep_unused=True)


def train(name, gradients):
    init, step = step_of(name)
    params = draw(-1)
    state = init(params)
    for g in gradients:
        donated = jax.tree.leaves((state, params))
        state, params = step(state, params, g)
        assert all(x.is_deleted() for x in donated if x.size)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    return state, params


@every_optimizer
def test_steps_of_zero_gradients_stay_finite_and_all_buffers_can_be_donated(name):
    """The same gradients at every step: a state that kept their buffer would take it from them."""
    zeros, some = jax.tree.map(jnp.zeros_like, draw(0)), draw(1)
    state, _ = train(name, [zeros] * 3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    state, params = train(name, [zeros, zeros, some, some, some])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    assert not np.allclose(params["head"], draw(-1)["head"], atol=1e-7)


def addresses(tree):
    return [x.unsafe_buffer_pointer() for x in jax.tree.leaves(tree) if x.size]


@every_optimizer
def test_a_state_has_buffers_of_its_own(name):
    """In eager use as in jit, whose outputs are the inputs where nothing is computed."""
    init, _ = step_of(name)
    assert_own_buffers(init)


def test_a_state_of_a_function_of_optaxs_has_buffers_of_its_own():
    assert_own_buffers(o.FromOptax("optax.contrib:prodigy").make(1.0, LABELS).init)


def assert_own_buffers(init):
    params = draw(-1)
    for start in (init, jax.jit(init)):
        found = addresses(start(params))
        assert not set(found) & set(addresses(params))
        assert len(found) == len(set(found))


@pytest.mark.parametrize("name", ["adan", "mars"])
def test_a_state_that_keeps_gradients_copies_them(name):
    params, labels, g = {"up": jnp.ones((2, 3))}, {"up": LABELS["mlp"]}, {"up": jnp.ones((2, 3))}
    tx = config_of(name).make(1.0, labels)
    _, state = tx.update(g, tx.init(params), params)
    assert not set(addresses(state)) & set(addresses(g))


@every_optimizer
def test_gradients_of_1e20_leave_parameters_finite(name):
    """Their squares are infinite in float32: where they divide, the parameter holds still."""
    huge = jax.tree.map(lambda g: 1e20 * jnp.sign(g), draw(1))
    _, params = train(name, [huge, huge, draw(2), draw(3)])
    if name in ("adamw", "frozen", "adafactor", "adafactor_big_vision", "soap"):
        np.testing.assert_array_equal(params["mlp"], draw(-1)["mlp"])


@every_optimizer
@pytest.mark.parametrize("nesting", ["alone", "masked"])
def test_complex_parameters_are_refused(name, nesting):
    params = draw(-1) | {"mlp": jnp.ones((4, 5), jnp.complex64)}
    tx = wrapped(config_of(name).make(1.0, LABELS))[nesting]
    with pytest.raises(
        o.InputError, match=r"^\w+Config: takes real arrays, has complex64; wrap it in optax\.contrib\."
    ):
        tx.init(params)


def test_parts_refuse_complex_parameters_too():
    with pytest.raises(o.InputError, match="this transformation: takes real arrays, has complex64"):
        o.scale_by_block_adam(0.9, 0.95, 1e-8).init(jnp.ones((), jnp.complex64))


def test_what_the_refusal_says_to_do_works():
    """Real and imaginary parts, each with a second moment of its own."""
    tx = optax.contrib.split_real_and_imaginary(o.adamw(learning_rate=0.1, weight_decay=0.0))
    g = jnp.asarray([3.0 - 4.0j, -1e-3j], jnp.complex64)
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(updates, [-0.1 + 0.1j, 0.1j], rtol=1e-6)
