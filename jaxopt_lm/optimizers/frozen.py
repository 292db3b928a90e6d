"""Adalayer* whose second moments freeze after a calibration."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import optax
from jax.typing import ArrayLike

from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.block_adam import AdalayerStarConfig, Calibration, scale_by_block_adam
from jaxopt_lm.optimizers.config import OptimizerConfig, check, check_roles, field_name, held, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import partition, require_labels, require_roles
from jaxopt_lm.optimizers.trees import set_to_zero


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenConfig(AdalayerStarConfig):
    """Adalayer* with frozen ratios: second moments are calibrated at rate 0, then stay, but for the live roles.

    Formula: for t <= T: v <- v + (mean(g^2) - v) / (t + 1), rate 0; then v as adalayer_star on live roles, fixed
      elsewhere
    Eps: added to the root
    Bias correction: m alone; v never
    Decay: p <- p (1 - lr * weight_decay) - lr * u; none during calibration
    Dampening: m is an average, weight 1 - b1; it runs during calibration
    State: 4 bytes a parameter
    Differs: neither optax nor PyTorch has it; the released schedule steps at the last calibration batch too, this one
      does not
    Paper: Zhao et al. 2024, arXiv 2407.07972, appendix F
    """

    calibration_steps: int = 1000
    """Updates at rate 0 that set the second moments; the schedule starts after them. At least 1."""
    live_roles: tuple[str, ...] = ("norm", "head")
    """Roles whose second moments go on."""
    untrained_roles: tuple[str, ...] = ()
    """Roles that never move."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "calibration_steps", 1)
        check_roles(self, "live_roles", "untrained_roles")

    def direction(self, labels: Any) -> optax.GradientTransformation:
        live = jax.tree.map(lambda label: label.role in self.live_roles, labels)
        return scale_by_block_adam(
            self.b1, self.b2, self.eps, self.blocks(labels), calibration=Calibration(self.calibration_steps, live)
        )

    def make(self, multiplier: ArrayLike, labels: Any) -> optax.GradientTransformationExtraArgs:
        require_labels(labels, "roles freeze")
        where = f"{field_name(self, 'live_roles')}, untrained_roles"
        require_roles(labels, (*self.live_roles, *self.untrained_roles), where)
        plain = super().make

        def at(multiplier):
            parts = {"moving": plain(multiplier, labels), "untrained": set_to_zero()}
            return partition(parts, lambda label: "moving" if self.part(label) else "untrained", labels)

        return held(self.calibration_steps, at, multiplier)

    def moments(self) -> dict[str, Any]:
        return {"b1": self.b1, "eps": self.eps}

    def part(self, label: Label) -> OptimizerConfig | None:
        return None if label.role in self.untrained_roles else self


def frozen(
    learning_rate: Number = FrozenConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = FrozenConfig.b1,
    b2: Number = FrozenConfig.b2,
    eps: Number = FrozenConfig.eps,
    first_layer: bool = FrozenConfig.first_layer,
    calibration_steps: Number = FrozenConfig.calibration_steps,
    live_roles: Sequence[str] = FrozenConfig.live_roles,
    untrained_roles: Sequence[str] = FrozenConfig.untrained_roles,
    weight_decay: Number = FrozenConfig.weight_decay,
    decay_roles: Sequence[str] = FrozenConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = FrozenConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Adalayer* whose second moments are calibrated at rate 0, then stay but for the live roles.

        m <- b1 m + (1 - b1) g, at every t
        v <- v + (mean(g^2) - v) / (t + 1) for t <= calibration_steps; then v, or adalayer_star's in live_roles
        p <- p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v) + eps), p fixed for t <= calibration_steps

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      first_layer: one second moment per row of the embedding too: the paper's first-layer correction.
      calibration_steps: updates at rate 0 that set the second moments, at least 1.
      live_roles: roles whose second moments go on.
      untrained_roles: roles that never move.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import Label, frozen
      >>> labels = {"up": Label(("embed", "mlp"), "mlp"), "scale": Label(("embed",), "norm")}
      >>> params = {"up": jnp.ones((2, 3)), "scale": jnp.ones(2)}
      >>> tx = frozen(0.1, labels, calibration_steps=1, live_roles=("norm",))
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(params, state, params)
      ...     print(round(float(updates["scale"][0]), 4))
      -0.0
      -0.138

    Reference: Zhao et al. 2024, arXiv 2407.07972, appendix F.
    """
    return construct(FrozenConfig, **locals())
