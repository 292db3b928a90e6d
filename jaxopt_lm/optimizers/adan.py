"""Adan: Nesterov momentum from averages of gradients and of their differences."""

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
    one_minus,
)


def scale_by_adan(
    b1: ArrayLike, b2: ArrayLike, b3: ArrayLike, eps: ArrayLike, eps_root: ArrayLike
) -> optax.GradientTransformation:
    """`optax.scale_by_adan`: averages m of g (b1), v of g - g_prev (b2), n of (g + (1 - b2) (g - g_prev))^2 (b3).

    Gives (m' + (1 - b2) v') / (sqrt(n' + eps_root) + eps), the primed bias-corrected. The first difference is 0.
    """

    def update(updates, state, params=None):
        del params
        count = next_count(state.t)

        def ahead(g, difference):
            return g + one_minus(b2, g.dtype) * difference

        differences = map_params(lambda g, last: jnp.where(state.t == 0, 0, g - last), updates, state.g)
        m = map_params(lambda g, m: ema(m, g, b1), updates, state.m)
        v = map_params(lambda d, v: ema(v, d, b2), differences, state.v)
        n = map_params(lambda g, d, n: ema(n, jnp.square(ahead(g, d)), b3), updates, differences, state.n)

        def direction(m, v, n):
            m, v, n = (x / bias_correction(b, count, x.dtype) for x, b in ((m, b1), (v, b2), (n, b3)))
            return ahead(m, v) / (jnp.sqrt(n + as_dtype_of(eps_root, n)) + as_dtype_of(eps, n))

        return map_params(direction, m, v, n), state._replace(m=m, v=v, n=n, g=updates, t=count)

    return optax.GradientTransformation(optax.scale_by_adan().init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdanConfig(AdamConfig):
    """Adan: Nesterov momentum from averages of gradients and of their differences.

    Formula: m, d averages of g, g - g_prev (b1, b2); n of (g + (1 - b2) (g - g_prev))^2 (b3); u = (m' + (1 - b2) d') /
      (sqrt(n' + eps_root) + eps)
    Eps: eps_root inside the root, eps added to it
    Bias correction: m, d and n, the primed
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: averages
    State: 16 bytes a parameter
    Differs: `optax.adan`, whose b are 1 minus the paper's; the paper divides by 1 + lr * weight_decay
    Paper: Xie et al. 2022, arXiv 2208.06677
    """

    b1: float = 0.98
    b2: float = 0.92
    """Decay of the mean of the gradients' differences."""
    eps: float = 1e-8
    b3: float = 0.99
    """Decay of the mean of squares."""
    eps_root: float = 1e-8
    """Added inside the root."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b3")
        check(self, "eps_root", 0)

    def moments(self) -> dict[str, Any]:
        return {"b1": self.b1, "b2": self.b3, "eps": self.eps, "eps_root": self.eps_root}

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return scale_by_adan(self.b1, self.b2, self.b3, self.eps, self.eps_root)


def adan(
    learning_rate: Number = AdanConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = AdanConfig.b1,
    b2: Number = AdanConfig.b2,
    eps: Number = AdanConfig.eps,
    b3: Number = AdanConfig.b3,
    eps_root: Number = AdanConfig.eps_root,
    weight_decay: Number = AdanConfig.weight_decay,
    decay_roles: Sequence[str] = AdanConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = AdanConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Adan: Nesterov momentum from averages of gradients and of their differences.

        m <- b1 m + (1 - b1) g
        d <- b2 d + (1 - b2) (g - g_prev)
        n <- b3 n + (1 - b3) (g + (1 - b2) (g - g_prev))^2
        p <- p (1 - lr wd) - lr (m' + (1 - b2) d') / (sqrt(n' + eps_root) + eps), the primed bias-corrected

    The paper's b are 1 minus these.

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: decay of the mean of gradients.
      b2: decay of the mean of the gradients' differences.
      eps: added to the root; positive.
      b3: decay of the mean of squares.
      eps_root: added inside the root.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import adan
      >>> params = {"w": jnp.ones(2)}
      >>> tx = adan(0.1)
      >>> updates, state = tx.update({"w": jnp.array([3.0, -0.5])}, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.1, 0.1]

    Reference: Xie et al. 2022, arXiv 2208.06677; `optax.adan`.
    """
    return construct(AdanConfig, **locals())
