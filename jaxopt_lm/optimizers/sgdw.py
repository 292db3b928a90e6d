"""SGD with momentum and decoupled weight decay."""

import dataclasses
from typing import Any

import jax
import optax

from jaxopt_lm.optimizers.config import OptimizerConfig, check, traceable


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SgdwConfig(OptimizerConfig):
    """m <- momentum m + g (heavy ball: the first m is g, no dampening), direction = m, or g + momentum m for Nesterov.

    timm's SGDW. `optax.trace` is the momentum; optax has no decoupled decay for it.
    """

    learning_rate: float = 1.0
    momentum: float = 0.98
    """Decay of the sum of gradients."""
    nesterov: bool = False
    """Look ahead by one step of momentum."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "momentum", 0, 1, open_high=True)

    def make(self, multiplier: float | jax.Array, labels: Any) -> optax.GradientTransformation:
        return optax.chain(
            optax.trace(self.momentum, self.nesterov),
            optax.add_decayed_weights(self.weight_decay, self.decay_mask(labels)),
            optax.scale_by_learning_rate(self.learning_rate * multiplier),
        )
