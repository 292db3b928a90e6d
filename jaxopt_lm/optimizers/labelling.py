"""Labels for the parameters of any model: rules on their paths, functions of them, and whether labels fit."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.trees import is_masked, structure

Rules = Sequence[tuple[str, Label]]
"""(regular expression, label) pairs."""


def path_name(path: Any) -> str:
    """A parameter's path as names joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _names(path: Any) -> set[str]:
    """What rules may call a parameter: `kernel` of a Flax variable, whose array is `kernel/value`, is `kernel` too."""
    inside = path[-1:] == (jax.tree_util.GetAttrKey("value"),)
    return {path_name(path), path_name(path[:-1] if inside else path)}


def trained(tree: Any) -> Any:
    """The tree as optimizers take it: Python floats as arrays, None in place of functions, integers and all else.

    So a whole equinox module may be given, and its gradients, which have None there.
    """

    def leaf(x):
        if isinstance(x, float):
            return jnp.asarray(x, jnp.result_type(float))
        floating = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)
        return x if floating else None

    return jax.tree.map(leaf, tree)


def without_variables(tree: Any) -> Any:
    """The tree with its arrays in place of Flax nnx's variables, known by their method: flax need not be installed."""

    def variable(node):
        return hasattr(node, "get_raw_value")

    return jax.tree.map(lambda x: x.get_raw_value() if variable(x) else x, tree, is_leaf=variable)


@overload
def label_params(rules: Rules, /) -> Callable[[Any], Any]: ...
@overload
def label_params(params: Any, rules: Rules) -> Any: ...
def label_params(params: Any, rules: Rules | None = None) -> Any:
    """Labels for the parameters of any model, from rules on their paths.

    `label_params(rules)` is the function from parameters to labels, which constructors take as `labels`: it is given
    the very tree that the optimizer gets, Flax nnx's or equinox's too.

    Args:
      params: a pytree of arrays or shapes.
      rules: (regular expression, label) pairs; the first that matches the whole path, names joined by slashes, wins. A
        group named `layer` in the expression gives the label's layer.

    Returns:
      The tree of `params` with a `Label` in place of each floating array, one that another transform has too
      (`optax.masked`, `optax.partition`), and None in place of any other leaf.

    Raises:
      InputError: a parameter that no rule matches, a rule that wins nowhere, or axes that do not fit a shape.
    """
    if rules is None:
        return functools.partial(label_params, rules=_checked(params))
    require(
        not (isinstance(params, jax.Array) and params.ndim == 0 and jnp.issubdtype(params.dtype, jnp.integer)),
        "label_params(rules): given a count in place of parameters; labels come second, after the learning rate, and "
        "optax.inject_hyperparams needs static_args='labels'",
    )
    used: set[int] = set()
    sizes: dict[str, int] = {}

    def label(path, leaf):
        names = _names(path)
        for index, (pattern, found) in enumerate(_checked(rules)):
            if match := next(filter(None, (re.fullmatch(pattern, name) for name in names)), None):
                used.add(index)
                layer = match.groupdict().get("layer")
                if not is_masked(leaf):
                    _check_sizes(sizes, found, min(names), pattern, jnp.shape(leaf))
                return found if layer is None else dataclasses.replace(found, layer=int(layer))
        raise InputError(f"parameter {min(names)}: no rule matches it; add one")

    labels = jax.tree_util.tree_map_with_path(label, trained(params), is_leaf=is_masked)
    for index, (pattern, _) in enumerate(rules):
        require(index in used, f"rule '{pattern}': it matches no parameter that the rules before leave; drop it")
    return labels


def _checked(rules: Any) -> Rules:
    pairs = isinstance(rules, Sequence) and all(
        isinstance(rule, tuple) and [type(x) for x in rule] == [str, Label] for rule in rules
    )
    require(pairs, "label_params: rules must be a list of (regular expression, Label) pairs")
    return rules


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


