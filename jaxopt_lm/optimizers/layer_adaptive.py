"""AdamW adapted by layer: depth multipliers, eps over time, a momentum per layer, clipping per layer.

The method of "Re-examining Layer-Adaptive Modifications to AdamW" and all 12 variants of "Revisiting Layer-Adaptive
Optimization for Transformer Language Models" are settings of one config.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lm.errors import require
from jaxopt_lm.optimizers.block_adam import scale_by_block_adam
from jaxopt_lm.optimizers.clipping import clip_by_layer_norm
from jaxopt_lm.optimizers.config import AdamConfig, check, check_decays, check_eps, field_name, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import by_layer, num_layers, require_labels


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerAdaptiveAdamWConfig(AdamConfig):
    """AdamW with a rate and a momentum per layer, and an eps that changes over time.

    Formula: as adamw, with lr * s_l, b1_l in layer l of N, and eps_t = eps (1 - t/Tw) + eps_min t/Tw for t < Tw, then
      max(eps (t/Td + 1)^-power, eps_min)
    Eps: added to the root; a function of the step
    Bias correction: m and v
    Decay: p <- p (1 - lr * s_l * weight_decay) - lr * s_l * u
    Dampening: m is an average, weight 1 - b1_l
    State: 8 bytes a parameter
    Differs: neither optax nor PyTorch has it; embedding, head and final norm have s = 1 and b1; N is that of the labels
    Paper: "Re-examining Layer-Adaptive Modifications to AdamW", "Revisiting Layer-Adaptive Optimization", Aardvark 2025
    """

    learning_rate: float = 3e-4
    weight_decay: float = 0.1
    eps: float = 1e-8
    """eps_base: what the schedule of eps starts from."""
    eps_min: float = 1e-9
    """Least eps; equal to eps, nothing changes over time."""
    eps_warmup_steps: int = 200
    """Tw."""
    eps_decay_steps: int = 200
    """Td."""
    eps_decay_power: float = 0.1
    """Exponent of the decay after Tw."""
    eps_continuous: bool = False
    """False: the paper's equation, which jumps up at Tw. True: rises from eps_min to eps over Tw, then decays from
    there as
    max(eps ((t - Tw)/Td + 1)^-power, eps_min)."""
    depth_rule: Literal["linear", "inverse_sqrt", "inverse"] = "linear"
    """s_l over layers l = 1 … N: a line from first_multiplier to last_multiplier, 1/sqrt(l), or 1/l."""
    first_multiplier: float = 1.0
    """s_1 of the line."""
    last_multiplier: float = 1.2
    """s_N of the line."""
    mean_one: bool = False
    """Divide s_l by its mean over the layers."""
    b1_first: float | None = None
    """b1 of the first layer, from which a line leads to b1_last; None: b1 everywhere."""
    b1_last: float | None = None
    """b1 of the last layer."""
    max_layer_norm: float | None = None
    """Clip each layer's gradients, of those that this optimizer is given, at this norm, all outside the layers as one
    group; None: no clipping here."""

    def __post_init__(self):
        super().__post_init__()
        check_eps(self, "eps_min")
        for name in ("eps_warmup_steps", "first_multiplier", "last_multiplier", "eps_decay_power"):
            check(self, name, 0)
        check(self, "eps_decay_steps", 1)
        check_decays(self, "b1_first", "b1_last")
        require(
            (self.b1_first is None) == (self.b1_last is None),
            f"{field_name(self, 'b1_first')}={self.b1_first}, b1_last={self.b1_last}: give both or neither",
        )
        check(self, "max_layer_norm", 0, open_low=True)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        require_labels(labels, "layers are told apart")
        adam = scale_by_block_adam(self._b1(labels), self.b2, self.eps_at)
        if self.max_layer_norm is None:
            return adam
        return optax.chain(clip_by_layer_norm(self.max_layer_norm, labels), adam)

    def eps_at(self, t: jax.Array) -> jax.Array:
        """eps at step t, counted from 1."""
        dtype = jnp.result_type(float)
        t, base, least, warmup, decay = (
            jnp.asarray(x).astype(dtype)
            for x in (t, self.eps, self.eps_min, self.eps_warmup_steps, self.eps_decay_steps)
        )
        start, end = (least, base) if self.eps_continuous else (base, least)
        since = t - warmup if self.eps_continuous else t
        fraction = t / jnp.maximum(warmup, 1)
        late = base * (jnp.maximum(since, 0) / decay + 1) ** -jnp.asarray(self.eps_decay_power).astype(dtype)
        return jnp.where(t < warmup, start * (1 - fraction) + end * fraction, jnp.maximum(late, least))

    def depth_multipliers(self, layers: int) -> jax.Array:
        """s_l, shape [layers]."""
        depth = jnp.arange(1, layers + 1, dtype=jnp.result_type(float))
        if self.depth_rule == "linear":
            s = _line(self.first_multiplier, self.last_multiplier, layers)
        else:
            s = depth ** (-0.5 if self.depth_rule == "inverse_sqrt" else -1.0)
        s = jnp.asarray(s).astype(depth.dtype)
        return s / jnp.mean(s) if self.mean_one else s

    def moments(self) -> dict[str, Any]:
        one_b1 = {"b1": self.b1} if self.b1_first is None else {}
        return {"b2": self.b2, "eps": self.eps_at} | one_b1

    def rate_multipliers(self, labels: Any) -> Callable[[Any], Any]:
        one = jnp.ones(())
        return lambda updates: by_layer(self.depth_multipliers(num_layers(updates, labels)), one, updates, labels)

    def _b1(self, labels):
        if self.b1_first is None or self.b1_last is None:
            return self.b1
        first, last = self.b1_first, self.b1_last
        return lambda updates: by_layer(_line(first, last, num_layers(updates, labels)), self.b1, updates, labels)


def layer_adaptive_adamw(
    learning_rate: Number = LayerAdaptiveAdamWConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = LayerAdaptiveAdamWConfig.b1,
    b2: Number = LayerAdaptiveAdamWConfig.b2,
    eps: Number = LayerAdaptiveAdamWConfig.eps,
    eps_min: Number = LayerAdaptiveAdamWConfig.eps_min,
    eps_warmup_steps: Number = LayerAdaptiveAdamWConfig.eps_warmup_steps,
    eps_decay_steps: Number = LayerAdaptiveAdamWConfig.eps_decay_steps,
    eps_decay_power: Number = LayerAdaptiveAdamWConfig.eps_decay_power,
    eps_continuous: bool = LayerAdaptiveAdamWConfig.eps_continuous,
    depth_rule: Literal["linear", "inverse_sqrt", "inverse"] = LayerAdaptiveAdamWConfig.depth_rule,
    first_multiplier: Number = LayerAdaptiveAdamWConfig.first_multiplier,
    last_multiplier: Number = LayerAdaptiveAdamWConfig.last_multiplier,
    mean_one: bool = LayerAdaptiveAdamWConfig.mean_one,
    b1_first: Number | None = LayerAdaptiveAdamWConfig.b1_first,
    b1_last: Number | None = LayerAdaptiveAdamWConfig.b1_last,
    max_layer_norm: Number | None = LayerAdaptiveAdamWConfig.max_layer_norm,
    weight_decay: Number = LayerAdaptiveAdamWConfig.weight_decay,
    decay_roles: Sequence[str] = LayerAdaptiveAdamWConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = LayerAdaptiveAdamWConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """AdamW with a rate and a momentum per layer, and an eps that changes over time.

        m <- b1_l m + (1 - b1_l) g
        v <- b2 v + (1 - b2) g^2
        p <- p (1 - lr s_l wd) - lr s_l (m / (1 - b1_l^t)) / (sqrt(v / (1 - b2^t)) + eps_t)

    Outside the layers s is 1 and b1_l is b1. eps_t = eps (1 - t/Tw) + eps_min t/Tw for t < Tw, then
    max(eps (t/Td + 1)^-power, eps_min).

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: what the schedule of eps starts from.
      eps_min: least eps; equal to eps, nothing changes over time.
      eps_warmup_steps: Tw, steps until the decay.
      eps_decay_steps: Td, the decay's unit of time.
      eps_decay_power: exponent of the decay after Tw.
      eps_continuous: False: the paper's equation, which jumps up at Tw. True: rises from eps_min to eps over Tw,
        then decays from there as max(eps ((t - Tw)/Td + 1)^-power, eps_min).
      depth_rule: s_l over layers l = 1 … N: a line from first_multiplier to last_multiplier, 1/sqrt(l), or 1/l.
      first_multiplier: s_1 of the line.
      last_multiplier: s_N of the line.
      mean_one: divide s_l by its mean over the layers.
      b1_first: b1 of the first layer, from which a line leads to b1_last; None: b1 everywhere.
      b1_last: b1 of the last layer.
      max_layer_norm: clip each layer's gradients at this norm, all outside the layers as one group; None: no
        clipping here.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import Label, layer_adaptive_adamw
      >>> labels = [Label(("embed",), "norm", layer=i) for i in range(3)]
      >>> params = [jnp.ones(1)] * 3
      >>> tx = layer_adaptive_adamw(0.1, labels, weight_decay=0.0)
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> [round(float(u[0]), 4) for u in updates]
      [-0.1, -0.11, -0.12]

    Reference: "Re-examining Layer-Adaptive Modifications to AdamW" and "Revisiting Layer-Adaptive Optimization",
    Aardvark 2025.
    """
    return construct(LayerAdaptiveAdamWConfig, **locals())


def _line(first, last, layers: int) -> jax.Array | np.ndarray:
    """From first to last, shape [layers]; in float64 where both are Python numbers, for a decay near 1."""
    fraction = np.arange(layers) / max(layers - 1, 1)
    if isinstance(first, float | int) and isinstance(last, float | int):
        return first + (last - first) * fraction
    first, last = (jnp.asarray(x).astype(jnp.result_type(float)) for x in (first, last))
    return first + (last - first) * fraction.astype(first.dtype)
