"""AdEMAMix: Adam with a second, slow average of gradients."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.config import AdamConfig, check, check_decays, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.trees import (
    as_dtype_of,
    bias_correction,
    ema,
    map_params,
    next_count,
)


def scale_by_ademamix(
    b1: ArrayLike, b2: ArrayLike, b3: ArrayLike, alpha: ArrayLike, eps: ArrayLike
) -> optax.GradientTransformation:
    """`optax.contrib`'s: (m1 / (1 - b1^t) + alpha m2) / (sqrt(v / (1 - b2^t)) + eps), m2 of decay b3."""

    def update(updates, state, params=None):
        del params
        count = next_count(state.count)
        m1, m2 = (map_params(lambda g, m, b=b: ema(m, g, b), updates, m) for m, b in ((state.m1, b1), (state.m2, b3)))
        nu = map_params(lambda g, v: ema(v, jnp.square(g), b2), updates, state.nu)

        def direction(m1, m2, v):
            m_hat, v_hat = m1 / bias_correction(b1, count, m1.dtype), v / bias_correction(b2, count, v.dtype)
            return (m_hat + as_dtype_of(alpha, m1) * m2) / (jnp.sqrt(v_hat) + as_dtype_of(eps, v))

        after = state._replace(count=count, count_m2=next_count(state.count_m2), m1=m1, m2=m2, nu=nu)
        return map_params(direction, m1, m2, nu), after

    return optax.GradientTransformation(optax.contrib.scale_by_ademamix().init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdEMAMixConfig(AdamConfig):
    """AdEMAMix: Adam with a second, slow average of gradients.

    Formula: m1, m2 averages of g (b1, b3), v of g^2; u = (m1 / (1 - b1^t) + alpha m2) / (sqrt(v / (1 - b2^t)) + eps)
    Eps: added to the root
    Bias correction: m1 and v
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: averages
    State: 12 bytes a parameter
    Differs: `optax.contrib.ademamix`; alpha and b3 are constant, without the paper's warmups
    Paper: Pagliardini et al. 2024, arXiv 2409.03137
    """

    b2: float = 0.999
    eps: float = 1e-8
    b3: float = 0.9999
    """Decay of the slow mean of gradients."""
    alpha: float = 5.0
    """Weight of the slow mean."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b3")
        check(self, "alpha", 0)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return scale_by_ademamix(self.b1, self.b2, self.b3, self.alpha, self.eps)


def ademamix(
    learning_rate: Number = AdEMAMixConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = AdEMAMixConfig.b1,
    b2: Number = AdEMAMixConfig.b2,
    eps: Number = AdEMAMixConfig.eps,
    b3: Number = AdEMAMixConfig.b3,
    alpha: Number = AdEMAMixConfig.alpha,
    weight_decay: Number = AdEMAMixConfig.weight_decay,
    decay_roles: Sequence[str] = AdEMAMixConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = AdEMAMixConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """AdEMAMix: Adam with a second, slow average of gradients.

        m1 <- b1 m1 + (1 - b1) g
        m2 <- b3 m2 + (1 - b3) g
        v <- b2 v + (1 - b2) g^2
        p <- p (1 - lr wd) - lr (m1 / (1 - b1^t) + alpha m2) / (sqrt(v / (1 - b2^t)) + eps)

    alpha and b3 may be schedules; the paper warms both up.

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      b3: decay of the slow mean of gradients.
      alpha: weight of the slow mean.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import ademamix
      >>> params = {"w": jnp.ones(2)}
      >>> tx = ademamix(0.1, alpha=1000.0)
      >>> updates, state = tx.update({"w": jnp.array([3.0, -0.5])}, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.11, 0.11]

    Reference: Pagliardini et al. 2024, arXiv 2409.03137; `optax.contrib.ademamix`.
    """
    return construct(AdEMAMixConfig, **locals())
