"""Groups of parameters: what labels say of structure.

A label (`jaxopt_lm.labels.Label`) names a parameter's axes and role; `labelling` makes labels. From them follow blocks
(`axes_kept`), the matrix that a kernel is (`matrix_axes`), the layers (`by_layer`), transforms by group (`partition`)
and by layer (`per_layer`).
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.trees import map_params

_HEAD_AXES = ("heads", "kv_heads", "head_dim", "value_dim")


def require_labels(labels: Any, why: str) -> None:
    """Raises `InputError` where a transform that reads structure is given no labels."""
    require(labels is not None, f"labels=None: {why} by axes and roles; give labels, see label_params")


def require_roles(labels: Any, roles: Sequence[str], where: str) -> None:
    """Raises `InputError` unless each role has a parameter."""
    present = {label.role for label in jax.tree.leaves(labels)}
    missing = [role for role in roles if role not in present]
    require(not missing, f"{where}: no parameter has the role {', '.join(missing)}; there are {sorted(present)}")


def axes_kept(labels: Any, by_role: Mapping[str, Sequence[str]]) -> Any:
    """Blocks for `scale_by_block_adam`: per parameter the axes kept apart, `layers` always and what its role names."""

    def kept(label):
        names = ("layers", *by_role.get(label.role, ()))
        return tuple(i for i, axis in enumerate(label.axes) if axis in names)

    return jax.tree.map(kept, labels)


def matrix_axes(label: Label) -> tuple[tuple[int, ...], ...]:
    """The axes of one layer's parameter in two groups, those of a matrix; one for a vector, none for a scalar.

    A kernel (embed, heads, head_dim) is the matrix [embed, heads * head_dim]: ((0,), (1, 2)). Of more axes all but the
    last are one group, or all but the first where that is `out`.
    """
    groups: list[list[int]] = []
    for i, axis in enumerate(label.axes):
        if axis == "layers":
            continue
        joins = axis in _HEAD_AXES and groups and label.axes[groups[-1][-1]] in _HEAD_AXES
        if joins:
            groups[-1].append(i)
        else:
            groups.append([i])
    of_heads = sum(label.axes[group[0]] in _HEAD_AXES for group in groups)
    if of_heads > 1:
        raise InputError(f"{label}: must be a vector or a matrix; put the axes of the heads side by side")
    if len(groups) > 2:
        split = 1 if label.axes[groups[0][0]] == "out" else len(groups) - 1
        groups = [list(itertools.chain(*part)) for part in (groups[:split], groups[split:])]
    return tuple(tuple(group) for group in groups)


def output_axes(label: Label) -> tuple[int, ...]:
    """The axes of a matrix's output: its last group, or the first where that is `out`."""
    groups = matrix_axes(label)
    return groups[0] if label.axes[groups[0][0]] == "out" else groups[-1]


def is_matrix(label: Label, roles: Sequence[str]) -> bool:
    """Whether a label is of one of `roles` and its parameter a matrix in each layer."""
    return label.role in roles and len(matrix_axes(label)) == 2


def as_matrix(x: jax.Array, label: Label) -> jax.Array:
    """A matrix parameter as [rows, columns], or [layers, rows, columns] where layers are stacked."""
    groups = matrix_axes(label)
    return x.reshape(*x.shape[: groups[0][0]], *(math.prod(x.shape[axis] for axis in group) for group in groups))


def layer_positions(labels: Any) -> dict[int, int]:
    """The position from 0 of every numbered layer: layers numbered 1 to 3 are three, the first of them layer 1.

    Raises:
      InputError: a number between the first and the last is missing.
    """
    numbers = sorted({label.layer for label in jax.tree.leaves(labels) if label.layer is not None})
    require(
        not numbers or numbers[-1] - numbers[0] + 1 == len(numbers),
        f"labels: layers are numbered {numbers}, which must be without gaps, for they are counted; give the labels of "
        "the whole model, to a part in optax.masked or optax.partition too",
    )
    return {number: position for position, number in enumerate(numbers)}


def num_layers(tree: Any, labels: Any) -> int:
    """Layers of a model: how many its labels number, or the size of the stacked axis; 0 without layers.

    Args:
      tree: of the parameters' shapes; those of other transforms may be masked.
      labels: of the whole model.
    """
    sizes = map_params(lambda x, label: x.shape[0] if label.axes[:1] == ("layers",) else 0, tree, labels)
    numbered, stacked = len(layer_positions(labels)), max(jax.tree.leaves(sizes), default=0)
    require(
        0 in (numbered, stacked) or numbered == stacked,
        f"labels: {numbered} layers are numbered and {stacked} stacked; they must be equally many",
    )
    return max(numbered, stacked)


def by_layer(per_layer: jax.Array | np.ndarray, outside: Any, tree: Any, labels: Any) -> Any:
    """A value for every parameter: its layer's in `per_layer`, broadcastable to it, or `outside`."""
    positions = layer_positions(labels)

    def value(x, label):
        if label.axes[:1] == ("layers",):
            return per_layer.reshape(-1, *(1,) * (x.ndim - 1))
        return outside if label.layer is None else per_layer[positions[label.layer]]

    return map_params(value, tree, labels)


def partition(
    transforms: Mapping[str, optax.GradientTransformation], group_of: Callable[[Label], str], labels: Any
) -> optax.GradientTransformationExtraArgs:
    """`optax.partition` by a function of the label; transforms that no parameter belongs to are left out."""
    groups = jax.tree.map(group_of, labels)
    present = set(jax.tree.leaves(groups))
    # A function, for optax would call a tree that is callable, as an equinox module.
    return optax.partition({name: tx for name, tx in transforms.items() if name in present}, lambda _: groups)


def per_layer(tx: optax.GradientTransformation, labels: Any) -> optax.GradientTransformationExtraArgs:
    """`tx` on each layer of stacked parameters apart, as on unstacked ones; its counters are shared.

    For transforms that treat parameters one by one (norms, trust ratios, factors): an estimate over the whole tree
    becomes one a layer.
    """
    return partition(
        {"stacked": _over_layers(tx), "single": tx},
        lambda label: "stacked" if label.axes[:1] == ("layers",) else "single",
        labels,
    )


def _over_layers(tx):
    tx = optax.with_extra_args_support(tx)

    def state_axes(params):
        layer = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), params)
        shapes = jax.eval_shape(tx.init, layer)
        return jax.tree.map(lambda x: None if x.ndim == 0 and jnp.issubdtype(x.dtype, jnp.integer) else 0, shapes)

    def init(params):
        return jax.vmap(tx.init, out_axes=state_axes(params))(params)

    def update(updates, state, params=None, **extra_args):
        axes = state_axes(updates)
        run = jax.vmap(
            lambda u, s, p: tx.update(u, s, p, **extra_args),
            in_axes=(0, axes, None if params is None else 0),
            out_axes=(0, axes),
        )
        return run(updates, state, params)

    return optax.GradientTransformationExtraArgs(init, update)
