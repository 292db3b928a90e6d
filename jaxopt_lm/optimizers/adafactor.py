"""Adafactor as in arXiv 2407.07972, and big_vision's variant."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.block_adam import block_mean_square
from jaxopt_lm.optimizers.config import AdamConfig, OptimizerConfig, check, check_decays, check_eps, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import as_matrix, matrix_axes, per_layer, require_labels
from jaxopt_lm.optimizers.trees import bias_correction, ema, map_params, next_count, sum_of_squares, widen


class ScaleByAdafactorState(NamedTuple):
    """State of `scale_by_adafactor` and `scale_by_adafactor_big_vision`.

    Attributes:
      count: updates made so far, int32.
      mu: average of gradients; big_vision's of scaled ones.
      row: average of the row means of g^2, [..., n, 1]; of what is not factored the average of g^2, or of its mean.
      column: average of the column means, [..., 1, m]; of what is not factored nothing, a zero of size 0.
    """

    count: jax.Array
    mu: optax.Updates
    row: optax.Updates
    column: optax.Updates


def row_and_column_means(g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Means of g^2 over the last axis and over the one before, kept as axes of size 1."""
    if g.ndim > 2:
        return tuple(jnp.mean(jnp.square(g), axis, keepdims=True) for axis in (-1, -2))  # pyright: ignore
    return tuple(sum_of_squares(g, (kept,)) / max(g.shape[1 - kept], 1) for kept in (0, 1))  # pyright: ignore


def factored(row: jax.Array, column: jax.Array) -> jax.Array:
    """row_i column_j / mean(row), formed so that it underflows only where the product itself does; 0 where row is 0.

    Where a square has overflowed, the whole tensor's are infinite, and it holds still.
    """
    axes = tuple(i for i in range(row.ndim) if column.shape[i] < row.shape[i])
    mean = jnp.mean(row, axes, keepdims=True)
    product = jnp.where(mean == 0, 0.0, row / mean) * column
    return jnp.where(jnp.isinf(mean), jnp.inf, product)


def _zeros(means, params, *labels):
    """A state for parameters, where `means(g, *label)` is what row and column average."""

    def pair(p, *label):
        return jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda g: means(g, *label), p))

    mu = optax.tree.zeros_like(widen(params))
    pairs = map_params(pair, mu, *labels)
    row, column = (map_params(lambda _, two, i=i: two[i], mu, pairs) for i in (0, 1))
    return ScaleByAdafactorState(jnp.zeros((), jnp.int32), mu, row, column)


def _averages(state, means, decay):
    """The state's row and column with a pair of means a parameter taken in."""
    return (
        map_params(lambda old, pair, i=i: ema(old, pair[i], decay), averages, means)
        for i, averages in enumerate((state.row, state.column))
    )


