"""ALMVR."""

import dataclasses
from typing import Any, Literal

import optax

from jaxopt_lm.optimizers.block_adam import BlockAdamConfig, scale_by_block_adam
from jaxopt_lm.optimizers.config import constructor, traceable
from jaxopt_lm.optimizers.groups import require_labels


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
        blocks = None
        if self.granularity == "tensor":
            require_labels(labels, "stacked layers are told apart")
            blocks = self.blocks(labels)
        return scale_by_block_adam(self.b1, self.b2, 0.0, blocks, eps_root=self.eps, debias_mean=False)

    def moments(self) -> dict[str, Any]:
        return {"b2": self.b2, "eps_root": self.eps}


almvr = constructor(AlmvrConfig)
