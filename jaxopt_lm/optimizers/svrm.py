"""SVRM, scaled variance-reduced momentum."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.config import AdamConfig, check, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import require_labels
from jaxopt_lm.optimizers.trees import ema, map_params, widen


class ScaleBySvrmState(NamedTuple):
    """State of `scale_by_svrm`.

    Attributes:
      mu: average of raw gradients.
      nu: average of squared gradients.
    """

    mu: optax.Updates
    nu: optax.Updates


def scale_by_svrm(b1: ArrayLike, b2: ArrayLike, eps: ArrayLike, gamma: ArrayLike) -> optax.GradientTransformation:
    """u = m / (sqrt(v) + eps), m the average of g + gamma b1 / (1 - b1) (g - g_prev); no bias correction.

    With g_prev = 0 at t = 1 the recursion gives m = (1 - gamma) EMA(g) + gamma g, so no gradient is kept.

    Args:
      b1: decay of the mean of gradients.
      b2: decay of the mean of squares of raw gradients.
      eps: added to the root.
      gamma: 0 is Adam without bias correction, 1 makes m the gradient.

    Reference: "Scaled Variance-Reduced Momentum", Aardvark 2025.
    """

    def init(params):
        zeros = optax.tree.zeros_like(widen(params))
        return ScaleBySvrmState(zeros, optax.tree.zeros_like(zeros))

    def update(updates, state, params=None):
        del params
        updates = widen(updates)
        mu = map_params(lambda g, m: ema(m, g, b1), updates, state.mu)
        nu = map_params(lambda g, v: ema(v, jnp.square(g), b2), updates, state.nu)

        def direction(g, m, v):
            return ema(g, m, gamma) / (jnp.sqrt(v) + jnp.asarray(eps).astype(v.dtype))

        return map_params(direction, updates, mu, nu), ScaleBySvrmState(mu, nu)

    return optax.GradientTransformation(init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SvrmConfig(AdamConfig):
    """SVRM: Adam without bias correction on variance-reduced gradients, with a rate per role.

    Formula: m <- b1 m + (1 - b1) (g + gamma b1 / (1 - b1) (g - g_prev)), g_prev = 0 at first; u = m / (sqrt(v) + eps)
    Eps: added to the root
    Bias correction: none
    Decay: p <- p (1 - lr * s * weight_decay) - lr * s * u, s the role's multiplier
    Dampening: m is an average, weight 1 - b1
    State: 8 bytes a parameter
    Differs: neither optax nor PyTorch has it; kept as m = (1 - gamma) EMA(g) + gamma g, no gradient is stored
    Paper: "Scaled Variance-Reduced Momentum", Aardvark 2025; eps is our choice
    """

    learning_rate: float = 3e-4
    b1: float = 0.85
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.1
    gamma: float = 0.3
    """Strength of variance reduction."""
    attention_multiplier: float = 1.1
    """Factor of attention's learning rate."""
    mlp_multiplier: float = 1.0
    """Factor of the MLPs' learning rate."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "gamma", 0)
        check(self, "attention_multiplier", 0)
        check(self, "mlp_multiplier", 0)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return scale_by_svrm(self.b1, self.b2, self.eps, self.gamma)

    def moments(self) -> dict[str, Any]:
        return {"eps": self.eps}

    def rate_multipliers(self, labels: Any) -> Callable[[Any], Any]:
        require_labels(labels, "rates are scaled")
        factors = {"attention": self.attention_multiplier, "mlp": self.mlp_multiplier}
        return lambda updates: map_params(lambda _, label: factors.get(label.role, 1.0), updates, labels)


def svrm(
    learning_rate: Number = SvrmConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = SvrmConfig.b1,
    b2: Number = SvrmConfig.b2,
    eps: Number = SvrmConfig.eps,
    gamma: Number = SvrmConfig.gamma,
    attention_multiplier: Number = SvrmConfig.attention_multiplier,
    mlp_multiplier: Number = SvrmConfig.mlp_multiplier,
    weight_decay: Number = SvrmConfig.weight_decay,
    decay_roles: Sequence[str] = SvrmConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = SvrmConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """SVRM: Adam without bias correction on variance-reduced gradients, with a rate per role.

        m <- b1 m + (1 - b1) (g + gamma b1 / (1 - b1) (g - g_prev)), g_prev = 0 at first
        v <- b2 v + (1 - b2) g^2
        p <- p (1 - lr s wd) - lr s m / (sqrt(v) + eps), s the multiplier of the role

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      gamma: strength of variance reduction.
      attention_multiplier: factor of attention's learning rate.
      mlp_multiplier: factor of the MLPs' learning rate.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import Label, svrm
      >>> params, grads = {"w": jnp.ones(2)}, {"w": jnp.array([3.0, -0.5])}
      >>> tx = svrm(0.1, {"w": Label(("embed",), "norm")}, weight_decay=0.0)
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.2864, 0.2864]

    Reference: "Scaled Variance-Reduced Momentum", Aardvark 2025; eps is our choice.
    """
    return construct(SvrmConfig, **locals())
