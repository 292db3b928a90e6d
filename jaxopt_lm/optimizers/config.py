"""Configs whose numbers can be traced.

A config of an optimizer or a schedule is a frozen dataclass and a pytree at once. Its numbers (fields of type float,
and durations: ints whose name ends in `_steps`) are leaves: they are passed to the jitted step as arguments, so a sweep
can vmap over them and nothing is recompiled when one changes. All other fields (bool, str, choices) are structure.

Beside each config is its constructor, a function for use in optax chains (see `construct`).
"""

import abc
import dataclasses
import math
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.labels import ROLES, Label
from jaxopt_lm.optimizers.groups import require_labels
from jaxopt_lm.optimizers.rates import scale_by_rate
from jaxopt_lm.optimizers.sources import remember
from jaxopt_lm.optimizers.trees import next_count, with_wide_state

FLOAT32_MAX = 3.4028234e38

T = TypeVar("T")


def traceable(cls: type[T]) -> type[T]:
    """Class decorator: registers a dataclass as a pytree whose leaves are its numbers."""
    require(
        "__dataclass_fields__" in vars(cls),
        f"{cls.__qualname__}: @traceable goes above @dataclasses.dataclass(frozen=True, kw_only=True), which it lacks",
    )
    remember(cls.__module__)
    hints = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]  # pyright: ignore[reportArgumentType]
    register(cls, [name for name in fields if _is_number(name, hints[name])])
    return cls


traceable_classes: set[type] = set()
"""All that `register` was given."""


def register(cls: type, numbers: Sequence[str]) -> None:
    """Registers a dataclass as a pytree with the fields `numbers` as its leaves.

    It is rebuilt from leaves of any kind (axes of a vmap, differences, None) without its checks: those are for
    configs that are made by their class.
    """
    structure = [field.name for field in dataclasses.fields(cls) if field.name not in numbers]

    def leaves_and_structure(config):
        return [getattr(config, name) for name in numbers], tuple(getattr(config, name) for name in structure)

    def with_keys(config):
        leaves, rest = leaves_and_structure(config)
        return list(zip(map(jax.tree_util.GetAttrKey, numbers), leaves, strict=True)), rest

    def rebuilt(rest, leaves):
        config = object.__new__(cls)
        for name, value in zip((*structure, *numbers), (*rest, *leaves), strict=True):
            object.__setattr__(config, name, value)
        return config

    jax.tree_util.register_pytree_with_keys(cls, with_keys, rebuilt, leaves_and_structure)
    traceable_classes.add(cls)


def _is_number(name: str, hint: Any) -> bool:
    """A number, or a config of numbers."""
    kinds = set(typing.get_args(hint) or (hint,)) - {type(None)}
    if any(dataclasses.is_dataclass(kind) for kind in kinds):
        return True
    return kinds == {float} or (kinds == {int} and name.endswith("_steps"))


def field_name(config: Any, name: str) -> str:
    """How an error calls a field: by its class, for a config has no reference to the one that it is a part of.

    What reads dumps and command lines puts the dotted path there.
    """
    return f"{type(config).__name__}.{name}"


def check(
    config: Any, name: str, low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
) -> None:
    """Raises `InputError` unless field `name` is finite in float32 and within [low, high], open where asked for.

    Traced values, arrays and None pass: the numbers of a sweep are checked where its grid is made.
    """
    value = getattr(config, name)
    if not isinstance(value, int | float):
        return
    open_high = open_high or high == math.inf
    inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    if not (inside and abs(value) <= FLOAT32_MAX):
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise InputError(f"{field_name(config, name)}={value}: must be finite in float32 and in {interval}")


def check_decays(config: Any, *names: str) -> None:
    """Decay rates of averages are in [0, 1)."""
    for name in names:
        check(config, name, 0, 1, open_high=True)


def check_eps(config: Any, name: str = "eps") -> None:
    """An eps is positive, or an entry that never had a gradient becomes 0 / 0."""
    check(config, name, 0, open_low=True)


