"""optax's transformations by averages, in arithmetic that keeps the digits of decays near 1.

optax forms 1 - decay^t from a rounded decay: at b2 = .99999 in float32 an Adam of t = 3 is off by 7e-4, whoever gave
the number. These have optax's formulas and states; `ema` and `bias_correction` have the digits.
"""

import optax
import optax.contrib
from jax import numpy as jnp
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.trees import bias_correction, decay_and_add, ema, map_params, next_count, one_minus


def debiased_ema(decay: ArrayLike) -> optax.GradientTransformation:
    """`optax.ema`: m <- decay m + (1 - decay) g; gives m / (1 - decay^t)."""

    def update(updates, state, params=None):
        del params
        count = next_count(state.count)
        average = map_params(lambda g, m: ema(m, g, decay), updates, state.ema)
        corrected = map_params(lambda m: m / bias_correction(decay, count, m.dtype), average)
        return corrected, optax.EmaState(count, average)

    return optax.GradientTransformation(optax.ema(0.0).init, update)


def scale_by_rms(decay: ArrayLike, eps: ArrayLike) -> optax.GradientTransformation:
    """`optax.scale_by_rms`, bias-corrected, eps outside: v <- EMA(g^2); gives g / (sqrt(v / (1 - b^t)) + eps)."""

    def update(updates, state, params=None):
        del params
        count = next_count(state.count)
        nu = map_params(lambda g, v: ema(v, jnp.square(g), decay), updates, state.nu)

        def direction(g, v):
            return g / (jnp.sqrt(v / bias_correction(decay, count, v.dtype)) + _as(eps, v))

        return map_params(direction, updates, nu), state._replace(count=count, nu=nu)

    return optax.GradientTransformation(optax.scale_by_rms(bias_correction=True).init, update)


def scale_by_adopt(b1: ArrayLike, b2: ArrayLike, eps: ArrayLike) -> optax.GradientTransformation:
    """`optax.contrib.scale_by_adopt`: m <- EMA(clip(g / max(sqrt(v), eps), t^(1/4))), t from 0, then v <- EMA(g^2).

    The first gradient enters v alone, whole: v_1 = g^2, m_1 = 0.
    """

    def update(updates, state, params=None):
        del params
        first = state.count == 0

        def average(g, m, v):
            bound = state.count.astype(g.dtype) ** 0.25
            scaled = jnp.clip(g / jnp.maximum(jnp.sqrt(v), _as(eps, v)), -bound, bound)
            return ema(m, scaled, b1)  # scaled is 0 at first, for its bound is

        mu = map_params(average, updates, state.mu, state.nu)
        nu = map_params(lambda g, v: jnp.where(first, jnp.square(g), ema(v, jnp.square(g), b2)), updates, state.nu)
        return mu, optax.ScaleByAdamState(next_count(state.count), mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


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
            return (m_hat + _as(alpha, m1) * m2) / (jnp.sqrt(v_hat) + _as(eps, v))

        after = state._replace(count=count, count_m2=next_count(state.count_m2), m1=m1, m2=m2, nu=nu)
        return map_params(direction, m1, m2, nu), after

    return optax.GradientTransformation(optax.contrib.scale_by_ademamix().init, update)


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
            return ahead(m, v) / (jnp.sqrt(n + _as(eps_root, n)) + _as(eps, n))

        return map_params(direction, m, v, n), state._replace(m=m, v=v, n=n, g=updates, t=count)

    return optax.GradientTransformation(optax.scale_by_adan().init, update)


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
        weight = d * _as(rate, d) * prodigy_correction(b1, b2, count, d.dtype)
        relative = d / _as(first_estimate, d)
        mu = map_params(lambda g, m: ema(m, d * g, b1), updates, state.exp_avg)
        nu = map_params(lambda g, v: ema(v, jnp.square(d * g), b2), updates, state.exp_avg_sq)
        in_sum = relative * (d if safeguard_warmup else weight)
        grad_sum = map_params(lambda g, s: decay_and_add(s, in_sum * g, b3), updates, state.grad_sum)
        towards = optax.tree.vdot(updates, optax.tree.sub(state.params0, params))
        numerator = decay_and_add(state.numerator_weighted, relative * weight * towards, b3)
        total = optax.tree.sum(map_params(lambda s: jnp.sum(jnp.abs(s)), grad_sum))
        estimate = jnp.where(total == 0, 0, _as(growth, d) * numerator / jnp.where(total == 0, 1, total))
        d = jnp.maximum(d, estimate)
        directions = map_params(lambda m, v: -weight * m / (jnp.sqrt(v) + d * _as(eps, d)), mu, nu)
        return directions, state._replace(
            exp_avg=mu, exp_avg_sq=nu, grad_sum=grad_sum, estim_lr=d, numerator_weighted=numerator, count=count
        )

    return optax.GradientTransformation(optax.contrib.prodigy(estim_lr0=first_estimate).init, update)


def prodigy_correction(b1: ArrayLike, b2: ArrayLike, count, dtype):
    """sqrt(1 - b2^t) / (1 - b1^t), which Prodigy has in its rate."""
    return jnp.sqrt(bias_correction(b2, count, dtype)) / bias_correction(b1, count, dtype)


def _as(number: ArrayLike, like):
    return jnp.asarray(number).astype(like.dtype)
