"""ADOPT: Adam whose gradient is scaled by the second moment before it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.config import AdamConfig, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.trees import (
    as_dtype_of,
    ema,
    map_params,
    next_count,
)


def scale_by_adopt(b1: ArrayLike, b2: ArrayLike, eps: ArrayLike) -> optax.GradientTransformation:
    """`optax.contrib.scale_by_adopt`: m <- EMA(clip(g / max(sqrt(v), eps), t^(1/4))), t from 0, then v <- EMA(g^2).

    The first gradient enters v alone, whole: v_1 = g^2, m_1 = 0.
    """

    def update(updates, state, params=None):
        del params
        first = state.count == 0

        def average(g, m, v):
            bound = state.count.astype(g.dtype) ** 0.25
            scaled = jnp.clip(g / jnp.maximum(jnp.sqrt(v), as_dtype_of(eps, v)), -bound, bound)
            return ema(m, scaled, b1)  # scaled is 0 at first, for its bound is

        mu = map_params(average, updates, state.mu, state.nu)
        nu = map_params(lambda g, v: jnp.where(first, jnp.square(g), ema(v, jnp.square(g), b2)), updates, state.nu)
        return mu, optax.ScaleByAdamState(next_count(state.count), mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdoptConfig(AdamConfig):
    """ADOPT: Adam whose gradient is scaled by the second moment before it, so that any b2 converges.

    Formula: c = clip(g / max(sqrt(v), eps), t^(1/4)), t from 0; m <- b1 m + (1 - b1) c; u = m; then v <- b2 v + (1 -
      b2) g^2
    Eps: least root
    Bias correction: none; v_1 = g^2, m_1 = 0
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1
    State: 8 bytes a parameter
    Differs: `optax.contrib.adopt` with decay
    Paper: Taniguchi et al. 2024, arXiv 2411.02853
    """

    b2: float = 0.9999
    eps: float = 1e-6
    """Least root; positive."""

    def moments(self) -> dict[str, Any]:
        return {}  # gradients are divided by the root before they are averaged

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return scale_by_adopt(self.b1, self.b2, self.eps)


def adopt(
    learning_rate: Number = AdoptConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = AdoptConfig.b1,
    b2: Number = AdoptConfig.b2,
    eps: Number = AdoptConfig.eps,
    weight_decay: Number = AdoptConfig.weight_decay,
    decay_roles: Sequence[str] = AdoptConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = AdoptConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """ADOPT: Adam whose gradient is divided by the second moment before it, so that any b2 converges.

        c = clip(g / max(sqrt(v), eps), -(t - 1)^(1/4), (t - 1)^(1/4))
        m <- b1 m + (1 - b1) c
        v <- b2 v + (1 - b2) g^2; g^2 at t = 1
        p <- p (1 - lr wd) - lr m

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: least root; positive.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import adopt
      >>> params = {"w": jnp.ones(2)}
      >>> tx = adopt(0.1)
      >>> updates, state = tx.update({"w": jnp.array([3.0, -0.5])}, tx.init(params), params)
      >>> print(jnp.abs(updates["w"]).max())  # the first update sets v
      0.0

    Reference: Taniguchi et al. 2024, arXiv 2411.02853; `optax.contrib.adopt` with decay.
    """
    return construct(AdoptConfig, **locals())
