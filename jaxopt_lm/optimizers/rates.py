"""The last link of every chain: the learning rate, applied and recorded."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.trees import map_params, next_count


class ScaleByRateState(NamedTuple):
    """What was in force at the last update; zeros before the first.

    Attributes:
      count: updates made so far, int32.
      learning_rate: a scalar, or where parameters have multipliers the parameters' tree, each leaf broadcastable to its
        parameter.
      moments: by which second moments are to be read: b1, b2, eps, eps_root, as far as they apply.
    """

    count: jax.Array
    learning_rate: Any
    moments: dict[str, jax.Array]


def scale_by_rate(
    learning_rate: ArrayLike,
    multipliers: Callable[[Any], Any] | None = None,
    moments: Mapping[str, ArrayLike | Callable[[jax.Array], ArrayLike]] | None = None,
) -> optax.GradientTransformation:
    """`optax.scale_by_learning_rate` that keeps what was in force in its state, where `telemetry` reads it.

    Args:
      learning_rate: a number or a traced scalar.
      multipliers: from the tree of updates to one of factors, each broadcastable to its update.
      moments: numbers to record beside the rate, or functions of the step counted from 1.
    """

    def scalar(x):
        return jnp.asarray(x).astype(jnp.result_type(float))

    def in_force(updates, count):
        rate = scalar(learning_rate)
        if multipliers is not None:
            rate = map_params(lambda _, m: rate * scalar(m), updates, multipliers(updates))
        recorded = {name: scalar(x(count) if callable(x) else x) for name, x in (moments or {}).items()}
        return ScaleByRateState(count, rate, recorded)

    def init(params):
        shapes = jax.eval_shape(in_force, params, jnp.zeros((), jnp.int32))
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def update(updates, state, params=None):
        del params
        state = in_force(updates, next_count(state.count))
        rate = state.learning_rate
        rates = map_params(lambda _: rate, updates) if multipliers is None else rate
        return map_params(lambda u, r: -r.astype(u.dtype) * u, updates, rates), state

    return optax.GradientTransformation(init, update)


def record_rate(learning_rate: ArrayLike, moments: Mapping[str, ArrayLike]) -> optax.GradientTransformation:
    """The record of `scale_by_rate` behind a transformation that has scaled its updates itself."""
    recorded = scale_by_rate(learning_rate, moments=moments)

    def update(updates, state, params=None):
        return updates, recorded.update(updates, state, params)[1]

    return optax.GradientTransformation(recorded.init, update)
