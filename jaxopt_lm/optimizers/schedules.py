"""Schedules: multipliers of a peak learning rate, with peak 1.

`schedule.multiplier(count, num_train_steps)` is the multiplier of the update after `count` updates; s = count + 1
counts steps from 1, w are the steps of the warmup, T = num_train_steps. Every number may be traced.

A duration is given in steps or as a fraction of the run's; the steps of a fraction are rounded. Which of the two is
given is structure.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxopt_lm.errors import require
from jaxopt_lm.optimizers.config import check, field_name, traceable


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig(abc.ABC):
    """Linear warmup, `start_fraction + (1 - start_fraction) s / w` for s <= w, then what the kind says."""

    warmup_steps: int | None = None
    """Steps until the peak is reached; without warmup_fraction too the run starts at the peak."""
    warmup_fraction: float | None = None
    """The same as a fraction of the run; given in place of warmup_steps."""
    start_fraction: float = 0.1
    """Where the warmup line starts, as a fraction of the peak; the first step is one step above it."""

    def __post_init__(self):
        _check_given_once(self, "warmup")
        check(self, "warmup_steps", 0)
        check(self, "warmup_fraction", 0, 1, open_high=True)
        check(self, "start_fraction", 0, 1)

    def multiplier(self, count: ArrayLike, num_train_steps: ArrayLike, calibration_steps: ArrayLike = 0) -> jax.Array:
        """The learning rate's multiplier for the update after `count` updates, a float scalar in [0, 1].

        In the first `calibration_steps` updates it is 0; the schedule has those that remain of `num_train_steps`.
        """
        dtype = jnp.result_type(float)
        s, total, lead = (jnp.asarray(x).astype(dtype) for x in (count, num_train_steps, calibration_steps))
        s, total = s + 1 - lead, total - lead
        w = jnp.asarray(_steps(self.warmup_steps, self.warmup_fraction, total, jnp.round)).astype(dtype)
        warmup = self.start_fraction + (1 - self.start_fraction) * s / jnp.maximum(w, 1)
        value = jnp.where(s <= w, warmup, self._after_warmup(jnp.maximum(s, 1), w, total))
        return jnp.where(s >= 1, value, 0.0).astype(dtype)

    @abc.abstractmethod
    def _after_warmup(self, s: jax.Array, w: jax.Array, total: jax.Array) -> jax.Array:
        """The multiplier at step s > w of `total`."""

    def check_fits(self, num_train_steps: int) -> None:
        """Raises `InputError` unless the schedule's durations fit into the run."""
        w = _steps(self.warmup_steps, self.warmup_fraction, num_train_steps)
        require(
            w < num_train_steps,
            f"{_in_words(self, 'warmup', w)}: must be less than num_train_steps={num_train_steps}",
        )


def _steps(steps: Any, fraction: Any, total: Any, rounded: Callable[[Any], Any] = round) -> Any:
    """A duration in steps, of which there are `total`; 0 where it is given neither way."""
    if fraction is not None:
        return rounded(fraction * total)
    return 0 if steps is None else steps


def _check_given_once(config: ScheduleConfig, kind: str) -> None:
    steps, fraction = getattr(config, f"{kind}_steps"), getattr(config, f"{kind}_fraction")
    require(
        steps is None or fraction is None,
        f"{field_name(config, kind)}_steps={steps}: {kind}_fraction={fraction} is given too; set one of them to None",
    )


def _in_words(config: ScheduleConfig, kind: str, steps: int) -> str:
    """The field that gives a duration, and its value."""
    fraction = getattr(config, f"{kind}_fraction")
    return (
        f"schedule.{kind}_steps={steps}" if fraction is None else f"schedule.{kind}_fraction={fraction} ({steps} steps)"
    )


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantConfig(ScheduleConfig):
    """1 after the warmup, which may be longer than the run: nothing comes after it."""

    def _after_warmup(self, s, w, total):
        return jnp.ones_like(s)

    def check_fits(self, num_train_steps):
        del num_train_steps


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
    """1 until the last d steps, then linear to end_fraction at T. Hu et al. 2024, arXiv 2404.06395."""

    decay_steps: int | None = None
    """Steps of the final decay; without decay_fraction too a tenth of the run."""
    decay_fraction: float | None = None
    """The same as a fraction of the run, at least one step; given in place of decay_steps."""

    def __post_init__(self):
        super().__post_init__()
        _check_given_once(self, "decay")
        check(self, "decay_steps", 1)
        check(self, "decay_fraction", 0, 1, open_low=True)

    def _decay(self, total: Any, rounded: Callable[[Any], Any] = round) -> Any:
        neither = self.decay_steps is None and self.decay_fraction is None
        return _steps(self.decay_steps, 0.1 if neither else self.decay_fraction, total, rounded)

    def _after_warmup(self, s, w, total):
        d = jnp.maximum(jnp.asarray(self._decay(total, jnp.round)).astype(s.dtype), 1)
        return 1 - (1 - self.end_fraction) * jnp.clip((s - (total - d)) / d, 0, 1)

    def check_fits(self, num_train_steps):
        super().check_fits(num_train_steps)
        w = _steps(self.warmup_steps, self.warmup_fraction, num_train_steps)
        d = max(self._decay(num_train_steps), 1)
        require(
            w + d <= num_train_steps,
            f"{_in_words(self, 'decay', d)}: with a warmup of {w} steps must be at most "
            f"num_train_steps={num_train_steps}",
        )


SCHEDULES: dict[str, type[ScheduleConfig]] = {
    "constant": ConstantConfig,
    "inverse_sqrt": InverseSqrtConfig,
    "linear": LinearConfig,
    "warmup_cosine": WarmupCosineConfig,
    "warmup_stable_decay": WarmupStableDecayConfig,
}
