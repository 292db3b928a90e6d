"""The last link of every chain: the learning rate, applied and recorded."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.trees import map_params


class ScaleByRateState(NamedTuple):
    """What `scale_by_rate` applied last; zero before the first update.

    Attributes:
      learning_rate: a scalar, or where parameters have multipliers the parameters' tree, each leaf broadcastable to its
        parameter.
    """

    learning_rate: Any


def scale_by_rate(
    learning_rate: ArrayLike, multipliers: Callable[[Any], Any] | None = None
) -> optax.GradientTransformation:
    """`optax.scale_by_learning_rate` that keeps the rate it applied in its state, where `telemetry` reads it.

    Args:
      learning_rate: a number or a traced scalar.
      multipliers: from the tree of updates to one of factors, each broadcastable to its update.
    """

    def rates(updates):
        rate = jnp.asarray(learning_rate).astype(jnp.result_type(float))
        if multipliers is None:
            return rate
        return map_params(lambda _, m: rate * jnp.asarray(m).astype(rate.dtype), updates, multipliers(updates))

    def init(params):
        return ScaleByRateState(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(rates, params)))

    def update(updates, state, params=None):
        del state, params
        rate = rates(updates)
        per_param = map_params(lambda _: rate, updates) if multipliers is None else rate
        scaled = map_params(lambda u, r: -r.astype(u.dtype) * u, updates, per_param)
        return scaled, ScaleByRateState(rate)

    return optax.GradientTransformation(init, update)
