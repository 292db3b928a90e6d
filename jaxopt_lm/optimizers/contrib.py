"""What optax has and the field uses, behind configs: ADOPT, AdEMAMix, Adan, NovoGrad, Prodigy, schedule-free AdamW."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import ArrayLike

from jaxopt_lm.errors import require
from jaxopt_lm.optimizers.block_adam import BlockAdamConfig
from jaxopt_lm.optimizers.config import check, check_decays, field_name, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import partition, per_layer
from jaxopt_lm.optimizers.moments import (
    prodigy_correction,
    scale_by_adan,
    scale_by_ademamix,
    scale_by_adopt,
    scale_by_prodigy,
    scale_by_rms,
)
from jaxopt_lm.optimizers.rates import ScaleByRateState, scale_by_rate
from jaxopt_lm.optimizers.trees import is_masked, next_count, with_wide_state


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdoptConfig(BlockAdamConfig):
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
      eps: added to the root; positive.
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


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdEMAMixConfig(BlockAdamConfig):
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


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdanConfig(BlockAdamConfig):
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
      b2: decay of the mean of squared gradients.
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


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class NovoGradConfig(BlockAdamConfig):
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
    b2: float = 0.25
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


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProdigyConfig(BlockAdamConfig):
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


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleFreeAdamWConfig(BlockAdamConfig):
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
