"""AdamW."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import optax

from jaxopt_lm.optimizers.block_adam import scale_by_block_adam
from jaxopt_lm.optimizers.config import AdamConfig, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWConfig(AdamConfig):
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
        return scale_by_block_adam(self.b1, self.b2, self.eps)


def adamw(
    learning_rate: Number = AdamWConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = AdamWConfig.b1,
    b2: Number = AdamWConfig.b2,
    eps: Number = AdamWConfig.eps,
    weight_decay: Number = AdamWConfig.weight_decay,
    decay_roles: Sequence[str] = AdamWConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = AdamWConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """AdamW: Adam with decoupled weight decay.

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        p <- p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import adamw
      >>> params = {"w": jnp.ones(2)}
      >>> tx = adamw(0.1)  # at first each entry moves by the rate
      >>> updates, state = tx.update({"w": jnp.array([3.0, -0.5])}, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.1, 0.1]

    Reference: Loshchilov and Hutter 2019, arXiv 1711.05101; defaults of Zhao et al. 2024, arXiv 2407.07972.
    """
    return construct(AdamWConfig, **locals())
