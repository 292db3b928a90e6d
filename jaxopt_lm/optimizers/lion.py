"""Lion, and Signum, which is Lion with both decays equal."""

import dataclasses
from typing import Any

import optax

from jaxopt_lm.optimizers.config import OptimizerConfig, check_decays, constructor, traceable


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class LionConfig(OptimizerConfig):
    """Lion.

    Formula: u = sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g
    Eps: none
    Bias correction: none
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b2
    State: 4 bytes a parameter
    Differs: `optax.lion`
    Paper: Chen et al. 2023, arXiv 2302.06675
    """

    learning_rate: float = 3.16e-4
    b1: float = 0.9
    """Weight of the momentum in the direction."""
    b2: float = 0.95
    """Decay of the momentum."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b1", "b2")

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return optax.scale_by_lion(self.b1, self.b2)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SignumConfig(OptimizerConfig):
    """Signum: Lion with b1 = b2.

    Formula: m <- b1 m + (1 - b1) g; u = sign(m)
    Eps: none
    Bias correction: none, a sign needs none
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1
    State: 4 bytes a parameter
    Differs: `optax.lion` with b1 = b2; the paper's m is a sum, which has the same sign
    Paper: Bernstein et al. 2018, arXiv 1802.04434, as in arXiv 2407.07972
    """

    learning_rate: float = 3.16e-4
    b1: float = 0.9
    """Decay of the momentum."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b1")

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return optax.scale_by_lion(self.b1, self.b1)


lion, signum = constructor(LionConfig), constructor(SignumConfig)
