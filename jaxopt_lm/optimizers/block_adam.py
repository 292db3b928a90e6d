"""Adam with one second moment per block of entries: Adam, Adalayer, Adalayer*, Adam-mini are settings of one transform.

A *block* is a set of entries of one parameter that share a second moment. `blocks` names, per parameter, the axes kept
apart: all of them is Adam, none is Adalayer, the vocabulary axis of the head is Adalayer*.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.config import AdamConfig, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import axes_kept, matrix_axes, output_axes, require_labels
from jaxopt_lm.optimizers.trees import bias_correction, ema, map_params, next_count, sum_of_squares, widen

Normalization = Literal["mean", "paper_algorithm_1"]


class ScaleByBlockAdamState(NamedTuple):
    """State of `scale_by_block_adam`.

    Attributes:
      count: updates made so far, int32.
      mu: average of gradients, of the parameters' shapes.
      nu: average over steps of the blocks' mean squares; an axis that blocks span has size 1.
    """

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates


class Calibration(NamedTuple):
    """Second moments averaged over the first steps, then kept or continued.

    Attributes:
      steps: T; in the first T updates v_t = v_{t-1} + (mean(g^2) - v_{t-1}) / (t + 1), so v_T = sum / (T + 1).
      live: a tree of bools over the parameters: after T, True goes on with v <- b2 v + (1 - b2) mean(g^2), False stays.
    """

    steps: ArrayLike
    live: Any


def block_mean_square(g: jax.Array, kept: tuple[int, ...], normalization: Normalization = "mean") -> jax.Array:
    """Mean of g^2 over every axis not in `kept`; for paper_algorithm_1 the sum over the root of the block's size."""
    total = sum_of_squares(g, kept)
    size = max(g.size // max(total.size, 1), 1)
    return total / (size if normalization == "mean" else math.sqrt(size))


def zeros_of_blocks(x: jax.Array, kept: tuple[int, ...]) -> jax.Array:
    """A zero for every block: the shape of `block_mean_square(x, kept)`."""
    return jnp.zeros([size if axis in kept else 1 for axis, size in enumerate(x.shape)], x.dtype)


def scale_by_block_adam(
    b1: ArrayLike | Callable[[Any], Any],
    b2: ArrayLike,
    eps: ArrayLike | Callable[[jax.Array], ArrayLike],
    blocks: Any = None,
    *,
    eps_root: ArrayLike = 0.0,
    debias_mean: bool = True,
    normalization: Normalization = "mean",
    calibration: Calibration | None = None,
) -> optax.GradientTransformation:
    """u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t) + eps_root) + eps), v a block's average over steps of its mean g^2.

    With a calibration v is never bias-corrected. State is float32 or wider. A block without a gradient stays put.

    Args:
      b1: decay of the mean of gradients; or a function of the updates that gives one per parameter, broadcastable to
        it.
      b2: decay of the mean of squares.
      eps: added to the root; or a function of the step t, counted from 1.
      blocks: the parameters' tree with a tuple of axes at each leaf: those along which entries do not share. None:
        Adam.
      eps_root: added inside the root.
      debias_mean: False: m is not divided by 1 - b1^t.
      normalization: mean, or what Algorithm 1 of arXiv 2407.07972 prints, p^(-1/2) sum(g^2), a misprint.
      calibration: where second moments freeze.

    Returns:
      A transformation for any pytree of floating arrays of any rank, zero-size ones too.

    Reference: Zhao et al. 2024, arXiv 2407.07972, section 3.1; the block form is BAGM, Zheng and Kwok 2019, 1905.09899.
    """

    def blocks_of(updates):
        return map_params(lambda g: tuple(range(g.ndim)), updates) if blocks is None else blocks

    def init(params):
        mu = optax.tree.zeros_like(widen(params))
        return ScaleByBlockAdamState(jnp.zeros((), jnp.int32), mu, map_params(zeros_of_blocks, mu, blocks_of(mu)))

    def update(updates, state, params=None):
        del params
        count = next_count(state.count)
        updates = widen(updates)
        b1s = b1(updates) if callable(b1) else map_params(lambda _: b1, updates)
        squares = map_params(lambda g, kept: block_mean_square(g, kept, normalization), updates, blocks_of(updates))
        mu = map_params(lambda g, m, b: ema(m, g, b), updates, state.mu, b1s)
        if calibration is None:
            nu = map_params(lambda square, v: ema(v, square, b2), squares, state.nu)
        else:
            step = functools.partial(_calibrated, count=count, b2=b2, steps=calibration.steps)
            nu = map_params(step, squares, state.nu, calibration.live)
        floor = eps(count) if callable(eps) else eps

        def direction(m, v, b):
            m_hat = m / bias_correction(b, count, m.dtype) if debias_mean else m
            v_hat = v / bias_correction(b2, count, v.dtype) if calibration is None else v
            inside, outside = (jnp.asarray(x).astype(v.dtype) for x in (eps_root, floor))
            return m_hat / (jnp.sqrt(v_hat + inside) + outside)

        return map_params(direction, mu, nu, b1s), ScaleByBlockAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _calibrated(square, v, live, *, count, b2, steps):
    share = 1 / (count + 1).astype(v.dtype)
    average = (1 - share) * v + share * square  # not v + share (square - v): of infinities that is NaN
    return jnp.where(count <= steps, average, ema(v, square, b2) if live else v)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockAdamConfig(AdamConfig):
    """Adam with blocks by axes and roles."""

    def blocks(self, labels: Any) -> Any:
        """The axes kept apart per parameter."""
        return axes_kept(labels, {})

    def direction(self, labels: Any) -> optax.GradientTransformation:
        require_labels(labels, "blocks are chosen")
        return scale_by_block_adam(self.b1, self.b2, self.eps, self.blocks(labels))


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdalayerConfig(BlockAdamConfig):
    """Adalayer: Adam with one second moment a tensor and layer.

    Formula: v <- b2 v + (1 - b2) mean(g^2) over the tensor; u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
    Eps: added to the root
    Bias correction: m and v
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1
    State: 4 bytes a parameter
    Differs: neither optax nor PyTorch has it; Algorithm 1 of the paper prints p^(-1/2) for 1/p,
      normalization=paper_algorithm_1
    Paper: Zhao et al. 2024, arXiv 2407.07972
    """

    normalization: Normalization = "mean"
    """mean of g^2 over the tensor; paper_algorithm_1: the sum over the root of its size, as misprinted."""

    def direction(self, labels: Any) -> optax.GradientTransformation:
        require_labels(labels, "stacked layers are told apart")
        return scale_by_block_adam(self.b1, self.b2, self.eps, self.blocks(labels), normalization=self.normalization)


def adalayer(
    learning_rate: Number = AdalayerConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = AdalayerConfig.b1,
    b2: Number = AdalayerConfig.b2,
    eps: Number = AdalayerConfig.eps,
    normalization: Normalization = AdalayerConfig.normalization,
    weight_decay: Number = AdalayerConfig.weight_decay,
    decay_roles: Sequence[str] = AdalayerConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = AdalayerConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Adalayer: Adam with one second moment a tensor and layer.

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) mean(g^2), over the tensor
        p <- p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      normalization: mean of g^2 over the tensor; paper_algorithm_1: the sum over the root of its size, as
        misprinted.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import Label, adalayer
      >>> params, grads = {"w": jnp.ones(2)}, {"w": jnp.array([3.0, -1.0])}
      >>> tx = adalayer(0.1, {"w": Label(("embed",), "norm")})  # large entries move more
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.1342, 0.0447]

    Reference: Zhao et al. 2024, arXiv 2407.07972, section 3.1.
    """
    return construct(AdalayerConfig, **locals())


def adalayer_star_blocks(labels: Any, *, first_layer: bool = False) -> Any:
    """One block a vocabulary entry of the head (of a tied embedding, which is the head too), one a tensor elsewhere.

    An embedding is tied where no label of the whole model is a head's.
    """
    tied = "head" not in {label.role for label in jax.tree.leaves(labels)}
    apart = {"head": ("vocab", "out")} | ({"embedding": ("vocab",)} if tied or first_layer else {})
    return axes_kept(labels, apart)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdalayerStarConfig(BlockAdamConfig):
    """Adalayer*: Adalayer with one second moment per vocabulary entry in the output head.

    Formula: as adalayer; in the head v_j <- b2 v_j + (1 - b2) mean_i(g_ij^2), j the vocabulary entry
    Eps: added to the root
    Bias correction: m and v
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1
    State: 4 bytes a parameter
    Differs: neither optax nor PyTorch has it; a tied embedding is the head: its vocabulary axis is kept
    Paper: Zhao et al. 2024, arXiv 2407.07972
    """

    first_layer: bool = False
    """One second moment per row of the embedding too: the paper's first-layer correction."""

    def blocks(self, labels: Any) -> Any:
        return adalayer_star_blocks(labels, first_layer=self.first_layer)


