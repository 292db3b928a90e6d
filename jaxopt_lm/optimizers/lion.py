"""Lion, and Signum, which is Lion with both decays equal."""

import dataclasses
from typing import Any

import jax
import optax

from jaxopt_lm.optimizers.config import OptimizerConfig, check, traceable


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class LionConfig(OptimizerConfig):
    """direction = sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g.

    This is `optax.lion`. Chen et al. 2023, arXiv 2302.06675.
    """

    learning_rate: float = 3.16e-4
    b1: float = 0.9
    """Weight of the momentum in the direction."""
    b2: float = 0.95
    """Decay of the momentum."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "b1", 0, 1, open_high=True)
        check(self, "b2", 0, 1, open_high=True)

    def make(self, multiplier: float | jax.Array, labels: Any) -> optax.GradientTransformation:
        return optax.lion(
            self.learning_rate * multiplier, self.b1, self.b2, None, self.weight_decay, self.decay_mask(labels)
        )


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SignumConfig(OptimizerConfig):
    """m <- b1 m + (1 - b1) g, direction = sign(m): `optax.lion` with b1 = b2.

    Bernstein et al. 2018, arXiv 1802.04434, with an exponential moving average as in arXiv 2407.07972.
    """

    learning_rate: float = 3.16e-4
    b1: float = 0.9
    """Decay of the momentum."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "b1", 0, 1, open_high=True)

    def make(self, multiplier: float | jax.Array, labels: Any) -> optax.GradientTransformation:
        return optax.lion(
            self.learning_rate * multiplier, self.b1, self.b1, None, self.weight_decay, self.decay_mask(labels)
        )