def check_roles(config: Any, *names: str) -> None:
    """Fields of roles hold roles."""
    for name in names:
        if unknown := set(getattr(config, name)) - set(ROLES):
            raise InputError(f"{field_name(config, name)}={sorted(unknown)}: roles are {', '.join(ROLES)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(abc.ABC):
    """What every optimizer has. The update is `p <- p (1 - lr * weight_decay) - lr * direction`."""

    learning_rate: float
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: float = 0.0
    """Decoupled decay, multiplied by the learning rate in force."""
    decay_roles: tuple[str, ...] = ROLES
    """Roles that decay: some of embedding, attention, mlp, norm, head."""
    mu_dtype: Literal["bfloat16"] | None = None
    """What momenta, averages or sums of gradients, are kept in between updates, 2 bytes a parameter less; updates are
    computed in float32, in which None keeps them too."""

    def __post_init__(self):
        require(
            self.mu_dtype in (None, "bfloat16"),
            f"{field_name(self, 'mu_dtype')}={self.mu_dtype!r}: must be 'bfloat16' or None",
        )
        check(self, "learning_rate", 0)
        check(self, "weight_decay", 0)
        check_roles(self, "decay_roles")

    @abc.abstractmethod
    def direction(self, labels: Any) -> optax.GradientTransformation:
        """Gradients to directions; positive ones, which `make` decays, scales and turns downhill."""

    def make(self, multiplier: ArrayLike, labels: Any) -> optax.GradientTransformationExtraArgs:
        """The optimizer at this moment of the schedule.

        Args:
          multiplier: the schedule's value, a scalar, possibly traced; every peak learning rate is multiplied by it.
          labels: the parameters' tree with a `Label` in place of each array; None where every parameter is treated
            alike. Inside `optax.masked` or `optax.partition` too it is that of the whole model, for layers are counted
            and roles looked for in it.

        Returns:
          A transformation whose state's structure depends on no number, so it can be made anew at every step. The state
          is float32 or wider, but for momenta where `mu_dtype` is set. Updates are in the parameters' dtype, or in the
          gradients' where `update` is given no parameters.

        Raises:
          InputError: at `init`, where a parameter is complex.
        """
        return with_wide_state(
            optax.chain(
                self.direction(labels),
                self.decay(labels),
                scale_by_rate(self.learning_rate * multiplier, self.rate_multipliers(labels), self.moments()),
            ),
            self.mu_dtype,
            type(self).__name__,
        )

    def decay(self, labels: Any) -> optax.GradientTransformation:
        """Adds weight_decay * p to the directions of the roles that decay."""
        return optax.add_decayed_weights(self.weight_decay, self.decay_mask(labels))

    def decay_mask(self, labels: Any) -> Any:
        """The parameters' tree with True where one decays; None, which decays all, where there are no labels."""
        if labels is None and set(self.decay_roles) == set(ROLES):
            return None
        require_labels(labels, "what decays is chosen")
        return jax.tree.map(self.decays, labels)

    def decays(self, label: Label) -> bool:
        """Whether a parameter decays: its label says so, or else its role."""
        return label.role in self.decay_roles if label.decays is None else label.decays

    def rate_multipliers(self, labels: Any) -> Callable[[Any], Any] | None:
        """Factors of the learning rate per parameter, as `scale_by_rate` takes them; None: all are 1."""
        del labels
        return None

    @property
    def calibration_steps(self) -> int:
        """Updates at rate 0 before the schedule begins; those of a config inside this one, if it has any."""
        inner = (value.calibration_steps for value in vars(self).values() if isinstance(value, OptimizerConfig))
        return next(inner, 0)

    def moments(self) -> dict[str, Any]:
        """By which `telemetry` reads the state's moments: b1 and b2 where they are bias-corrected, eps, eps_root."""
        return {}

    def part(self, label: Label) -> "OptimizerConfig | None":
        """The config that a parameter is updated by: this one, one inside it, or None where it never moves."""
        del label
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamConfig(OptimizerConfig):
    """The numbers of Adam, for optimizers whose b1, b2 and eps mean what Adam's do; their defaults may be others."""

    learning_rate: float = 3.16e-3
    b1: float = 0.9
    """Decay of the mean of gradients."""
    b2: float = 0.95
    """Decay of the mean of squared gradients."""
    eps: float = 1e-15
    """Added to the root; positive, or an entry that never had a gradient becomes 0 / 0."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b1", "b2")
        check_eps(self)

    def moments(self) -> dict[str, Any]:
        return {"b1": self.b1, "b2": self.b2, "eps": self.eps}


def check_config(config: OptimizerConfig, name: str) -> None:
    """A field for an optimizer inside this one holds a config: its rate has the schedule, its numbers are traced."""
    require(
        isinstance(getattr(config, name), OptimizerConfig),
        f"{field_name(config, name)}: must be a config, AdamWConfig(learning_rate=3e-4) or "
        "FromOptax('optax:adamw', …) say; to join transformations use optimizers.partition",
    )


class CountedState(NamedTuple):
    """State of an optimizer made anew at every update.

    Attributes:
      count: updates made so far, int32.
      inner_state: of the optimizer.
    """

    count: jax.Array
    inner_state: optax.OptState


def by_count(at: Callable[[jax.Array], optax.GradientTransformation]) -> optax.GradientTransformationExtraArgs:
    """The transformation that `at` gives for the count of updates made so far."""

    def init(params):
        count = jnp.zeros((), jnp.int32)
        return CountedState(count, at(count).init(params))

    def update(updates, state, params=None, **extra_args):
        tx = optax.with_extra_args_support(at(state.count))
        updates, inner_state = tx.update(updates, state.inner_state, params, **extra_args)
        return updates, CountedState(next_count(state.count), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def held(
    steps: Any, make: Callable[[ArrayLike], optax.GradientTransformationExtraArgs], multiplier: ArrayLike
) -> optax.GradientTransformationExtraArgs:
    """`make(multiplier)` after a calibration of so many updates, `make(0)` during it; steps=0: there is none."""
    if isinstance(steps, int) and steps == 0:
        return make(multiplier)
    return by_count(lambda count: make(jnp.where(count >= jnp.asarray(steps), multiplier, 0.0)))
