"""Constructors: the function beside each config, for use in optax chains.

`construct` makes the optimizer of a config class from a constructor's arguments. Labels and masks may be functions of
the parameters: they are asked at `init` and at every `update`, with the very tree that these get.
"""

import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.labels import ROLES
from jaxopt_lm.optimizers.config import OptimizerConfig, by_count
from jaxopt_lm.optimizers.labelling import check_are_labels, is_function, labels_of, path_name, trained, with_mask
from jaxopt_lm.optimizers.trees import is_masked

Number = float | jax.Array | Callable[[jax.Array], Any]
"""A number, a traced scalar, or a schedule: a function from the count of updates made so far to a scalar."""
Labels = Any
"""A tree of `Label`s with the parameters' structure, a function from the parameters to one, or None."""
Mask = Any
"""What decays: a tree of bools with the parameters' structure, a function from the parameters to one, or None."""
MuDtype = jax.typing.DTypeLike | None
"""bfloat16, as a string or dtype, or None."""


def construct(
    config: type[OptimizerConfig],
    *,
    learning_rate: Number,
    labels: Labels,
    mask: Mask,
    mu_dtype: MuDtype,
    **fields: Any,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a config class as an optax transformation.

    What is no floating array is left alone: functions and integers of an equinox module.

    Args:
      config: the class.
      learning_rate: the peak rate.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; None where the optimizer
        treats every parameter alike.
      mask: in place of decay_roles: a tree of bools like the parameters, a prefix of it, or a function that gives one.
      mu_dtype: bfloat16, as a string or dtype, or None.
      **fields: the other fields. Every number may be a Python number, a traced scalar or a schedule: a function of the
        count of updates made so far, as in optax. An int is structure; None means the config's default, which
        `optax.inject_hyperparams` would turn into an array.

    Raises:
      InputError: a field out of its bounds, or labels where the rate belongs.
    """
    _check_rate(learning_rate)
    if mask is not None:
        fields["decay_roles"] = ROLES
    dtype = None if mu_dtype is None else jnp.dtype(mu_dtype).name
    fields = _structure(config, fields) | {"learning_rate": learning_rate, "mu_dtype": dtype}
    made = config(**fields)
    if not is_function(labels):
        check_are_labels(labels)
        if not _has_schedules(made):
            made.make(1.0, labels)  # refuses at once

    def of(tree):
        found = labels_of(labels, tree)
        return _scheduled(made, found if mask is None else with_mask(found, mask, tree))

    def init(params):
        tree = trained(params)
        return of(tree).init(tree)

    def update(updates, state, params=None, **extra_args):
        tree = trained(updates)
        moved = None if params is None else trained(_like(tree, params))
        new, state = of(tree).update(tree, state, moved, **extra_args)
        return jax.tree.map(lambda g, u: jnp.zeros_like(g) if u is None else u, updates, new), state

    return optax.GradientTransformationExtraArgs(init, update)


def _check_rate(rate: Any) -> None:
    number = isinstance(rate, int | float | np.ndarray | np.generic | jax.Array) and np.ndim(rate) == 0
    require(
        number or is_function(rate),
        f"learning_rate: must be a number or a schedule, is {type(rate).__name__}; give labels second, or as labels=",
    )


def _structure(config: type[OptimizerConfig], fields: dict[str, Any]) -> dict[str, Any]:
    """The fields without ints that are None, lists as tuples; an int that is an array is refused."""
    hints = typing.get_type_hints(config)
    ints = [name for name in fields if hints[name] is int and not name.endswith("_steps")]
    for name in ints:
        require(
            not isinstance(fields[name], jax.Array | np.ndarray),
            f"{name}: must be an int, is an array; for optax.inject_hyperparams name it in static_args",
        )
    given = {name: value for name, value in fields.items() if value is not None or name not in ints}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _like(updates, params):
    """The parameters that have updates."""

    def absent(node):
        return node is None or is_masked(node)

    return jax.tree.map(lambda u, p: u if absent(u) else p, updates, params, is_leaf=absent)


def _has_schedules(config: OptimizerConfig) -> bool:
    return any(callable(leaf) for leaf in jax.tree.leaves(config))


def _at(config: OptimizerConfig, count: Any) -> OptimizerConfig:
    """The config with its schedules evaluated at the count."""

    def value(path, leaf) -> Any:
        if not callable(leaf):
            return leaf
        found: Any = leaf(jnp.asarray(count, jnp.int32))
        if not (jax.tree_util.all_leaves([found]) and jnp.ndim(found) == 0):
            raise InputError(f"{path_name(path)}: its schedule must give a scalar, gives {type(found).__name__}")
        return found

    return jax.tree_util.tree_map_with_path(value, config)


def _scheduled(config: OptimizerConfig, labels: Any) -> optax.GradientTransformationExtraArgs:
    """The optimizer, made anew at every count where numbers are schedules."""
    if _has_schedules(config):
        return by_count(lambda count: _at(config, count).make(1.0, labels))
    return config.make(1.0, labels)
