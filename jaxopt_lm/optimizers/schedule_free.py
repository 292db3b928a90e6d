"""Schedule-free AdamW, and the parameters to evaluate."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import ArrayLike

from jaxopt_lm.errors import require
from jaxopt_lm.optimizers.config import AdamConfig, check, field_name, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.rates import scale_by_rate
from jaxopt_lm.optimizers.trees import (
    as_dtype_of,
    bias_correction,
    ema,
    is_masked,
    map_params,
    next_count,
    with_wide_state,
)


def scale_by_rms(decay: ArrayLike, eps: ArrayLike) -> optax.GradientTransformation:
    """`optax.scale_by_rms`, bias-corrected, eps outside: v <- EMA(g^2); gives g / (sqrt(v / (1 - b^t)) + eps)."""

    def update(updates, state, params=None):
        del params
        count = next_count(state.count)
        nu = map_params(lambda g, v: ema(v, jnp.square(g), decay), updates, state.nu)

        def direction(g, v):
            return g / (jnp.sqrt(v / bias_correction(decay, count, v.dtype)) + as_dtype_of(eps, v))

        return map_params(direction, updates, nu), state._replace(count=count, nu=nu)

    return optax.GradientTransformation(optax.scale_by_rms(bias_correction=True).init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleFreeAdamWConfig(AdamConfig):
    """Schedule-free AdamW: gradients at an interpolation y of the iterate z and its average x; x is what to evaluate.

    Formula: z <- z - lr (g / (sqrt(v / (1 - b2^t)) + eps) + wd y); x <- average of z, weights max(lr)^2; y = b1 x + (1
      - b1) z
    Eps: added to the root
    Bias correction: v
    Decay: z <- … - lr * weight_decay * y
    Dampening: none; b1 interpolates
    State: 8 bytes a parameter
    Differs: `optax.contrib.schedule_free_adamw`; `eval_params` gives x
    Paper: Defazio et al. 2024, arXiv 2405.15682
    """

    b1: float = 0.9
    """Weight of x in y."""
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        super().__post_init__()
        check(self, "b1", 0, 1, open_low=True, open_high=True)
        require(
            self.mu_dtype is None,
            f"{field_name(self, 'mu_dtype')}={self.mu_dtype!r}: schedule_free_adamw keeps no momentum; leave it None",
        )

    def moments(self) -> dict[str, Any]:
        return {"b2": self.b2, "eps": self.eps}

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return scale_by_rms(self.b2, self.eps)

    def make(self, multiplier: ArrayLike, labels: Any) -> optax.GradientTransformationExtraArgs:
        rate = jnp.asarray(self.learning_rate * multiplier)
        base = optax.chain(self.direction(labels), self.decay(labels), scale_by_rate(rate, moments=self.moments()))
        return with_wide_state(optax.contrib.schedule_free(base, rate, self.b1), name=type(self).__name__)


def schedule_free_adamw(
    learning_rate: Number = ScheduleFreeAdamWConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = ScheduleFreeAdamWConfig.b1,
    b2: Number = ScheduleFreeAdamWConfig.b2,
    eps: Number = ScheduleFreeAdamWConfig.eps,
    weight_decay: Number = ScheduleFreeAdamWConfig.weight_decay,
    decay_roles: Sequence[str] = ScheduleFreeAdamWConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = ScheduleFreeAdamWConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Schedule-free AdamW: gradients at y, between the iterate z and its average x; x is what to evaluate.

        v <- b2 v + (1 - b2) g^2, g the gradient at y
        z <- z - lr (g / (sqrt(v / (1 - b2^t)) + eps) + wd y)
        x <- average of z, with weights max(lr)^2
        y <- b1 x + (1 - b1) z, the parameters

    `eval_params(opt_state, params)` gives x.

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: weight of x in y.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: None; there is no momentum.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import schedule_free_adamw
      >>> params = {"w": jnp.ones(2)}
      >>> tx = schedule_free_adamw(0.1)
      >>> updates, state = tx.update({"w": jnp.array([3.0, -0.5])}, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.1, 0.1]

    Reference: Defazio et al. 2024, arXiv 2405.15682; `optax.contrib.schedule_free_adamw`.
    """
    return construct(ScheduleFreeAdamWConfig, **locals())


def eval_params(opt_state: optax.OptState, params: Any) -> Any:
    """The parameters to evaluate and export: schedule-free's average, and `params` themselves of any other optimizer.

    Args:
      opt_state: of any chain, partition or wrapper of optax's, with a schedule-free part or without.
      params: those being trained.
    """
    for state in _schedule_free_states(opt_state):
        params = jax.tree.map(
            lambda y, z, b1=state.b1: y if is_masked(z) else ((y - (1 - b1) * z) / b1).astype(y.dtype),
            params,
            state.z,
        )
    return params


def _schedule_free_states(state: Any) -> list[Any]:
    def found(node):  # by name: a run may have kept the source of another optax's
        return type(node).__name__ == optax.contrib.ScheduleFreeState.__name__

    return [leaf for leaf in jax.tree.leaves(state, is_leaf=found) if found(leaf)]
