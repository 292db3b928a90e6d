"""Adalayer* whose second moments freeze after a calibration."""

import dataclasses
from typing import Any

import jax
import optax
from jax.typing import ArrayLike

from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.block_adam import AdalayerStarConfig, Calibration, scale_by_block_adam
from jaxopt_lm.optimizers.config import OptimizerConfig, check, check_roles, constructor, field_name, held, traceable
from jaxopt_lm.optimizers.groups import partition, require_labels, require_roles


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
            parts = {"moving": plain(multiplier, labels), "untrained": optax.set_to_zero()}
            return partition(parts, lambda label: "moving" if self.part(label) else "untrained", labels)

        return held(self.calibration_steps, at, multiplier)

    def moments(self) -> dict[str, Any]:
        return {"b1": self.b1, "eps": self.eps}

    def part(self, label: Label) -> OptimizerConfig | None:
        return None if label.role in self.untrained_roles else self


frozen = constructor(FrozenConfig)