def is_function(x: Any) -> bool:
    """Whether it is a function of the parameters, and no tree that is callable, as an equinox module."""
    return callable(x) and jax.tree_util.all_leaves([x])


def labels_of(labels: Any, params: Any) -> Any:
    """The labels of these parameters, or updates: those given, or what the function given makes of them."""
    if labels is None:
        return None
    found = labels(params) if is_function(labels) else labels
    check_labels(params, found)
    return found


def check_are_labels(labels: Any) -> None:
    """Raises `InputError` where a tree has another leaf than labels."""
    strange = next((x for x in jax.tree.leaves(labels) if not isinstance(x, Label)), None)
    require(strange is None, f"labels: must be a tree of Labels, has {type(strange).__name__}; see label_params")


def check_labels(params: Any, labels: Any) -> None:
    """Raises `InputError` unless every parameter has one label with as many axes as itself."""
    check_are_labels(labels)
    if structure(params) != structure(labels):
        raise InputError(f"labels: must have the parameters' structure; {_difference(params, labels)}")
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_masked)
    found = jax.tree.leaves(labels, is_leaf=is_masked)
    rows = [
        (path_name(path), jnp.shape(x), label)
        for (path, x), label in zip(leaves, found, strict=True)
        if not is_masked(x)
    ]
    for name, shape, label in rows:
        require(isinstance(label, Label), f"labels: {name} has none")
        require(
            len(shape) == len(label.axes),
            f"labels: {name} has shape {shape} and axes {label.axes}; they must be as many",
        )
    depths = {shape[0] for _, shape, label in rows if label.axes[:1] == ("layers",)}
    require(len(depths) <= 1, f"labels: stacked layers must be equally many everywhere; there are {sorted(depths)}")


def _difference(params, labels):
    """What two trees of different structure differ in: a path, or where all are the same the types of nodes."""
    leaves = (jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_masked) for tree in (params, labels))
    ours, theirs = ({min(_names(path), key=len) for path, _ in tree} for tree in leaves)
    if odd := sorted(ours ^ theirs):
        return f"{odd[0]} is in one of them alone"
    node, other = _unlike(structure(params), structure(labels)) or ("", "")
    return f"{node} of the parameters is {other} in labels: make them from the same tree, or give label_params(rules)"


def _unlike(a, b) -> tuple[str, str] | None:
    """What the first nodes are in which two structures differ; None where they do not."""
    if a.node_data() == b.node_data() and len(a.children()) == len(b.children()):
        return next(filter(None, map(_unlike, a.children(), b.children())), None)
    node, other = ("an array" if x.node_data() is None else f"a {x.node_data()[0].__name__}" for x in (a, b))
    return node, other


def with_mask(labels: Any, mask: Any, params: Any) -> Any:
    """The labels, or ones that say nothing else where there are none, with `decays` as a mask of optax's says.

    Args:
      labels: the parameters' tree of `Label`s, or None.
      mask: a tree of bools with the parameters' structure, a prefix of it, or a function from the parameters to one.
      params: the parameters, or updates.
    """
    wanted = mask(params) if is_function(mask) else mask

    def below(flag, subtree):
        known = is_masked(flag) or isinstance(flag, bool | np.bool_)
        require(known, f"mask: must be a tree of bools, has {type(flag).__name__}")
        return jax.tree.map(lambda _: flag, subtree, is_leaf=is_masked)

    def decides(label, flag):
        return label if is_masked(label) or is_masked(flag) else dataclasses.replace(label, decays=bool(flag))

    try:
        flags = jax.tree.map(below, wanted, params, is_leaf=is_masked)
        return jax.tree.map(decides, _unlabelled(params) if labels is None else labels, flags, is_leaf=is_masked)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("mask: must have the parameters' structure, or be a prefix of it") from None


def _unlabelled(params):
    def label(x):
        return x if is_masked(x) else Label(tuple(f"axis_{i}" for i in range(jnp.ndim(x))), "mlp")

    return jax.tree.map(label, params, is_leaf=is_masked)
