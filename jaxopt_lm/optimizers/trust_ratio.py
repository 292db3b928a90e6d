"""LARS and LAMB: updates scaled to the norm of their parameter."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.block_adam import scale_by_block_adam
from jaxopt_lm.optimizers.config import AdamConfig, OptimizerConfig, check, check_decays, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import per_layer
from jaxopt_lm.optimizers.sgdw import heavy_ball
from jaxopt_lm.optimizers.trees import map_params, widen


def scale_by_lars_ratio(
    trust_coefficient: ArrayLike, weight_decay: ArrayLike, decay_mask: Any = None
) -> optax.GradientTransformation:
    """(g + wd p) c |p| / (|g| + wd |p|), norms over each parameter; g + wd p where |p| or |g| is 0.

    Args:
      trust_coefficient: what the norms' ratio is multiplied by.
      weight_decay: wd.
      decay_mask: a tree of bools, wd is 0 where it is False; None decays all.
    """

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("scale_by_lars_ratio: give update(updates, state, params)")
        updates, params = widen(updates), widen(params)
        mask = map_params(lambda _: True, updates) if decay_mask is None else decay_mask

        def scaled(g, p, decays):
            c, wd = (jnp.asarray(x).astype(g.dtype) for x in (trust_coefficient, weight_decay if decays else 0.0))
            p_norm, g_norm = jnp.linalg.norm(p), jnp.linalg.norm(g)
            ratio = c * p_norm / (g_norm + wd * p_norm)
            return (g + wd * p) * jnp.where((p_norm == 0) | (g_norm == 0), 1.0, ratio)

        return map_params(scaled, updates, params, mask), state

    return optax.GradientTransformation(optax.init_empty_state, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class LarsConfig(OptimizerConfig):
    """LARS: heavy ball on gradients scaled to their parameter's norm.

    Formula: d = c |p| / (|g| + wd |p|) (g + wd p); m_1 = d, then m <- momentum m + d; u = m
    Eps: none; the ratio is 1 where a norm is 0
    Bias correction: none
    Decay: inside, scaled by the ratio, through the momentum
    Dampening: none
    State: 4 bytes a parameter
    Differs: `optax.lars` has the rate inside the momentum and |g + wd p| below; timm's `Lars` with always_adapt
    Paper: You et al. 2017, arXiv 1708.03888; timm 1.0.31
    """

    learning_rate: float = 3.0
    momentum: float = 0.9
    """Decay of the sum of scaled gradients."""
    trust_coefficient: float = 0.001
    """c."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "momentum")
        check(self, "trust_coefficient", 0, open_low=True)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        ratio = scale_by_lars_ratio(self.trust_coefficient, self.weight_decay, self.decay_mask(labels))
        return optax.chain(ratio if labels is None else per_layer(ratio, labels), heavy_ball(self.momentum))

    def decay(self, labels: Any) -> optax.GradientTransformation:
        return optax.identity()


def lars(
    learning_rate: Number = LarsConfig.learning_rate,
    labels: Labels = None,
    *,
    momentum: Number = LarsConfig.momentum,
    trust_coefficient: Number = LarsConfig.trust_coefficient,
    weight_decay: Number = LarsConfig.weight_decay,
    decay_roles: Sequence[str] = LarsConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = LarsConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """LARS: heavy ball on gradients scaled to the norm of their parameter.

        d = trust_coefficient |p| / (|g| + wd |p|) (g + wd p), or g + wd p where a norm is 0
        m <- d at first, then momentum m + d
        p <- p - lr m

    `optax.lars` has the rate inside the momentum; this is timm's `Lars` with always_adapt.

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed where
        layers are stacked, and for decay_roles that leave a role out.
      momentum: decay of the sum of scaled gradients.
      trust_coefficient: what the norms' ratio is multiplied by.
      weight_decay: wd, inside the ratio and the momentum.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import lars
      >>> params, grads = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.0, 2.0])}
      >>> tx = lars(1.0, trust_coefficient=0.01)
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.0, -0.05]

    Reference: You et al. 2017, arXiv 1708.03888; timm 1.0.31.
    """
    return construct(LarsConfig, **locals())


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class LambConfig(AdamConfig):
    """LAMB: Adam's direction, decay in it, scaled to its parameter's norm.

    Formula: d = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + wd p; u = d |p| / |d|, d where a norm is 0
    Eps: added to the root
    Bias correction: m and v
    Decay: in d, before the ratio
    Dampening: m is an average, weight 1 - b1
    State: 8 bytes a parameter
    Differs: `optax.lamb`, layer by layer; timm's scales a parameter by the ratio only where it decays
    Paper: You et al. 2020, arXiv 1904.00962; timm 1.0.31 `Lamb` without its clipping of gradients
    """

    learning_rate: float = 1e-2
    b2: float = 0.999
    eps: float = 1e-6

    def direction(self, labels: Any) -> optax.GradientTransformation:
        ratio = optax.scale_by_trust_ratio()
        return optax.chain(
            scale_by_block_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay, self.decay_mask(labels)),
            ratio if labels is None else per_layer(ratio, labels),
        )

    def moments(self) -> dict[str, Any]:
        return {}  # the trust ratio is part of the rate

    def decay(self, labels: Any) -> optax.GradientTransformation:
        return optax.identity()


def lamb(
    learning_rate: Number = LambConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = LambConfig.b1,
    b2: Number = LambConfig.b2,
    eps: Number = LambConfig.eps,
    weight_decay: Number = LambConfig.weight_decay,
    decay_roles: Sequence[str] = LambConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = LambConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """LAMB: Adam's direction with decay in it, scaled to the norm of its parameter.

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        d = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + wd p
        p <- p - lr d |p| / |d|, or - lr d where a norm is 0

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed where
        layers are stacked, and for decay_roles that leave a role out.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      weight_decay: wd, added before the ratio.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import lamb
      >>> params, grads = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([0.0, 2.0])}
      >>> tx = lamb(0.01)
      >>> updates, state = tx.update(grads, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.0, -0.05]

    Reference: You et al. 2020, arXiv 1904.00962; timm 1.0.31's `Lamb` without its clipping of gradients.
    """
    return construct(LambConfig, **locals())
