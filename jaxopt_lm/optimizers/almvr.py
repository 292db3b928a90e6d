"""ALMVR."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.block_adam import BlockAdamConfig, block_mean_square, zeros_of_blocks
from jaxopt_lm.optimizers.config import constructor, traceable
from jaxopt_lm.optimizers.groups import axes_kept, require_labels
from jaxopt_lm.optimizers.trees import bias_correction, ema, map_params, next_count, widen


class ScaleByAlmvrState(NamedTuple):
    """State of `scale_by_almvr`; as `ScaleByBlockAdamState`."""

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates


def scale_by_almvr(b1: ArrayLike, b2: ArrayLike, eps: ArrayLike, blocks: Any = None) -> optax.GradientTransformation:
    """u = m / sqrt(v / (1 - b2^t) + eps), m not bias-corrected.

    Args:
      b1: decay of the mean of gradients.
      b2: decay of the mean of squares.
      eps: added inside the root.
      blocks: as in `scale_by_block_adam`; None: one v an entry, which is optax.scale_by_adam(eps=0, eps_root=eps) times
        1 - b1^t.

    Reference: "Comprehensive Analysis of ALMVR", Aardvark 2025.
    """

    def blocks_of(updates):
        return map_params(lambda g: tuple(range(g.ndim)), updates) if blocks is None else blocks

    def init(params):
        mu = optax.tree.zeros_like(widen(params))
        return ScaleByAlmvrState(jnp.zeros((), jnp.int32), mu, map_params(zeros_of_blocks, mu, blocks_of(mu)))

    def update(updates, state, params=None):
        del params
        count = next_count(state.count)
        updates = widen(updates)
        mu = map_params(lambda g, m: ema(m, g, b1), updates, state.mu)
        nu = map_params(
            lambda g, v, kept: ema(v, block_mean_square(g, kept), b2), updates, state.nu, blocks_of(updates)
        )

        def direction(m, v):
            return m / jnp.sqrt(v / bias_correction(b2, count, v.dtype) + jnp.asarray(eps).astype(v.dtype))

        return map_params(direction, mu, nu), ScaleByAlmvrState(count, mu, nu)

    return optax.GradientTransformation(init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AlmvrConfig(BlockAdamConfig):
    """ALMVR: Adam without the momentum's bias correction and with eps inside the root.

    Formula: u = m / sqrt(v / (1 - b2^t) + eps)
    Eps: inside the root
    Bias correction: v alone
    Decay: p <- p (1 - lr * weight_decay) - lr * u; norms do not decay
    Dampening: m is an average, weight 1 - b1
    State: 8 bytes a parameter; 4 for granularity=tensor
    Differs: `optax.scale_by_adam(eps=0, eps_root=eps)` times 1 - b1^t; nothing in the formula is layer-wise
    Paper: "Comprehensive Analysis of ALMVR", Aardvark 2025; eps is our choice
    """

    learning_rate: float = 3e-4
    eps: float = 1e-8
    """Added inside the root."""
    weight_decay: float = 0.1
    decay_roles: tuple[str, ...] = ("embedding", "attention", "mlp", "head")
    granularity: Literal["element", "tensor"] = "element"
    """One second moment an entry, as the formula is written, or one a tensor."""

    def direction(self, labels: Any) -> optax.GradientTransformation:
        if self.granularity == "element":
            return scale_by_almvr(self.b1, self.b2, self.eps)
        require_labels(labels, "stacked layers are told apart")
        return scale_by_almvr(self.b1, self.b2, self.eps, axes_kept(labels, {}))

    def moments(self) -> dict[str, Any]:
        return {"b2": self.b2, "eps_root": self.eps}


almvr = constructor(AlmvrConfig)