def adalayer_star(
    learning_rate: Number = AdalayerStarConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = AdalayerStarConfig.b1,
    b2: Number = AdalayerStarConfig.b2,
    eps: Number = AdalayerStarConfig.eps,
    first_layer: bool = AdalayerStarConfig.first_layer,
    weight_decay: Number = AdalayerStarConfig.weight_decay,
    decay_roles: Sequence[str] = AdalayerStarConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = AdalayerStarConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Adalayer*: Adalayer with one second moment per vocabulary entry in the output head.

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) mean(g^2), over the tensor; in the head v_j over the entries of vocabulary entry j
        p <- p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Where no parameter is a head, the embedding is: it is tied.

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      first_layer: one second moment per row of the embedding too: the paper's first-layer correction.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jaxopt_lm.optimizers import Label, adalayer_star
      >>> labels = {"head": Label(("embed", "vocab"), "head"), "up": Label(("embed", "mlp"), "mlp")}
      >>> params = {"head": jnp.ones((4, 10)), "up": jnp.ones((4, 16))}
      >>> state = adalayer_star(3e-3, labels).init(params)
      >>> {name: v.shape for name, v in optax.tree.get(state, "nu").items()}
      {'head': (1, 10), 'up': (1, 1)}

    Reference: Zhao et al. 2024, arXiv 2407.07972, section 3.1.
    """
    return construct(AdalayerStarConfig, **locals())


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamMiniConfig(BlockAdamConfig):
    """Adam-mini: Adam with one second moment a token, a head or an output neuron.

    Formula: as adalayer by blocks: embedding and head a token, query and key a head, other matrices an output neuron,
      norms one
    Eps: added to the root
    Bias correction: m and v
    Decay: p <- p (1 - lr * weight_decay) - lr * u; norms do not decay
    Dampening: m is an average, weight 1 - b1
    State: 4 bytes a parameter
    Differs: neither optax nor PyTorch has it; the published code finds blocks by parameters' names, this by their axes
    Paper: Zhang et al. 2024, arXiv 2406.16793; package adam-mini 1.1.1
    """

    eps: float = 1e-8
    decay_roles: tuple[str, ...] = ("embedding", "attention", "mlp", "head")

    def blocks(self, labels: Any) -> Any:
        return jax.tree.map(adam_mini_axes, labels)


def adam_mini(
    learning_rate: Number = AdamMiniConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = AdamMiniConfig.b1,
    b2: Number = AdamMiniConfig.b2,
    eps: Number = AdamMiniConfig.eps,
    weight_decay: Number = AdamMiniConfig.weight_decay,
    decay_roles: Sequence[str] = AdamMiniConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = AdamMiniConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Adam-mini: Adam with one second moment a token, a head or an output neuron.

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) mean(g^2), over a block
        p <- p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    A block is a token of embedding and head, a head of query and key, an output neuron of other matrices, a norm.

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from jaxopt_lm.optimizers import Label, adam_mini
      >>> labels = {"query": Label(("embed", "heads", "head_dim"), "attention"), "up": Label(("embed", "mlp"), "mlp")}
      >>> params = {"query": jnp.ones((4, 2, 3)), "up": jnp.ones((4, 16))}
      >>> state = adam_mini(3e-3, labels).init(params)
      >>> {name: v.shape for name, v in optax.tree.get(state, "nu").items()}
      {'query': (1, 2, 1), 'up': (1, 16)}

    Reference: Zhang et al. 2024, arXiv 2406.16793; package adam-mini 1.1.1.
    """
    return construct(AdamMiniConfig, **locals())


def adam_mini_axes(label: Label) -> tuple[int, ...]:
    """The axes that Adam-mini keeps apart in one parameter."""
    stacked = (0,) if label.axes[:1] == ("layers",) else ()
    groups = matrix_axes(label)
    if len(groups) < 2:
        return stacked
    if label.role in ("embedding", "head") and {"embed", "vocab"} & set(label.axes):
        others = ("embed",) if "embed" in label.axes else set(label.axes) - {"layers", "vocab"}
        return tuple(i for i, axis in enumerate(label.axes) if axis not in others)
    if "head_dim" in label.axes:
        return (*stacked, *(i for i, axis in enumerate(label.axes) if axis in ("heads", "kv_heads")))
    return (*stacked, *output_axes(label))
