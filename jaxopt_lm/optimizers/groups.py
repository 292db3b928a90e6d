"""Groups of parameters: labels from path rules, and what labels say of structure.

A label (`jaxopt_lm.labels.Label`) names a parameter's axes and role. Our models declare labels; for any other model
`label_params` derives them from rules on paths. From labels follow blocks (`axes_kept`), the matrix that a per-head
kernel is (`matrix_axes`), the layers (`by_layer`), transforms by group (`partition`) and by layer (`per_layer`).
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.trees import is_masked, map_params

_HEAD_AXES = ("heads", "kv_heads", "head_dim", "value_dim")


def path_name(path: Any) -> str:
    """A parameter's path as names joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def label_params(params: Any, rules: Sequence[tuple[str, Label]]) -> Any:
    """Labels for anyone's parameters, from rules on their paths.

    Args:
      params: a pytree of arrays or shapes.
      rules: (regular expression, label) pairs; the first that matches the whole path, names joined by slashes, wins. A
        group named `layer` in the expression gives the label's layer.

    Returns:
      The tree of `params` with a `Label` in place of each leaf.

    Raises:
      InputError: a parameter that no rule matches, a rule that wins nowhere, or axes that do not fit a shape.
    """
    used: set[int] = set()
    sizes: dict[str, int] = {}

    def label(path, leaf):
        name = path_name(path)
        for index, (pattern, found) in enumerate(rules):
            if match := re.fullmatch(pattern, name):
                used.add(index)
                layer = match.groupdict().get("layer")
                _check_sizes(sizes, found, name, pattern, jnp.shape(leaf))
                return found if layer is None else Label(found.axes, found.role, int(layer))
        raise InputError(f"parameter {name}: no rule matches it; add one")

    labels = jax.tree_util.tree_map_with_path(label, params)
    for index, (pattern, _) in enumerate(rules):
        require(index in used, f"rule '{pattern}': it matches no parameter that the rules before leave; drop it")
    return labels


def _check_sizes(sizes, label, name, pattern, shape):
    """A rule's axes are as many as the parameter's, and those of the vocabulary and the width have one size each."""
    require(
        len(label.axes) == len(shape),
        f"rule '{pattern}': its axes {label.axes} must be as many as those of {name}, shape {shape}",
    )
    for axis, size in zip(label.axes, shape, strict=True):
        require(
            axis not in ("vocab", "embed") or sizes.setdefault(axis, size) == size,
            f"rule '{pattern}': axis {axis} of {name}, shape {shape}, must have size {sizes.get(axis)} as elsewhere",
        )


def check_labels(params: Any, labels: Any) -> None:
    """Raises `InputError` unless every parameter has one label with as many axes as itself."""
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_masked)
    shapes = {path_name(path): None if is_masked(x) else jnp.shape(x) for path, x in leaves}
    axes = {path_name(path): label.axes for path, label in jax.tree_util.tree_leaves_with_path(labels)}
    odd = sorted(shapes.keys() ^ axes.keys())
    require(not odd, f"labels: must have the parameters' structure; {odd[0] if odd else ''} is in one of them alone")
    depths = {shape[0] for name, shape in shapes.items() if shape and axes[name][:1] == ("layers",)}
    require(len(depths) <= 1, f"labels: stacked layers must be equally many everywhere; there are {sorted(depths)}")
    for name, shape in shapes.items():
        require(
            shape is None or len(shape) == len(axes[name]),
            f"labels: {name} has shape {shape} and axes {axes[name]}; they must be as many",
        )


def require_labels(labels: Any, why: str) -> None:
    """Raises `InputError` where a transform that reads structure is given no labels."""
    require(labels is not None, f"labels=None: {why} by axes and roles; give a tree of labels (see label_params)")


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
    """The axes of one layer's parameter, those of the heads as one: two groups for a matrix, one for a vector.

    A kernel (embed, heads, head_dim) is the matrix [embed, heads * head_dim]: ((0,), (1, 2)).
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
    require(len(groups) <= 2, f"{label}: must be a vector or a matrix; put the axes of the heads side by side")
    return tuple(tuple(group) for group in groups)


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
    return optax.partition({name: tx for name, tx in transforms.items() if name in present}, groups)


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
