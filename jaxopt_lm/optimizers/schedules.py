"""Schedules: multipliers of a peak learning rate, with peak 1.

`schedule.multiplier(count, num_train_steps)` is the multiplier of the update after `count` updates; s = count + 1
counts steps from 1, w = warmup_steps, T = num_train_steps. Every number may be traced.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxopt_lm.errors import require
from jaxopt_lm.optimizers.config import check, traceable


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig(abc.ABC):
    """Linear warmup, `start_fraction + (1 - start_fraction) s / w` for s <= w, then what the kind says."""

    warmup_steps: int = 0
    """Steps until the peak is reached; 0 starts at the peak."""
    start_fraction: float = 0.1
    """Where the warmup line starts, as a fraction of the peak; the first step lies one step above it."""

    def __post_init__(self):
        check(self, "warmup_steps", 0)
        check(self, "start_fraction", 0, 1)

    def multiplier(self, count: ArrayLike, num_train_steps: ArrayLike, calibration_steps: ArrayLike = 0) -> jax.Array:
        """The learning rate's multiplier for the update after `count` updates, a float scalar in [0, 1].

        In the first `calibration_steps` updates it is 0; the schedule has those that remain of `num_train_steps`.
        """
        dtype = jnp.result_type(float)
        s, w, total, lead = (
            jnp.asarray(x).astype(dtype) for x in (count, self.warmup_steps, num_train_steps, calibration_steps)
        )
        s, total = s + 1 - lead, total - lead
        warmup = self.start_fraction + (1 - self.start_fraction) * s / jnp.maximum(w, 1)
        value = jnp.where(s <= w, warmup, self._after_warmup(jnp.maximum(s, 1), w, total))
        return jnp.where(s >= 1, value, 0.0).astype(dtype)

    @abc.abstractmethod
    def _after_warmup(self, s: jax.Array, w: jax.Array, total: jax.Array) -> jax.Array:
        """The multiplier at step s > w of `total`."""

    def check_fits(self, num_train_steps: int) -> None:
        """Raises `InputError` unless the schedule's durations fit into the run."""
        require(
            self.warmup_steps < num_train_steps,
            f"schedule.warmup_steps={self.warmup_steps}: must be less than num_train_steps={num_train_steps}",
        )


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantConfig(ScheduleConfig):
    """1 after the warmup."""

    def _after_warmup(self, s, w, total):
        return jnp.ones_like(s)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _DecayConfig(ScheduleConfig):
    end_fraction: float = 0.1
    """Where the decay ends, as a fraction of the peak."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "end_fraction", 0, 1)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupCosineConfig(_DecayConfig):
    """`end + (1 - end) (1 + cos(pi (s - w) / (T - w))) / 2`: OLMo's cosine with warmup."""

    def _after_warmup(self, s, w, total):
        progress = jnp.clip((s - w) / (total - w), 0, 1)
        return self.end_fraction + (1 - self.end_fraction) * (1 + jnp.cos(jnp.pi * progress)) / 2


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearConfig(_DecayConfig):
    """`1 - (1 - end) (s - w) / (T - w)`."""

    def _after_warmup(self, s, w, total):
        return 1 - (1 - self.end_fraction) * jnp.clip((s - w) / (total - w), 0, 1)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseSqrtConfig(ScheduleConfig):
    """`sqrt(max(w, 1) / s)`."""

    def _after_warmup(self, s, w, total):
        return jnp.sqrt(jnp.maximum(w, 1) / s)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupStableDecayConfig(_DecayConfig):
    """1 until T - decay_steps, then linear to end_fraction at T. Hu et al. 2024, arXiv 2404.06395."""

    decay_steps: int = 1
    """Steps of the final decay."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "decay_steps", 1)

    def _after_warmup(self, s, w, total):
        decay = jnp.asarray(self.decay_steps).astype(s.dtype)
        return 1 - (1 - self.end_fraction) * jnp.clip((s - (total - decay)) / decay, 0, 1)

    def check_fits(self, num_train_steps):
        super().check_fits(num_train_steps)
        require(
            self.warmup_steps + self.decay_steps <= num_train_steps,
            f"schedule.decay_steps={self.decay_steps}: with warmup_steps={self.warmup_steps} must be at most "
            f"num_train_steps={num_train_steps}",
        )


SCHEDULES: dict[str, type[ScheduleConfig]] = {
    "constant": ConstantConfig,
    "inverse_sqrt": InverseSqrtConfig,
    "linear": LinearConfig,
    "warmup_cosine": WarmupCosineConfig,
    "warmup_stable_decay": WarmupStableDecayConfig,
}