def scale_by_adafactor(
    b1: ArrayLike, b2: ArrayLike, eps: ArrayLike, labels: Any, *, one_scalar_1d: bool = False
) -> optax.GradientTransformation:
    """Adam with the second moment of a matrix factored: v_ij = r_i c_j / mean(r).

    Args:
      b1: decay of the mean of gradients.
      b2: decay of r and c, the row and column means of g^2.
      eps: added to the root.
      labels: the parameters' tree of `Label`s: a per-head kernel is factored as its matrix, stacked layers apart.
      one_scalar_1d: a vector has one second moment, as in the released code, instead of one an entry.

    Reference: Shazeer and Stern 2018, arXiv 1804.04235, with momentum and bias correction and without update clipping,
    relative steps and parameter scaling, as in Zhao et al. 2024, arXiv 2407.07972.
    """

    def squares(g, label):
        """What row and column average, for one parameter."""
        if len(matrix_axes(label)) == 2:
            return row_and_column_means(as_matrix(g, label))
        stacked = (0,) if label.axes[:1] == ("layers",) else ()
        kept = stacked if one_scalar_1d else tuple(range(g.ndim))
        return block_mean_square(g, kept), jnp.zeros((0,), g.dtype)

    def init(params):
        return _zeros(squares, params, labels)

    def update(updates, state, params=None):
        del params
        count = next_count(state.count)
        updates = widen(updates)
        mu = map_params(lambda g, m: ema(m, g, b1), updates, state.mu)
        row, column = _averages(state, map_params(squares, updates, labels), b2)

        def direction(m, label, r, c):
            v = factored(r, c).reshape(m.shape) if len(matrix_axes(label)) == 2 else r
            m_hat, v_hat = m / bias_correction(b1, count, m.dtype), v / bias_correction(b2, count, m.dtype)
            return m_hat / (jnp.sqrt(v_hat) + jnp.asarray(eps).astype(m.dtype))

        return map_params(direction, mu, labels, row, column), ScaleByAdafactorState(count, mu, row, column)

    return optax.GradientTransformation(init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdafactorConfig(AdamConfig):
    """Adafactor with momentum, as an Adam whose second moments are factored.

    Formula: r, c averages (b2) of row and column means of g^2; v_ij = r_i c_j / mean(r); u as adamw
    Eps: added to the root
    Bias correction: m and v
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1
    State: 4 bytes a parameter
    Differs: optax's and PyTorch's clip updates, scale by the parameter and have no such momentum; every matrix is
      factored
    Paper: Shazeer and Stern 2018, arXiv 1804.04235; as in Zhao et al. 2024, arXiv 2407.07972
    """

    one_scalar_1d: bool = False
    """One second moment for a vector, as in the released code, instead of one an entry, as in the text."""

    def direction(self, labels: Any) -> optax.GradientTransformation:
        require_labels(labels, "matrices are factored")
        return scale_by_adafactor(self.b1, self.b2, self.eps, labels, one_scalar_1d=self.one_scalar_1d)


def adafactor(
    learning_rate: Number = AdafactorConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = AdafactorConfig.b1,
    b2: Number = AdafactorConfig.b2,
    eps: Number = AdafactorConfig.eps,
    one_scalar_1d: bool = AdafactorConfig.one_scalar_1d,
    weight_decay: Number = AdafactorConfig.weight_decay,
    decay_roles: Sequence[str] = AdafactorConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = AdafactorConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Adafactor with momentum: Adam whose second moments of matrices are factored.

        m <- b1 m + (1 - b1) g
        r, c <- averages, decay b2, of the row and column means of g^2
        v_ij = r_i c_j / mean(r); of a vector the average of g^2
        p <- p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Unlike `optax.adafactor` it neither clips updates nor scales them by the parameter, and factors every matrix.

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      one_scalar_1d: one second moment for a vector, as in the released code, instead of one an entry, as in the
        text.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jaxopt_lm.optimizers import Label, adafactor
      >>> labels = {"w": Label(("embed", "mlp"), "mlp")}
      >>> params = {"w": jnp.ones((4, 6))}
      >>> state = adafactor(3e-3, labels).init(params)
      >>> optax.tree.get(state, "row")["w"].shape, optax.tree.get(state, "column")["w"].shape
      ((4, 1), (1, 6))

    Reference: Shazeer and Stern 2018, arXiv 1804.04235, as in Zhao et al. 2024, arXiv 2407.07972.
    """
    return construct(AdafactorConfig, **locals())


def scale_by_adafactor_big_vision(
    b1: ArrayLike, b2_cap: ArrayLike, decay_rate: ArrayLike, eps: ArrayLike, *, min_dim_size_to_factor: int
) -> optax.GradientTransformation:
    """m <- b1 m + (1 - b1) g / sqrt(v), v the average of g^2 + eps with decay min(b2_cap, 1 - t^-decay_rate).

    The two largest axes are factored where the smaller of them has `min_dim_size_to_factor` entries; no label is read.

    Reference: Zhai et al. 2021, arXiv 2106.04560; timm 1.0.31's `AdafactorBigVision`.
    """

    def axes(shape):
        """(column axis, row axis): the second largest and the largest, later ones counting as larger; or None."""
        order = sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))
        return tuple(order[-2:]) if len(shape) > 1 and shape[order[-2]] >= min_dim_size_to_factor else None

    def means(g):
        square = jnp.square(g) + jnp.asarray(eps).astype(g.dtype)
        if (found := axes(g.shape)) is None:
            return square, jnp.zeros((0,), g.dtype)
        second, largest = found
        return jnp.mean(square, largest, keepdims=True), jnp.mean(square, second, keepdims=True)

    def init(params):
        return _zeros(means, params)

    def update(updates, state, params=None):
        del params
        count = next_count(state.count)
        updates = widen(updates)
        step = count.astype(jnp.result_type(float))
        decay = jnp.minimum(jnp.asarray(b2_cap), 1 - step ** -jnp.asarray(decay_rate))
        row, column = _averages(state, map_params(means, updates), decay)

        def scaled(g, r, c):
            if (found := axes(g.shape)) is None:
                return g * jax.lax.rsqrt(r)
            mean = jnp.mean(r, found[0], keepdims=True)
            scale = jax.lax.rsqrt(r / mean) * jax.lax.rsqrt(c)
            return g * jnp.where(jnp.isinf(mean), 0.0, scale)

        mu = map_params(lambda g, m, r, c: ema(m, scaled(g, r, c), b1), updates, state.mu, row, column)
        return mu, ScaleByAdafactorState(count, mu, row, column)

    return optax.GradientTransformation(init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdafactorBigVisionConfig(OptimizerConfig):
    """big_vision's Adafactor: momentum of scaled gradients, no bias correction, second moments that forget ever less.

    Formula: b2_t = min(b2_cap, 1 - t^-decay_rate); r, c, or v, averages of g^2 + eps; m <- b1 m + (1 - b1) g /
      sqrt(v); u = m
    Eps: added to g^2
    Bias correction: none; b2_1 = 0
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1, of scaled gradients
    State: 4 bytes a parameter
    Differs: `optax.adafactor` scales by the parameter and clips; the momentum here is not bfloat16
    Paper: Zhai et al. 2021, arXiv 2106.04560; timm 1.0.31 `AdafactorBigVision`
    """

    learning_rate: float = 1e-3
    b1: float = 0.9
    """Decay of the mean of scaled gradients."""
    b2_cap: float = 0.999
    """Largest decay of second moments."""
    decay_rate: float = 0.8
    """Exponent of the second moments' decay, 1 - t^-decay_rate."""
    eps: float = 1e-30
    """Added to squared gradients."""
    min_dim_size_to_factor: int = 32
    """The two largest axes are factored where both have so many entries."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b1", "b2_cap")
        check(self, "decay_rate", 0, open_low=True)
        check_eps(self)
        check(self, "min_dim_size_to_factor", 1)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        tx = scale_by_adafactor_big_vision(
            self.b1, self.b2_cap, self.decay_rate, self.eps, min_dim_size_to_factor=self.min_dim_size_to_factor
        )
        return tx if labels is None else per_layer(tx, labels)


def adafactor_big_vision(
    learning_rate: Number = AdafactorBigVisionConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = AdafactorBigVisionConfig.b1,
    b2_cap: Number = AdafactorBigVisionConfig.b2_cap,
    decay_rate: Number = AdafactorBigVisionConfig.decay_rate,
    eps: Number = AdafactorBigVisionConfig.eps,
    min_dim_size_to_factor: int | None = None,
    weight_decay: Number = AdafactorBigVisionConfig.weight_decay,
    decay_roles: Sequence[str] = AdafactorBigVisionConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = AdafactorBigVisionConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """big_vision's Adafactor: momentum of scaled gradients, second moments that forget ever less.

        b2 = min(b2_cap, 1 - t^-decay_rate)
        r, c <- averages, decay b2, of the means of g^2 + eps over the largest axis and the second; or v of g^2 + eps
        m <- b1 m + (1 - b1) g / sqrt(v), v_ij = r_i c_j / mean(r)
        p <- p (1 - lr wd) - lr m

    The two largest axes are factored, whatever they are called.

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed where
        layers are stacked, and for decay_roles that leave a role out.
      b1: decay of the mean of scaled gradients.
      b2_cap: largest decay of second moments.
      decay_rate: exponent of the second moments' decay, 1 - t^-decay_rate.
      eps: added to squared gradients.
      min_dim_size_to_factor: the two largest axes are factored where both have so many entries; None: 32.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import adafactor_big_vision
      >>> params = {"w": jnp.ones(2)}
      >>> tx = adafactor_big_vision(0.1)
      >>> updates, state = tx.update({"w": jnp.array([3.0, -0.5])}, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.01, 0.01]

    Reference: Zhai et al. 2021, arXiv 2106.04560; timm 1.0.31's `AdafactorBigVision`.
    """
    return construct(AdafactorBigVisionConfig, **locals())
