"""What an optimizer is doing, read from its state: effective learning rates, sizes of updates, nearness to a sign.

`telemetry` finds moments and learning rates in any state that optax's combinators nest: trees with the parameters'
structure under the names that optax and we give them, beside a count; the rate is what `scale_by_rate` or
`optax.inject_hyperparams` recorded.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax.typing import ArrayLike

from jaxopt_lm.errors import InputError
from jaxopt_lm.optimizers.adafactor import ScaleByAdafactorState, factored
from jaxopt_lm.optimizers.clipping import layer_square_sums
from jaxopt_lm.optimizers.groups import layer_positions
from jaxopt_lm.optimizers.rates import ScaleByRateState
from jaxopt_lm.optimizers.soap import ScaleBySoapState
from jaxopt_lm.optimizers.trees import MOMENTA, bias_correction, is_masked, map_params, structure, widen

QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
_MAX_SAMPLE = 2**16

# What states call a second moment, a count: ours and optax's.
_SECOND_MOMENTS = ("nu", "n")
_COUNTS = ("count", "t")


class Telemetry(NamedTuple):
    """Trees of the parameters; a `MaskedNode` where the state has no such thing.

    Attributes:
      effective_learning_rate: lr / (sqrt(v) + eps), one for each block: broadcastable to the parameter, or to its
        matrix; 0 where v is 0, of blocks that have not had a gradient yet.
      learning_rate: the rate applied, broadcastable to the parameter.
      update_rms: root mean square of the update, a scalar.
      update_to_weight: norm of the update over that of the parameter, 0 where that is 0, a scalar.
      abs_m_over_root_v: mean of abs(m) / sqrt(v), both bias-corrected where b1 and b2 are given; at most about 1.
        Scalar.
      cosine_with_sign: of the negative update with sign(m), a scalar: 1 is Signum.
      second_moment: v, one for each block, bias-corrected where b2 is given.
      without_gradient: share of the blocks whose v is 0, a scalar.
    """

    effective_learning_rate: Any
    learning_rate: Any
    update_rms: Any
    update_to_weight: Any
    abs_m_over_root_v: Any
    cosine_with_sign: Any
    second_moment: Any
    without_gradient: Any


class _Part(NamedTuple):
    """The moments of the parameters that one transform has, and the numbers in force there."""

    mu: Any
    nu: Any
    stored: Any
    count: Any
    numbers: dict[str, Any]


def telemetry(
    opt_state: optax.OptState,
    params: Any,
    updates: Any,
    *,
    learning_rate: ArrayLike | None = None,
    b1: ArrayLike | None = None,
    b2: ArrayLike | None = None,
    eps: ArrayLike = 0.0,
    eps_root: ArrayLike = 0.0,
    labels: Any = None,
) -> Telemetry:
    """Reads an optimizer's state after an update; pure, for use inside jit.

    The numbers are those that the state recorded (our optimizers and `optax.inject_hyperparams` record theirs), or else
    the arguments: a bare `optax.adamw` needs its learning_rate, b1, b2 and eps. Recorded decays are float32: of b2 =
    .99999 given as a Python number, v is read within .14%.

    Args:
      opt_state: the state after the update; through chain, partition, masked, MultiSteps, inject_hyperparams.
      params: the parameters.
      updates: what the optimizer returned.
      learning_rate: the rate.
      b1: decay of m, for its bias correction; None: none.
      b2: decay of v, for its bias correction; None: none.
      eps: added to the root.
      eps_root: added inside the root.
      labels: the parameters' tree of `Label`s: what is said of a parameter is then said of each stacked layer of it.

    Raises:
      InputError: the state records no rate and none is given.
    """
    given = {"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    parts = _parts(opt_state, {name: value for name, value in given.items() if value is not None}, params)
    params, updates = widen(params), widen(updates)
    columns = [_of_part(part) for part in parts]
    nu, mu, rate, effective, ratio_nu = (_first(params, [column[i] for column in columns]) for i in range(5))
    if learning_rate is not None:
        rate = jax.tree.map(lambda p, x: jnp.asarray(learning_rate) if is_masked(x) else x, params, rate)
    stacked = jax.tree.map(lambda _: False, params)
    if labels is not None:
        stacked = jax.tree.map(lambda label: label.axes[:1] == ("layers",), labels)
    return Telemetry(
        effective_learning_rate=effective,
        learning_rate=rate,
        update_rms=_each(lambda u: jnp.sqrt(jnp.mean(jnp.square(u))), stacked, updates),
        update_to_weight=_each(lambda u, p: _over(_norm(u), _norm(p)), stacked, updates, params),
        abs_m_over_root_v=_each(lambda m, v: jnp.mean(_over(jnp.abs(m), jnp.sqrt(v))), stacked, *_both(mu, ratio_nu)),
        cosine_with_sign=_each(lambda m, u: _cosine(-u, jnp.sign(m)), stacked, mu, updates),
        second_moment=nu,
        without_gradient=_each(lambda v: jnp.mean(v == 0, dtype=v.dtype), stacked, nu),
    )


def _each(f, stacked, tree, *rest):
    """f of each parameter, or of each of its stacked layers; 0 of an empty one."""

    def one(x, layers, *others):
        if not x.size:
            return jnp.zeros(x.shape[:1] if layers else ())
        return jax.vmap(f)(x, *others) if layers else f(x, *others)

    return map_params(one, tree, stacked, *rest)


def _both(a, b):
    """Two trees, with a MaskedNode in both where one of them has one; the second broadcast to the first."""
    a = map_params(lambda x, y: y if is_masked(y) else x, a, b)
    return a, map_params(lambda x, y: jnp.broadcast_to(y, x.shape), a, b)


def _norm(x):
    return jnp.sqrt(jnp.sum(jnp.square(x)))


def _over(a, b):
    """a / b, 0 where b is 0."""
    return jnp.where(b == 0, 0.0, a / jnp.where(b == 0, 1.0, b))


def _cosine(a, b):
    b = b.astype(a.dtype)
    return _over(jnp.sum(a * b), _norm(a) * _norm(b))


def second_moments(opt_state: optax.OptState, params: Any) -> Any:
    """What a state stores of second moments: a tuple of arrays a parameter, two where factored; MaskedNode for none."""
    return _first(params, [part.stored for part in _parts(opt_state, {}, params)])


def _parts(node: Any, numbers: dict[str, Any], params: Any) -> list[_Part]:
    """Every transform of a state that has second moments or a momentum."""
    if not isinstance(node, tuple | list | dict):
        return []
    hyperparams = getattr(node, "hyperparams", None)
    numbers = numbers | (hyperparams if isinstance(hyperparams, dict) else {})
    children = list(node.values()) if isinstance(node, dict) else list(node)
    for child in children:
        if isinstance(child, ScaleByRateState):
            numbers = {"learning_rate": child.learning_rate} | child.moments
    part = _part(node, numbers, params)
    below = [found for child in children for found in _parts(child, numbers, params)]
    return below if part is None else [part._replace(mu=widen(part.mu)), *below]


def _part(node: Any, numbers: dict[str, Any], params: Any) -> _Part | None:
    """The moments of one transform's state, in the parameters' shapes or broadcastable to them."""
    if isinstance(node, ScaleByAdafactorState):
        stored = map_params(lambda r, c: (r, c) if c.size else (r,), node.row, node.column)
        nu = map_params(lambda m, rc: factored(*rc).reshape(m.shape) if len(rc) == 2 else rc[0], node.mu, stored)
        return _Part(node.mu, nu, stored, node.count, numbers)
    if isinstance(node, ScaleBySoapState):  # v is in the eigenbases, m is not
        nu = jax.tree.map(lambda p, s: s if is_masked(s) else s.nu.reshape(p.shape), params, node.matrices)
        return _Part(None, nu, map_params(lambda v: (v,), nu), node.count - 1, numbers)
    if isinstance(node, optax.contrib.ProdigyState):  # its moments are of d * g
        d = jnp.asarray(node.estim_lr)
        mu = map_params(lambda m: m / d, widen(node.exp_avg))
        nu = map_params(lambda v: v / jnp.square(d), node.exp_avg_sq)
        return _Part(mu, nu, map_params(lambda v: (v,), nu), node.count, numbers)

    named = node._asdict() if hasattr(node, "_asdict") else {}

    def field(names):
        trees = [named[name] for name in names if name in named]
        return next((tree for tree in trees if structure(tree) == structure(params)), None)

    mu, nu = field(MOMENTA), field(_SECOND_MOMENTS)
    if mu is None and nu is None:
        return None
    if nu is not None:  # a norm per tensor has no axes, or that of stacked layers alone
        nu = map_params(lambda v, p: v.reshape(v.shape + (1,) * (p.ndim - v.ndim)), nu, params)
    count = next((named[name] for name in _COUNTS if name in named), None)
    return _Part(mu, nu, None if nu is None else map_params(lambda v: (v,), nu), count, numbers)


def _of_part(part: _Part) -> tuple[Any, ...]:
    """(v, m, rate, effective rate, v to compare m with) of a part, as trees; None where it has none.

    Where the numbers hold neither eps nor eps_root, sqrt(v) is not what divides m: there is no effective rate.
    """
    if "learning_rate" not in part.numbers:
        raise InputError("telemetry: the state records no learning rate; give learning_rate=…")
    rate, mine = part.numbers["learning_rate"], part.mu if part.nu is None else part.nu
    scalar = structure(rate) != structure(mine)
    rates = map_params(lambda _: jnp.asarray(rate), mine) if scalar else rate
    nu, mu = (_corrected(tree, part, b) for tree, b in ((part.nu, "b2"), (part.mu, "b1")))
    if nu is None or not {"eps", "eps_root"} & part.numbers.keys():
        return nu, mu, rates, None, None

    def effective(v, lr):
        eps, eps_root = (jnp.asarray(part.numbers.get(name, 0.0)).astype(v.dtype) for name in ("eps", "eps_root"))
        rate = jnp.minimum(_over(lr.astype(v.dtype), jnp.sqrt(v + eps_root) + eps), jnp.finfo(v.dtype).max)
        return jnp.where(v == 0, 0.0, rate)

    return nu, mu, rates, map_params(effective, nu, rates), nu


def _corrected(tree, part, name):
    decay = part.numbers.get(name)
    if tree is None or decay is None or part.count is None:
        return tree
    count = jnp.maximum(part.count, 1)  # MultiSteps has a state before its first update
    return map_params(lambda x: x / bias_correction(decay, count, x.dtype), tree)


def _first(params: Any, trees: Sequence[Any]) -> Any:
    """Per parameter what the first tree that has it says; a MaskedNode where none does."""
    treedef = jax.tree.structure(params)
    result = [optax.MaskedNode()] * treedef.num_leaves
    for tree in trees:
        for i, leaf in enumerate([] if tree is None else treedef.flatten_up_to(tree)):
            if is_masked(result[i]) and not is_masked(leaf):
                result[i] = leaf
    return jax.tree.unflatten(treedef, result)


def telemetry_by_role(found: Telemetry, labels: Any, token_counts: np.ndarray | None = None) -> dict[str, jax.Array]:
    """Scalars to log, per role of the parameters.

    Args:
      found: what `telemetry` returned.
      labels: the parameters' tree of `Label`s.
      token_counts: how often each vocabulary entry occurs in the training text, [V] or shorter: the second moment of
        the head's entries that do occur is then averaged over ten equal groups of them, rarest first.

    Returns:
      `effective_learning_rate/ROLE/QUANTILE` over the blocks that have had a gradient (of a fixed sample of 65536 a
      role, where there are more), 0 where none has, and per role the means over parameters of every other field of
      `Telemetry`, `without_gradient/ROLE` among them; `head_second_moment/tenth_0` to 9.
    """
    leaves = jax.tree.leaves(labels)
    groups = {role: [i for i, label in enumerate(leaves) if label.role == role] for role in {x.role for x in leaves}}
    columns = {name: jax.tree.leaves(tree, is_leaf=is_masked) for name, tree in found._asdict().items()}
    result = {}
    for role, members in sorted(groups.items()):
        for name, column in columns.items():
            values = [column[i] for i in members if not is_masked(column[i]) and column[i].size]
            if not values or name == "second_moment":
                continue
            if name == "effective_learning_rate":
                result |= {f"{name}/{role}/{q}": value for q, value in _quantiles(values).items()}
            else:
                result[f"{name}/{role}"] = jnp.mean(jnp.concatenate([x.reshape(-1) for x in values]))
    return result | ({} if token_counts is None else _by_frequency(columns["second_moment"], leaves, token_counts))


def _quantiles(values):
    total = sum(x.size for x in values)
    sample = jnp.concatenate([_sample(x.reshape(-1), total).astype(jnp.result_type(float)) for x in values])
    found = jnp.nanquantile(jnp.where(sample == 0, jnp.nan, sample), jnp.asarray(list(QUANTILES.values())))
    return dict(zip(QUANTILES, jnp.where((sample == 0).all(), 0.0, found), strict=True))


def _sample(x, total):
    """The entries of a flat array, or its share of a fixed random sample where all together are too many to sort."""
    if total <= _MAX_SAMPLE:
        return x
    return x[np.random.default_rng(0).integers(0, x.size, math.ceil(_MAX_SAMPLE * x.size / total))]


def _by_frequency(second_moments, leaves, token_counts):
    """Mean second moment of the head, or of the tied embedding, over tenths of the vocabulary by frequency."""
    role = "head" if any(label.role == "head" for label in leaves) else "embedding"
    index = next((i for i, label in enumerate(leaves) if label.role == role and "vocab" in label.axes), None)
    if index is None or is_masked(second_moments[index]):
        return {}
    axis, v = leaves[index].axes.index("vocab"), second_moments[index]
    if v.shape[axis] == 1:
        return {}
    per_entry = jnp.mean(v, [other for other in range(v.ndim) if other != axis])
    counts = np.zeros(per_entry.size, np.int64)
    counts[: len(token_counts)] = token_counts
    by_count = np.argsort(counts, kind="stable")
    tenths = np.array_split(by_count[counts[by_count] > 0], 10)
    return {f"head_second_moment/tenth_{i}": jnp.mean(per_entry[tenth]) for i, tenth in enumerate(tenths) if tenth.size}


def grad_norms(grads: Any, labels: Any) -> dict[str, jax.Array]:
    """Norms of gradients per role, and per layer and role: `ROLE` and `ROLE/layer_00`, by the layers' own numbers."""
    result, positions = {}, layer_positions(labels)
    for role in sorted({label.role for label in jax.tree.leaves(labels)}):
        mine = jax.tree.map(lambda g, label, role=role: g if label.role == role else optax.MaskedNode(), grads, labels)
        layers, outside = layer_square_sums(mine, labels)
        result[role] = jnp.sqrt(jnp.sum(layers) + outside)
        own = [label for label in jax.tree.leaves(labels) if label.role == role]
        stacked = any(label.axes[:1] == ("layers",) for label in own)
        for position, number in enumerate(positions or range(layers.size)):
            if stacked or number in {label.layer for label in own}:
                result[f"{role}/layer_{number:02d}"] = jnp.sqrt(layers[position])
    return result
