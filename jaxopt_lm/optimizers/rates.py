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


def applied_rates(opt_state: optax.OptState) -> dict[str, jax.Array]:
    """The learning rates in force at the last update, by the part of the optimizer that they belong to.

    Args:
      opt_state: in any nesting of optax's; parts are groups of `optax.partition`.

    Returns:
      Scalars by part, names of nested groups joined by slashes; "" where there is one part alone. A part whose
      parameters have multipliers has two, the least and the greatest rate, named `PART/min` and `PART/max`.
    """
    records = _records(opt_state, ())
    if len(records) == 1:
        records = {(): next(iter(records.values()))}
    found = {}
    for part, rate in records.items():
        if isinstance(rate, jax.Array) and rate.ndim == 0:
            found["/".join(part)] = rate
            continue
        for name, of in (("min", jnp.min), ("max", jnp.max)):
            found["/".join((*part, name))] = of(jnp.stack([of(x) for x in jax.tree.leaves(rate)]))
    return found


def _records(node: Any, part: tuple[str, ...]) -> dict[tuple[str, ...], Any]:
    """Every rate that a state records, by the groups on the way to it."""
    if isinstance(node, ScaleByRateState):
        return {part: node.learning_rate}
    if isinstance(node, dict):
        return {at: rate for name, child in node.items() for at, rate in _records(child, (*part, str(name))).items()}
    children = node if isinstance(node, tuple | list) else ()
    return {at: rate for child in children for at, rate in _records(child, part).items()}


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
