"""SGD with momentum and decoupled weight decay."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.config import OptimizerConfig, check, check_decays, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.trees import bias_correction, decay_and_add, ema, map_params, next_count, one_minus


class HeavyBallState(NamedTuple):
    """State of `heavy_ball`.

    Attributes:
      count: updates made so far, int32.
      mu: the sum of gradients.
    """

    count: jax.Array
    mu: optax.Updates


def heavy_ball(
    momentum: ArrayLike, dampening: ArrayLike = 0.0, *, nesterov: bool = False
) -> optax.GradientTransformation:
    """m_1 = g, then m <- momentum m + (1 - dampening) g; gives m, or g + momentum m for Nesterov.

    `optax.trace` with the dampening of `torch.optim.SGD`, which spares the first gradient.
    """

    def init(params):
        return HeavyBallState(jnp.zeros((), jnp.int32), optax.tree.zeros_like(params))

    def update(updates, state, params=None):
        del params

        updates = jax.tree.map(lambda g, m: g.astype(m.dtype), updates, state.mu)

        def add(g, m):
            return decay_and_add(m, jnp.where(state.count == 0, 1, one_minus(dampening, m.dtype)) * g, momentum)

        mu = jax.tree.map(add, updates, state.mu)
        if nesterov:
            updates = jax.tree.map(lambda g, m: decay_and_add(m, g, momentum), updates, mu)
        return updates if nesterov else mu, HeavyBallState(next_count(state.count), mu)

    return optax.GradientTransformation(init, update)


def debiased_ema(decay: ArrayLike) -> optax.GradientTransformation:
    """`optax.ema`: m <- decay m + (1 - decay) g; gives m / (1 - decay^t)."""

    def update(updates, state, params=None):
        del params
        count = next_count(state.count)
        average = map_params(lambda g, m: ema(m, g, decay), updates, state.ema)
        corrected = map_params(lambda m: m / bias_correction(decay, count, m.dtype), average)
        return corrected, optax.EmaState(count, average)

    return optax.GradientTransformation(optax.ema(0.0).init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SgdwConfig(OptimizerConfig):
    """SGD with momentum (heavy ball) and decoupled decay: timm's SGDW.

    Formula: m_1 = g, then m <- momentum m + (1 - dampening) g; u = m, or g + momentum m for Nesterov
    Eps: none
    Bias correction: none
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: its field, 0 by default; the first momentum is never dampened, as in torch
    State: 4 bytes a parameter
    Differs: `optax.sgd` has neither decoupled decay nor dampening; `torch.optim.SGD` couples the decay
    Paper: Loshchilov and Hutter 2019, arXiv 1711.05101; b .98 of arXiv 2407.07972
    """

    learning_rate: float = 1.0
    momentum: float = 0.98
    """Decay of the sum of gradients."""
    dampening: float = 0.0
    """What a gradient after the first lacks of its weight in the sum."""
    nesterov: bool = False
    """Look ahead by one step of momentum."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "momentum")
        check(self, "dampening", 0, 1)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return heavy_ball(self.momentum, self.dampening, nesterov=self.nesterov)


def sgdw(
    learning_rate: Number = SgdwConfig.learning_rate,
    labels: Labels = None,
    *,
    momentum: Number = SgdwConfig.momentum,
    dampening: Number = SgdwConfig.dampening,
    nesterov: bool = SgdwConfig.nesterov,
    weight_decay: Number = SgdwConfig.weight_decay,
    decay_roles: Sequence[str] = SgdwConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = SgdwConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """SGD with momentum and decoupled weight decay: timm's SGDW.

        m <- g at first, then momentum m + (1 - dampening) g
        p <- p (1 - lr wd) - lr m, or - lr (g + momentum m) for Nesterov

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      momentum: decay of the sum of gradients.
      dampening: what a gradient after the first lacks of its weight in the sum.
      nesterov: look ahead by one step of momentum.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import sgdw
      >>> params = {"w": jnp.ones(2)}
      >>> tx = sgdw(0.1, momentum=0.9)
      >>> updates, state = tx.update({"w": jnp.array([3.0, -0.5])}, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.3, 0.05]

    Reference: Loshchilov and Hutter 2019, arXiv 1711.05101.
    """
    return construct(SgdwConfig, **locals())
