"""ALMVR."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import optax

from jaxopt_lm.optimizers.block_adam import BlockAdamConfig, scale_by_block_adam
from jaxopt_lm.optimizers.config import traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
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


def almvr(
    learning_rate: Number = AlmvrConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = AlmvrConfig.b1,
    b2: Number = AlmvrConfig.b2,
    eps: Number = AlmvrConfig.eps,
    granularity: Literal["element", "tensor"] = AlmvrConfig.granularity,
    weight_decay: Number = AlmvrConfig.weight_decay,
    decay_roles: Sequence[str] = AlmvrConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = AlmvrConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """ALMVR: Adam without the momentum's bias correction and with eps inside the root.

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2, or its mean over the tensor
        p <- p (1 - lr wd) - lr m / sqrt(v / (1 - b2^t) + eps)

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added inside the root.
      granularity: one second moment an entry, as the formula is written, or one a tensor.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import Label, almvr
      >>> params, grads = {"w": jnp.ones(2)}, {"w": jnp.array([3.0, -0.5])}
      >>> tx = almvr(0.1, {"w": Label(("embed",), "norm")})  # norms do not decay
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.01, 0.01]

    Reference: "Comprehensive Analysis of ALMVR", Aardvark 2025; eps is our choice.
    """
    return construct(AlmvrConfig, **locals())
