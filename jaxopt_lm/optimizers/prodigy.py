"""Prodigy: Adam that estimates its own rate."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.config import AdamConfig, check, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.rates import ScaleByRateState
from jaxopt_lm.optimizers.trees import (
    as_dtype_of,
    bias_correction,
    decay_and_add,
    ema,
    map_params,
    next_count,
    with_wide_state,
)


def scale_by_prodigy(
    rate: ArrayLike,
    b1: ArrayLike,
    b2: ArrayLike,
    eps: ArrayLike,
    *,
    first_estimate: ArrayLike,
    growth: ArrayLike,
    safeguard_warmup: bool,
) -> optax.GradientTransformation:
    """`optax.contrib.prodigy` without decay: p <- p - d lr c m / (sqrt(v) + d' eps), m, v averages of d g, (d g)^2.

    c = sqrt(1 - b2^t) / (1 - b1^t). d' = max(d, growth r / sum(abs(s))), where r and s decay by sqrt(b2) and sum up
    w d / d_0 <g, p_0 - p> and w / d_0 d g, w = d lr c; for `safeguard_warmup` w in s is d. While no gradient has been
    other than 0, s is 0 and d stays.
    """

    def update(updates, state, params=None):
        count, d, b3 = next_count(state.count), state.estim_lr, b2**0.5
        weight = d * as_dtype_of(rate, d) * prodigy_correction(b1, b2, count, d.dtype)
        relative = d / as_dtype_of(first_estimate, d)
        mu = map_params(lambda g, m: ema(m, d * g, b1), updates, state.exp_avg)
        nu = map_params(lambda g, v: ema(v, jnp.square(d * g), b2), updates, state.exp_avg_sq)
        in_sum = relative * (d if safeguard_warmup else weight)
        grad_sum = map_params(lambda g, s: decay_and_add(s, in_sum * g, b3), updates, state.grad_sum)
        towards = optax.tree.vdot(updates, optax.tree.sub(state.params0, params))
        numerator = decay_and_add(state.numerator_weighted, relative * weight * towards, b3)
        total = optax.tree.sum(map_params(lambda s: jnp.sum(jnp.abs(s)), grad_sum))
        estimate = jnp.where(total == 0, 0, as_dtype_of(growth, d) * numerator / jnp.where(total == 0, 1, total))
        d = jnp.maximum(d, estimate)
        directions = map_params(lambda m, v: -weight * m / (jnp.sqrt(v) + d * as_dtype_of(eps, d)), mu, nu)
        return directions, state._replace(
            exp_avg=mu, exp_avg_sq=nu, grad_sum=grad_sum, estim_lr=d, numerator_weighted=numerator, count=count
        )

    return optax.GradientTransformation(optax.contrib.prodigy(estim_lr0=first_estimate).init, update)


def prodigy_correction(b1: ArrayLike, b2: ArrayLike, count, dtype):
    """sqrt(1 - b2^t) / (1 - b1^t), which Prodigy has in its rate."""
    return jnp.sqrt(bias_correction(b2, count, dtype)) / bias_correction(b1, count, dtype)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProdigyConfig(AdamConfig):
    """Prodigy: Adam that estimates its own rate, one for all parameters that it is given.

    Formula: d grows with <g, p_0 - p> over the sum of abs(sum of g); u = d * Adam; the rate multiplies d, 1 by default
    Eps: d * eps, added to the root
    Bias correction: sqrt(1 - b2^t) / (1 - b1^t) in the rate
    Decay: p <- p (1 - lr * d * bias correction * weight_decay) - …
    Dampening: averages
    State: 16 bytes a parameter
    Differs: `optax.contrib.prodigy`, with decay by role
    Paper: Mishchenko and Defazio 2023, arXiv 2306.06101
    """

    learning_rate: float = 1.0
    b2: float = 0.999
    eps: float = 1e-8
    first_estimate: float = 1e-6
    """d at first."""
    growth: float = 1.0
    """Factor of the estimate of d."""
    safeguard_warmup: bool = False
    """Leave the rate out of d's denominator, as is advised with a warmup."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "first_estimate", 0, open_low=True)
        check(self, "growth", 0, open_low=True)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        raise TypeError("prodigy has no direction apart from its rate: see make")

    def make(self, multiplier: ArrayLike, labels: Any) -> optax.GradientTransformationExtraArgs:
        rate = self.learning_rate * multiplier
        inner = scale_by_prodigy(
            rate,
            self.b1,
            self.b2,
            self.eps,
            first_estimate=self.first_estimate,
            growth=self.growth,
            safeguard_warmup=self.safeguard_warmup,
        )
        decay_mask, dtype = self.decay_mask(labels), jnp.result_type(float)

        def init(params):
            moments = {name: jnp.zeros((), dtype) for name in self.moments()}
            return inner.init(params), ScaleByRateState(jnp.zeros((), jnp.int32), jnp.zeros((), dtype), moments)

        def update(updates, state, params=None, **extra_args):
            before, _ = state
            dtype = before.estim_lr.dtype
            estimated = before.estim_lr * jnp.asarray(rate).astype(dtype)
            applied = estimated * prodigy_correction(self.b1, self.b2, next_count(before.count), dtype)
            updates, after = inner.update(updates, before, params)
            decayed = optax.add_decayed_weights(-applied * self.weight_decay, decay_mask)
            updates, _ = decayed.update(updates, decayed.init(updates), params)
            moments = {name: jnp.asarray(x).astype(dtype) for name, x in self.moments().items()}
            return updates, (after, ScaleByRateState(next_count(before.count), estimated, moments))

        return with_wide_state(optax.GradientTransformationExtraArgs(init, update), self.mu_dtype, type(self).__name__)


def prodigy(
    learning_rate: Number = ProdigyConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = ProdigyConfig.b1,
    b2: Number = ProdigyConfig.b2,
    eps: Number = ProdigyConfig.eps,
    first_estimate: Number = ProdigyConfig.first_estimate,
    growth: Number = ProdigyConfig.growth,
    safeguard_warmup: bool = ProdigyConfig.safeguard_warmup,
    weight_decay: Number = ProdigyConfig.weight_decay,
    decay_roles: Sequence[str] = ProdigyConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = ProdigyConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Prodigy: Adam that estimates its own rate d, one for the whole tree.

        m, v <- averages, decays b1 and b2, of d g and (d g)^2
        d <- max(d, growth <sum of lr d g, p_0 - p> / |sum of lr d g|_1), the sums weighted towards late steps
        p <- p (1 - lr d c wd) - lr d c m / (sqrt(v) + d eps), c = sqrt(1 - b2^t) / (1 - b1^t)

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      first_estimate: d at first.
      growth: factor of the estimate of d.
      safeguard_warmup: leave the rate out of d's denominator, as is advised with a warmup.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import prodigy
      >>> params = {"w": jnp.ones(2)}
      >>> tx = prodigy(first_estimate=1e-3)  # lr is a factor of d, 1 by default
      >>> updates, state = tx.update({"w": jnp.array([3.0, -0.5])}, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.001, 0.001]

    Reference: Mishchenko and Defazio 2023, arXiv 2306.06101; `optax.contrib.prodigy`.
    """
    return construct(ProdigyConfig, **locals())
