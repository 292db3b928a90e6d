"""Sophia, with its two estimators of curvature.

The estimator is the caller's: `update(..., sampled_grads=f, batch_tokens=n)` or `update(..., hutchinson=f)`, f a
function
of nothing that is called, inside a conditional, every `interval` updates (see `jaxopt_lm.optimizers.curvature`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.errors import InputError
from jaxopt_lm.optimizers.config import OptimizerConfig, check, check_decays, check_eps, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.trees import ema, map_params, next_count, widen


class ScaleBySophiaState(NamedTuple):
    """State of both Sophias.

    Attributes:
      count: updates made so far, int32.
      mu: average of gradients.
      hessian: average of the curvature estimates.
    """

    count: jax.Array
    mu: optax.Updates
    hessian: optax.Updates


def _init(params):
    zeros = optax.tree.zeros_like(widen(params))
    return ScaleBySophiaState(jnp.zeros((), jnp.int32), zeros, optax.tree.zeros_like(zeros))


def _estimated(due: jax.Array, hessian: Any, estimate: Callable[[], Any], b2: ArrayLike) -> Any:
    """The average with one estimate more where it is due; elsewhere the estimator is not run."""
    return jax.lax.cond(
        due,
        lambda old: map_params(lambda h, new: ema(h, new.astype(h.dtype), b2), old, estimate()),
        lambda old: old,
        hessian,
    )


def scale_by_sophia_g(
    b1: ArrayLike, b2: ArrayLike, rho: ArrayLike, *, interval: int
) -> optax.GradientTransformationExtraArgs:
    """u = sign(m) min(abs(m) / (rho n h + 1e-15), 1), h the average of squared gradients on sampled labels.

    The published order is: step t, then an estimate where t % interval = 0. The parameters after step t are known at
    update t + 1 alone, so the estimate is made at its start, on its batch.

    Args:
      b1: decay of the mean of gradients.
      b2: decay of the mean of estimates.
      rho: clipping threshold; 0 is Signum.
      interval: updates between estimates; structure, not a number.

    Returns:
      `update(updates, state, params, *, sampled_grads, batch_tokens)`: `sampled_grads()` is the gradient of the mean
      loss
      on sampled labels, `batch_tokens` the n it is a mean over.
    """

    def update(updates, state, params=None, *, sampled_grads=None, batch_tokens=None, **extra_args):
        del params, extra_args
        if sampled_grads is None or batch_tokens is None:
            raise InputError("sophia: give update(…, sampled_grads=…, batch_tokens=…), see sampled_label_grads")
        due = (state.count > 0) & (state.count % interval == 0)
        hessian = _estimated(due, state.hessian, lambda: jax.tree.map(jnp.square, widen(sampled_grads())), b2)
        mu = map_params(lambda g, m: ema(m, g, b1), widen(updates), state.mu)

        def direction(m, h):
            scale = (jnp.asarray(rho).astype(m.dtype)) * jnp.asarray(batch_tokens).astype(m.dtype)
            return jnp.sign(m) * jnp.minimum(jnp.abs(m) / (scale * h + 1e-15), 1.0)

        state = ScaleBySophiaState(next_count(state.count), mu, hessian)
        return map_params(direction, mu, hessian), state

    return optax.GradientTransformationExtraArgs(_init, update)


def scale_by_sophia_h(
    b1: ArrayLike, b2: ArrayLike, clip: ArrayLike, eps: ArrayLike, *, interval: int
) -> optax.GradientTransformationExtraArgs:
    """u = clip(m / max(h, eps), -clip, clip), h the average of signed Hutchinson estimates.

    The estimate is made before the update, at t = 1, interval + 1, 2 interval + 1, …, on that update's parameters.

    Args:
      b1: decay of the mean of gradients.
      b2: decay of the mean of estimates.
      clip: bound of an entry of u.
      eps: least curvature.
      interval: updates between estimates; structure, not a number.

    Returns:
      `update(updates, state, params, *, hutchinson)`: `hutchinson()` is z * (H z), see `curvature.hutchinson`.
    """

    def update(updates, state, params=None, *, hutchinson=None, **extra_args):
        del params, extra_args
        if hutchinson is None:
            raise InputError("sophia_h: give update(…, hutchinson=…), see hutchinson")
        hessian = _estimated(state.count % interval == 0, state.hessian, lambda: widen(hutchinson()), b2)
        mu = map_params(lambda g, m: ema(m, g, b1), widen(updates), state.mu)

        def direction(m, h):
            bound, least = (jnp.asarray(x).astype(m.dtype) for x in (clip, eps))
            return jnp.clip(m / jnp.maximum(h, least), -bound, bound)

        state = ScaleBySophiaState(next_count(state.count), mu, hessian)
        return map_params(direction, mu, hessian), state

    return optax.GradientTransformationExtraArgs(_init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SophiaConfig(OptimizerConfig):
    """Sophia-G: clipped momentum over a Gauss-Newton-Bartlett diagonal.

    Formula: u = sign(m) min(abs(m) / (rho n h + 1e-15), 1), n tokens in the batch; every interval h <- b2 h + (1 - b2)
      ghat^2
    Eps: 1e-15, added to the scaled curvature
    Bias correction: none
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1
    State: 8 bytes a parameter
    Differs: `optax.contrib.sophia` is Sophia-H; the estimate after step t is made at the start of update t + 1, on its
      batch
    Paper: Liu et al. 2023, arXiv 2305.14342; github Liuhong99/Sophia
    """

    learning_rate: float = 3.16e-4
    b1: float = 0.965
    """Decay of the mean of gradients."""
    b2: float = 0.99
    """Decay of the mean of estimates."""
    rho: float = 0.04
    """Clipping threshold; 0 is Signum."""
    interval: int = 10
    """Updates between estimates of curvature."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b1", "b2")
        check(self, "rho", 0)
        check(self, "interval", 1)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return scale_by_sophia_g(self.b1, self.b2, self.rho, interval=self.interval)


