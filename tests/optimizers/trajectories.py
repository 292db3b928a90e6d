"""Trajectories of an optimizer on the recorded leaves, for identities between optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from tests.optimizers.worlds import LABELS, random_tree, run

SHAPES = {"embed": (6, 4), "query": (4, 2, 3), "mlp": (4, 5), "norm": (4,), "head": (4, 6)}
D = {"b1": 0.9, "b2": 0.95, "eps": 1e-15, "learning_rate": 0.01}


def world(steps=6, scale=1.0):
    shapes = {leaf: jax.ShapeDtypeStruct(shape, jnp.float64) for leaf, shape in SHAPES.items()}
    return random_tree(shapes, -1, jnp.float64), [random_tree(shapes, t, jnp.float64, scale) for t in range(steps)]


def trajectory(config, steps=6, multiplier=1.0, scale=1.0):
    params, grads = world(steps, scale)
    return run(config, LABELS, params, grads, multiplier)[0]


def of_optax(tx, steps=6, scale=1.0):
    """The trajectory of an optax transformation."""
    params, grads = world(steps, scale)
    state, result = tx.init(params), []
    update = jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
        result.append(params)
    return result


def assert_equal(mine, other, leaves=tuple(SHAPES), rtol=1e-10, atol=1e-12):
    for a, b in zip(mine, other, strict=True):
        for leaf in leaves:
            np.testing.assert_allclose(a[leaf], b[leaf], rtol=rtol, atol=atol, err_msg=leaf)


def directions(tx, grads):
    """What a transformation makes of a list of gradient arrays."""
    state, result = jax.jit(tx.init)(grads[0]), []
    update = jax.jit(tx.update)
    for g in grads:
        u, state = update(g, state, g)
        result.append(u)
    return result
