"""Decays near 1 given as Python numbers: float32 updates are those of float64 arithmetic with the same number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lm import optimizers as o
from jaxopt_lm.optimizers import OPTIMIZERS
from jaxopt_lm.optimizers.trees import bias_correction, decay_and_add, ema
from tests.optimizers.worlds import FIELDS, LABELS, random_tree, slice_of, tiny_params, update_once

pytestmark = pytest.mark.usefixtures("standard_promotion")

NEAR_ONE = 0.99999
DECAYS = ("b1", "b2", "b3", "b2_cap", "momentum", "vector_b1", "vector_b2", "b1_first", "b1_last")
SHAPES = {"embed": (6, 4), "query": (4, 2, 2), "mlp": (4, 4), "norm": (4,), "head": (4, 6)}


def with_decays_near_one(name):
    """The optimizer's config, every decay in it .99999; SOAP's bases turn on rounding, so they stay."""
    cls = OPTIMIZERS[name]
    fields = {field: NEAR_ONE for field in DECAYS if hasattr(cls(), field) and getattr(cls(), field) is not None}
    fields |= {"interval": 100} if name == "soap" else {}
    fields |= {"b1_first": 0.9, "b1_last": NEAR_ONE} if name == "layer_adaptive_adamw" else {}
    fields |= {"dampening": NEAR_ONE} if name == "sgdw" else {}
    fields |= {"weight_decay": 0.1} if name == "lamb" else {}  # without it, the trust ratio hides a factor
    fields |= {"learning_rate": 1.0} if name == "schedule_free_adamw" else {}  # it gives differences of parameters
    return cls(**(FIELDS[name] | fields))


def last_updates(config, dtype, labels, params, grads):
    """Updates of the last of `grads`, all of it computed in `dtype`."""
    params, *grads = (jax.tree.map(lambda x: jnp.asarray(x, dtype), tree) for tree in (params, *grads))
    state, updates = config.make(1.0, labels).init(params), params
    update = jax.jit(lambda state, g: update_once(config, labels, state, params, g))
    for g in grads:
        updates, state = update(state, g)
    return jax.tree.map(np.asarray, updates)


@slice_of("adafactor", "adopt", "almvr", "hybrid", "lamb", "mars", "muon", "prodigy", "schedule_free_adamw", "sgdw")
def test_no_digits_of_a_python_number_are_lost(name):
    shapes = {leaf: jax.ShapeDtypeStruct(shape, jnp.float32) for leaf, shape in SHAPES.items()}
    params, *grads = (jax.tree.map(np.asarray, random_tree(shapes, t)) for t in range(-1, 3))
    config = with_decays_near_one(name)
    found = last_updates(config, jnp.float32, LABELS, params, grads)
    with jax.enable_x64(True):
        expected = last_updates(config, jnp.float64, LABELS, params, grads)
    for leaf, right in expected.items():
        np.testing.assert_allclose(found[leaf], right, rtol=3e-5, atol=1e-5 * np.abs(right).max(), err_msg=leaf)


def test_nor_of_a_momentum_per_layer():
    params, labels = tiny_params()
    params, *grads = (jax.tree.map(np.asarray, tree) for tree in (params, *(random_tree(params, t) for t in range(3))))
    config = o.LayerAdaptiveAdamWConfig(b1_first=0.9, b1_last=NEAR_ONE)
    found = last_updates(config, jnp.float32, labels, params, grads)
    with jax.enable_x64(True):
        expected = last_updates(config, jnp.float64, labels, params, grads)
    for mine, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, right, rtol=3e-5, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize(
    "name",
    [
        *("adan", "ademamix", "schedule_free_adamw", "hybrid"),
        *(pytest.param(name, marks=pytest.mark.full) for name in ("adamw", "lamb", "muon")),
    ],
)
def test_traced_decays_are_what_they_were_rounded_to(name):
    """As an argument of a jitted function a number is float32: right to rounding of the number that it is then."""
    shapes = {leaf: jax.ShapeDtypeStruct(shape, jnp.float32) for leaf, shape in SHAPES.items()}
    params, *grads = (jax.tree.map(np.asarray, random_tree(shapes, t)) for t in range(-1, 3))
    config = with_decays_near_one(name)
    rounded = jax.tree.map(lambda x: float(np.float32(x)), config)

    @jax.jit
    def traced(config):
        state = config.make(1.0, LABELS).init(params)
        updates = params
        for g in grads:
            updates, state = update_once(config, LABELS, state, params, g)
        return updates

    found = traced(config)
    with jax.enable_x64(True):
        expected = last_updates(rounded, jnp.float64, LABELS, params, grads)
    for leaf, right in expected.items():
        np.testing.assert_allclose(found[leaf], right, rtol=3e-5, atol=1e-5 * np.abs(right).max(), err_msg=leaf)


@pytest.mark.parametrize("decay", [0.0, 0.1, 0.95, 0.9999, NEAR_ONE])
def test_averages_of_many_steps(decay, optimized):
    """After a time 1 / (1 - decay) too: with a rounded .99999 they would be off by 1.3e-3."""

    @jax.jit
    def average(steps):
        return jax.lax.fori_loop(0, steps, lambda i, m: ema(m, 1 + 0.5 * jnp.sin(1.0 * i), decay), jnp.zeros(()))

    for steps in (1, 3, 1000, 400_000):
        i = np.arange(steps)
        exact = np.sum((1 - decay) * decay ** (steps - 1.0 - i) * (1 + 0.5 * np.sin(i)))
        np.testing.assert_allclose(average(steps), exact, rtol=3e-5)


@pytest.mark.parametrize("decay", [0.0, 0.1, 0.95, 0.9999, NEAR_ONE, 1 - 1e-7])
def test_bias_corrections(decay):
    counts = np.asarray([1, 3, 1000, 200_000])
    exact = -np.expm1(counts * np.log(decay)) if decay else np.ones(4)
    np.testing.assert_allclose(bias_correction(decay, jnp.asarray(counts, jnp.int32), jnp.float32), exact, rtol=5e-7)


def test_an_infinite_average_stays():
    for decay in (0.25, 0.95, NEAR_ONE):
        for added in (0.0, 1.0, jnp.inf):
            assert decay_and_add(jnp.asarray(jnp.inf), jnp.asarray(added), decay) == jnp.inf