def sophia(
    learning_rate: Number = SophiaConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = SophiaConfig.b1,
    b2: Number = SophiaConfig.b2,
    rho: Number = SophiaConfig.rho,
    interval: int | None = None,
    weight_decay: Number = SophiaConfig.weight_decay,
    decay_roles: Sequence[str] = SophiaConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = SophiaConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Sophia-G: clipped momentum over a Gauss-Newton-Bartlett diagonal.

        m <- b1 m + (1 - b1) g
        h <- b2 h + (1 - b2) ghat^2 every `interval` updates, ghat the gradient on labels sampled from the model
        p <- p (1 - lr wd) - lr sign(m) min(abs(m) / (rho n h + 1e-15), 1)

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: decay of the mean of gradients.
      b2: decay of the mean of estimates.
      rho: clipping threshold; 0 is Signum.
      interval: updates between estimates of curvature; None: 10.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Returns:
      A transformation whose update takes `sampled_grads`, a function of nothing that gives ghat, and `batch_tokens`,
      the n that ghat is a mean over; see `optimizers.sampled_label_grads`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import sophia
      >>> params = {"w": jnp.ones(2)}
      >>> tx, grads = sophia(1e-2), {"w": jnp.array([3.0, -0.5])}
      >>> ghat = {"sampled_grads": lambda: grads, "batch_tokens": 100}
      >>> updates, state = tx.update(grads, tx.init(params), params, **ghat)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.01, 0.01]

    Reference: Liu et al. 2023, arXiv 2305.14342; github Liuhong99/Sophia.
    """
    return construct(SophiaConfig, **locals())


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SophiaHConfig(OptimizerConfig):
    """Sophia-H: clipped momentum over a Hutchinson diagonal.

    Formula: every interval, before the step, h <- b2 h + (1 - b2) z (H z); u = clip(m / max(h, eps), -clip, clip)
    Eps: least curvature
    Bias correction: none
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1
    State: 8 bytes a parameter
    Differs: the paper's form has lr_paper = lr * clip and eps_paper = clip * eps; this is package pytorch_optimizer
      4.1.0's
    Paper: Liu et al. 2023, arXiv 2305.14342
    """

    learning_rate: float = 3.16e-2
    b1: float = 0.96
    """Decay of the mean of gradients."""
    b2: float = 0.99
    """Decay of the mean of estimates."""
    clip: float = 0.01
    """Bound of an entry of the direction."""
    eps: float = 1e-12
    """Least curvature."""
    interval: int = 10
    """Updates between estimates of curvature."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b1", "b2")
        check(self, "clip", 0, open_low=True)
        check_eps(self)
        check(self, "interval", 1)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return scale_by_sophia_h(self.b1, self.b2, self.clip, self.eps, interval=self.interval)


def sophia_h(
    learning_rate: Number = SophiaHConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = SophiaHConfig.b1,
    b2: Number = SophiaHConfig.b2,
    clip: Number = SophiaHConfig.clip,
    eps: Number = SophiaHConfig.eps,
    interval: int | None = None,
    weight_decay: Number = SophiaHConfig.weight_decay,
    decay_roles: Sequence[str] = SophiaHConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = SophiaHConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Sophia-H: clipped momentum over a Hutchinson diagonal.

        h <- b2 h + (1 - b2) z (H z) every `interval` updates, z standard normal, H the Hessian of the loss
        m <- b1 m + (1 - b1) g
        p <- p (1 - lr wd) - lr clip(m / max(h, eps), -clip, clip)

    The paper's rate is lr clip, its eps is clip eps: this is the form of package pytorch_optimizer 4.1.0.

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: decay of the mean of gradients.
      b2: decay of the mean of estimates.
      clip: bound of an entry of the direction.
      eps: least curvature.
      interval: updates between estimates of curvature; None: 10.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Returns:
      A transformation whose update takes `hutchinson`, a function of nothing that gives z (H z); see
      `optimizers.hutchinson`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import sophia_h
      >>> params = {"w": jnp.ones(2)}
      >>> tx, grads = sophia_h(1.0), {"w": jnp.array([3.0, -0.5])}
      >>> updates, state = tx.update(grads, tx.init(params), params, hutchinson=lambda: grads)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.01, 0.01]

    Reference: Liu et al. 2023, arXiv 2305.14342.
    """
    return construct(SophiaHConfig, **locals())
