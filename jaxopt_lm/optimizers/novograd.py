"""NovoGrad: heavy ball on gradients divided by an average of their norm."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import optax
import optax.contrib

from jaxopt_lm.optimizers.config import AdamConfig, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import partition, per_layer


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class NovoGradConfig(AdamConfig):
    """NovoGrad: heavy ball on gradients divided by an average of their norm, one a tensor and layer.

    Formula: v_1 = |g|^2, then v <- b2 v + (1 - b2) |g|^2; d = g / (sqrt(v) + eps) + wd p; m_1 = d, then m <- b1 m + d;
      u = m
    Eps: added to the root
    Bias correction: none
    Decay: in d, through the momentum
    Dampening: none
    State: 4 bytes a parameter
    Differs: `optax.novograd`, layer by layer
    Paper: Ginsburg et al. 2019, arXiv 1905.11286
    """

    learning_rate: float = 1e-2
    b1: float = 0.9
    """Decay of the sum of scaled gradients."""
    b2: float = 0.25
    """Decay of the mean of squared norms."""
    eps: float = 1e-6

    def moments(self) -> dict[str, Any]:
        return {}  # gradients are divided by the root before they are averaged

    def direction(self, labels: Any) -> optax.GradientTransformation:
        def tx(weight_decay):
            return optax.scale_by_novograd(self.b1, self.b2, self.eps, weight_decay=weight_decay)

        if labels is None:
            return tx(self.weight_decay)
        parts = {"decayed": per_layer(tx(self.weight_decay), labels), "undecayed": per_layer(tx(0.0), labels)}
        return partition(parts, lambda label: "decayed" if self.decays(label) else "undecayed", labels)

    def decay(self, labels: Any) -> optax.GradientTransformation:
        return optax.identity()


def novograd(
    learning_rate: Number = NovoGradConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = NovoGradConfig.b1,
    b2: Number = NovoGradConfig.b2,
    eps: Number = NovoGradConfig.eps,
    weight_decay: Number = NovoGradConfig.weight_decay,
    decay_roles: Sequence[str] = NovoGradConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = NovoGradConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """NovoGrad: heavy ball on gradients divided by an average of their norm, one a tensor and layer.

        v <- |g|^2 at first, then b2 v + (1 - b2) |g|^2
        d = g / (sqrt(v) + eps) + wd p
        m <- d at first, then b1 m + d
        p <- p - lr m

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed where
        layers are stacked, and for decay_roles that leave a role out.
      b1: decay of the sum of scaled gradients.
      b2: decay of the mean of squared norms.
      eps: added to the root; positive.
      weight_decay: wd, through the momentum.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import novograd
      >>> params, grads = {"w": jnp.ones(2)}, {"w": jnp.array([3.0, -4.0])}
      >>> tx = novograd(0.1)
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.06, 0.08]

    Reference: Ginsburg et al. 2019, arXiv 1905.11286; `optax.novograd`, layer by layer.
    """
    return construct(NovoGradConfig, **locals())
