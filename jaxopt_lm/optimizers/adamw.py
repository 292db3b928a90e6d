"""AdamW."""

import dataclasses
from typing import Any

import optax

from jaxopt_lm.optimizers.config import OptimizerConfig, check_decays, check_eps, constructor, traceable


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """AdamW, as `torch.optim.AdamW`.

    Formula: m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
    Eps: added to the root
    Bias correction: m and v
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1
    State: 8 bytes a parameter
    Differs: `optax.adamw` with the defaults of the paper below; torch multiplies the decay by the rate too
    Paper: Loshchilov and Hutter 2019, arXiv 1711.05101; settings of arXiv 2407.07972
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
        check_decays(self, "b1", "b2")
        check_eps(self)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)

    def moments(self) -> dict[str, Any]:
        return {"b1": self.b1, "b2": self.b2, "eps": self.eps}


adamw = constructor(AdamWConfig)
