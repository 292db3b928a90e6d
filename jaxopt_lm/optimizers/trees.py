"""Trees of parameters as optax's wrappers leave them, and the arithmetic every transform here shares.

`optax.partition` and `optax.masked` put a `MaskedNode` where a parameter is another transform's. `map_params` steps
over these, so a transform may hold trees of its own (labels, blocks, multipliers) over the whole model and work inside
any of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxopt_lm.errors import InputError, require


def is_masked(node: Any) -> bool:
    """Whether a node stands for a parameter that belongs to another transform."""
    return isinstance(node, optax.MaskedNode)


def structure(tree: Any) -> Any:
    """The tree's structure, a `MaskedNode` counting as the parameter it stands for."""
    return jax.tree.structure(tree, is_leaf=is_masked)


def map_params(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`f(leaf, ...)` at every parameter of `tree`; `rest` have its structure, or subtrees where it has leaves."""
    return jax.tree.map(
        lambda leaf, *others: leaf if is_masked(leaf) else f(leaf, *others), tree, *rest, is_leaf=is_masked
    )


def wide_dtype(dtype: Any) -> np.dtype:
    """promote_types(dtype, float32): what optimizer state is kept in."""
    return jnp.promote_types(dtype, jnp.float32)


def widen(tree: Any, name: str = "this transformation") -> Any:
    """The tree with every leaf in its `wide_dtype`.

    Raises:
      InputError: a leaf is complex, of which means of squares are no second moments; the message begins with `name`.
    """

    def wide(x):
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise InputError(
                f"{name}: takes real arrays, has {x.dtype}; wrap it in optax.contrib.split_real_and_imaginary"
            )
        return x.astype(wide_dtype(x.dtype))

    return jax.tree.map(wide, tree)


# What states call the average or sum of gradients that gives a direction: ours and optax's. AdEMAMix's slow m2, whose
# steps bfloat16 would round away, is not among them.
MOMENTA = ("mu", "ema", "trace", "m1", "m", "exp_avg")


def _narrow_momenta(state: Any, params: Any, dtype: str | None) -> Any:
    if dtype is None:
        return state
    below, found = structure(params), []  # below which names are those of parameters

    def narrow(path, tree):
        if not any(getattr(key, "name", None) in MOMENTA for key in path):
            return tree
        found.append(path)
        return jax.tree.map(lambda x: x.astype(dtype), tree)

    narrowed = jax.tree.map_with_path(narrow, state, is_leaf=lambda node: structure(node) == below)
    known = ", ".join(MOMENTA)
    require(bool(found), f"mu_dtype={dtype!r}: the state has no momentum, called one of {known}; leave it None")
    return narrowed


def _copied(state: Any, given: Any) -> Any:
    """The state with copies of the arrays that it keeps of those given: the caller may donate either."""
    theirs = {id(x) for x in jax.tree.leaves(given)}
    return jax.tree.map(lambda x: jnp.copy(x) if id(x) in theirs else x, state)


def with_wide_state(
    inner: optax.GradientTransformation, mu_dtype: str | None = None, name: str = "this optimizer"
) -> optax.GradientTransformationExtraArgs:
    """`inner` computed in float32 or wider; updates return in the parameters' dtype, whatever that of the gradients.

    Where `update` is given no parameters, updates return in the gradients' dtype: nothing else tells the parameters'.
    The state is float32 or wider too, but for momenta where `mu_dtype` is given: those are rounded to it after every
    update. Its buffers are its own. `name` is what a refusal of complex parameters begins with.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        wide = widen(params, name)
        return _narrow_momenta(_copied(inner.init(wide), wide), wide, mu_dtype)

    def update(updates, state, params=None, **extra_args):
        gradients, wide = widen(updates), None if params is None else widen(params)
        computed_in = jax.eval_shape(inner.init, gradients) if mu_dtype else state
        before = jax.tree.map(lambda x, like: x.astype(like.dtype), state, computed_in)
        directions, after = inner.update(gradients, before, wide, **extra_args)
        new = directions, _copied(after, (gradients, wide))
        like = updates if params is None else params
        return jax.tree.map(lambda x, like: jnp.asarray(x).astype(like.dtype), new, (like, state))

    return optax.GradientTransformationExtraArgs(init, update)


def set_to_zero() -> optax.GradientTransformationExtraArgs:
    """`optax.set_to_zero` with zeros of the parameters' dtype."""
    return with_wide_state(optax.set_to_zero())


def as_dtype_of(number: ArrayLike, x: jax.Array) -> jax.Array:
    """A number in the dtype of `x`."""
    return jnp.asarray(number).astype(x.dtype)


def next_count(count: jax.Array) -> jax.Array:
    """count + 1, staying at the largest int32."""
    return jnp.asarray(optax.safe_increment(count))


def _is_exact(number: ArrayLike) -> bool:
    """Whether a number is Python's or NumPy's, not one that JAX holds, rounded, or traces."""
    return isinstance(number, int | float | np.ndarray | np.generic)


def one_minus(decay: ArrayLike, dtype: Any) -> jax.Array:
    """1 - decay, of a Python number the difference rounded, not a difference of the rounded.

    The float32 nearest to .99999 is 1 - 1.0014e-5. A traced number is that one already, and 1.0014e-5 what it means.
    """
    if _is_exact(decay):
        return jnp.asarray(1 - np.asarray(decay, np.float64), dtype)
    return 1 - jnp.asarray(decay).astype(dtype)


def decay_and_add(old: jax.Array, added: jax.Array, decay: ArrayLike) -> jax.Array:
    """decay * old + added; a decay that is a Python number is the sum of two of the dtype of `old`, so it is exact.

    The first is rounded down, that the second is positive: an infinite `old` stays infinite.
    """
    if not _is_exact(decay):
        return jnp.asarray(decay).astype(old.dtype) * old + added
    exact = np.asarray(decay, np.float64)
    kept = exact.astype(old.dtype)
    kept = np.where(kept > exact, np.nextafter(kept, kept.dtype.type(-np.inf)), kept)
    rest = (exact - kept).astype(old.dtype)
    return jnp.asarray(kept) * old + (jnp.asarray(rest) * old + added if rest.any() else added)


def ema(old: jax.Array, new: jax.Array, decay: ArrayLike) -> jax.Array:
    """decay * old + (1 - decay) * new, in the dtype of `old`.

    A Python number loses no digits, however near to 1. A traced one has been rounded to its dtype; both weights are
    made of what it is then, so that they agree with each other and with `bias_correction`. optax forms 1 - decay^t of a
    rounded decay: at b2 = .99999 in float32 its Adam of t = 3 is off by 7e-4. So transformations by averages are ours,
    in optax's formulas and states.
    """
    return decay_and_add(old, one_minus(decay, old.dtype) * new, decay)


def bias_correction(decay: ArrayLike, count: jax.Array, dtype: Any) -> jax.Array:
    """1 - decay^count, through expm1: for a decay near 1 the difference loses no digits; nor does a Python number."""
    if _is_exact(decay):
        with np.errstate(divide="ignore"):
            log = jnp.asarray(np.log(np.asarray(decay, np.float64)), dtype)
    else:
        log = jnp.log(jnp.asarray(decay).astype(dtype))
    return -jnp.expm1(count.astype(dtype) * log)


_ROWS = 32


def _sum_rows(x: jax.Array) -> jax.Array:
    """Sum over axis 0 as elementwise additions of 32 rows at a time: XLA:CPU sums long rows ten times slower."""
    if x.shape[0] <= _ROWS:
        return sum((x[i] for i in range(1, x.shape[0])), x[0])
    return _sum_rows(sum(x.reshape(-1, _ROWS, *x.shape[1:])[:, i] for i in range(_ROWS)))  # pyright: ignore


def sum_of_squares(x: jax.Array, kept: tuple[int, ...]) -> jax.Array:
    """Sum of squares over all axes but `kept`, which stay; the others become 1."""
    reduced = tuple(axis for axis in range(x.ndim) if axis not in kept)
    if not reduced:
        return jnp.square(x)
    rows, columns = x.shape[:-1], x.shape[-1:]
    count = int(np.prod(rows))
    if kept == (x.ndim - 1,) and count > _ROWS and count % _ROWS == 0 and count // _ROWS <= _ROWS:
        return _sum_rows(jnp.square(x.reshape(count, *columns))).reshape((1,) * len(rows) + columns)
    return jnp.sum(jnp.square(x), reduced, keepdims=True)
