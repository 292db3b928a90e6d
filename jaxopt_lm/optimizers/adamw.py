"""AdamW."""

import dataclasses
from typing import Any

import optax

from jaxopt_lm.optimizers.block_adam import BlockAdamConfig
from jaxopt_lm.optimizers.config import constructor, traceable


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig(BlockAdamConfig):
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

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return optax.scale_by_adam(self.b1, self.b2, self.eps)


adamw = constructor(AdamWConfig)
