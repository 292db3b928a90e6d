"""AdamW."""

import dataclasses
from typing import Any

import jax
import optax

from jaxopt_lm.optimizers.config import OptimizerConfig, check, traceable


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """direction = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps), m and v the EMAs of g and g^2: torch's AdamW.

    This is `optax.adamw`. Loshchilov and Hutter 2019, arXiv 1711.05101.
    """

    learning_rate: float = 3.16e-3
    b1: float = 0.9
    """Decay of the mean of gradients."""
    b2: float = 0.95
    """Decay of the mean of squared gradients."""
    eps: float = 1e-15
    """Added to the root; positive, or an entry that never had a gradient becomes 0 / 0."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "b1", 0, 1, open_high=True)
        check(self, "b2", 0, 1, open_high=True)
        check(self, "eps", 0, open_low=True)

    def make(self, multiplier: float | jax.Array, labels: Any) -> optax.GradientTransformation:
        return optax.adamw(
            self.learning_rate * multiplier,
            b1=self.b1,
            b2=self.b2,
            eps=self.eps,
            weight_decay=self.weight_decay,
            mask=self.decay_mask(labels),
        )
