"""Hybrids: an adaptive optimizer on chosen roles, SGD on the rest."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import optax
from jax.typing import ArrayLike

from jaxopt_lm.errors import require
from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.block_adam import AdalayerStarConfig
from jaxopt_lm.optimizers.config import (
    OptimizerConfig,
    check_config,
    check_decays,
    check_roles,
    field_name,
    held,
    traceable,
)
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import partition, require_labels, require_roles
from jaxopt_lm.optimizers.sgdw import debiased_ema, heavy_ball
from jaxopt_lm.optimizers.trees import set_to_zero


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridConfig(OptimizerConfig):
    """An adaptive optimizer on some roles, SGD on the others; two peak rates, one schedule shape.

    Formula: on adaptive_roles the adaptive optimizer; elsewhere m <- b1 m + (1 - b1) g, u = m / (1 - b1^t)
    Eps: the adaptive optimizer's
    Bias correction: of SGD's m, in the debiased average
    Decay: p <- p (1 - lr * weight_decay) - lr * u for SGD; the adaptive optimizer has its own
    Dampening: SGD's m is an average, weight 1 - b1; sgd=heavy_ball sums, and its rate is 1 / (1 - b1) times smaller
    State: 4 bytes a parameter
    Differs: optax's `partition` of parts that optax has but for adalayer_star; the paper's "SGD" is a bias-corrected
      average
    Paper: Zhao et al. 2024, arXiv 2407.07972, section 3.2
    """

    learning_rate: float = 10.0
    """Peak learning rate of the SGD part."""
    b1: float = 0.9
    """Decay of SGD's momentum."""
    sgd: Literal["debiased_ema", "heavy_ball"] = "debiased_ema"
    """SGD's momentum: the bias-corrected average of gradients, or their decayed sum."""
    adaptive: OptimizerConfig = AdalayerStarConfig()
    """The adaptive optimizer, with its own peak learning rate and decay."""
    adaptive_roles: tuple[str, ...] = ("norm", "head")
    """Roles that the adaptive optimizer has."""
    untrained_roles: tuple[str, ...] = ()
    """Roles that never move."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b1")
        check_roles(self, "adaptive_roles", "untrained_roles")
        check_config(self, "adaptive")
        both = sorted(set(self.adaptive_roles) & set(self.untrained_roles))
        require(
            not both, f"{field_name(self, 'untrained_roles')}={both}: they are adaptive_roles too; give each role once"
        )

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return heavy_ball(self.b1) if self.sgd == "heavy_ball" else debiased_ema(self.b1)

    def make(self, multiplier: ArrayLike, labels: Any) -> optax.GradientTransformationExtraArgs:
        require_labels(labels, "parameters are divided")
        where = f"{field_name(self, 'adaptive_roles')}, untrained_roles"
        require_roles(labels, (*self.adaptive_roles, *self.untrained_roles), where)
        of_sgd = super().make

        def at(multiplier):
            adaptive, sgd = self.adaptive.make(multiplier, labels), of_sgd(multiplier, labels)
            parts = {"adaptive": adaptive, "sgd": sgd, "untrained": set_to_zero()}
            return partition(parts, self._group, labels)

        return held(self.calibration_steps, at, multiplier)

    def _group(self, label: Label) -> str:
        if label.role in self.untrained_roles:
            return "untrained"
        return "adaptive" if label.role in self.adaptive_roles else "sgd"

    def part(self, label: Label) -> OptimizerConfig | None:
        if label.role in self.untrained_roles:
            return None
        return self.adaptive.part(label) if label.role in self.adaptive_roles else self

    def moments(self) -> dict[str, Any]:
        return {"b1": self.b1} if self.sgd == "debiased_ema" else {}


def hybrid(
    learning_rate: Number = HybridConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = HybridConfig.b1,
    sgd: Literal["debiased_ema", "heavy_ball"] = HybridConfig.sgd,
    adaptive: OptimizerConfig = HybridConfig.adaptive,
    adaptive_roles: Sequence[str] = HybridConfig.adaptive_roles,
    untrained_roles: Sequence[str] = HybridConfig.untrained_roles,
    weight_decay: Number = HybridConfig.weight_decay,
    decay_roles: Sequence[str] = HybridConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = HybridConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """An adaptive optimizer on chosen roles, SGD on the others; two peak rates.

        on adaptive_roles: what `adaptive` says
        elsewhere: m <- b1 m + (1 - b1) g
                   p <- p (1 - lr wd) - lr m / (1 - b1^t)
        with sgd="heavy_ball": m <- g at first, then b1 m + g
                               p <- p (1 - lr wd) - lr m

    Args:
      learning_rate: the peak rate of SGD, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of SGD's momentum.
      sgd: SGD's momentum: the bias-corrected average of gradients, or their decayed sum.
      adaptive: the adaptive optimizer, with its own peak learning rate and decay.
      adaptive_roles: roles that the adaptive optimizer has.
      untrained_roles: roles that never move.
      weight_decay: SGD's decoupled decay, multiplied by the rate in force.
      decay_roles: the roles of SGD's that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import AdamWConfig, Label, hybrid
      >>> labels = {"up": Label(("embed", "mlp"), "mlp"), "head": Label(("embed", "vocab"), "head")}
      >>> params = {"up": jnp.ones((2, 3)), "head": jnp.ones((2, 4))}
      >>> tx = hybrid(10.0, labels, adaptive=AdamWConfig(learning_rate=3e-3), adaptive_roles=("head",))
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> {name: round(float(u[0, 0]), 4) for name, u in updates.items()}
      {'head': -0.003, 'up': -10.0}

    Reference: Zhao et al. 2024, arXiv 2407.07972, section 3.2.
    """
    return construct(HybridConfig, **locals())
