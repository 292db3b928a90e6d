"""Configs whose numbers can be traced.

A config of an optimizer or a schedule is a frozen dataclass and a pytree at once. Its numbers (fields of type float,
and durations: ints whose name ends in `_steps`) are leaves: they travel into the jitted step as arguments, so a sweep
can vmap over them and nothing is recompiled when one changes. All other fields (bool, str, choices) are structure.
"""

import abc
import dataclasses
import math
import typing
from typing import Any, ClassVar

import jax
import optax

from jaxopt_lm.errors import require
from jaxopt_lm.labels import ROLES, Label

FLOAT32_MAX = 3.4028234e38


def traceable(cls: type) -> type:
    """Class decorator: registers a dataclass as a pytree whose leaves are its numbers."""
    hints = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    numbers = [name for name in fields if _is_number(name, hints[name])]
    jax.tree_util.register_dataclass(cls, numbers, [name for name in fields if name not in numbers])
    return cls


def _is_number(name: str, hint: Any) -> bool:
    kinds = set(typing.get_args(hint) or (hint,)) - {type(None)}
    return kinds == {float} or (kinds == {int} and name.endswith("_steps"))


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
    interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
    require(
        inside and abs(value) <= FLOAT32_MAX,
        f"{config.section}.{name}={value}: must be finite in float32 and in {interval}",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(abc.ABC):
    """What every optimizer has. The update is `p <- p (1 - lr * weight_decay) - lr * direction`."""

    section: ClassVar[str] = "optimizer"

    learning_rate: float
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: float = 0.0
    """Decoupled decay, multiplied by the learning rate in force."""
    decay_roles: tuple[str, ...] = ROLES
    """Roles that decay: some of embedding, attention, mlp, norm, head."""

    def __post_init__(self):
        check(self, "learning_rate", 0)
        check(self, "weight_decay", 0)
        unknown = set(self.decay_roles) - set(ROLES)
        require(not unknown, f"optimizer.decay_roles={sorted(unknown)}: roles are {', '.join(ROLES)}")

    @abc.abstractmethod
    def make(self, multiplier: float | jax.Array, labels: Any) -> optax.GradientTransformation:
        """The optimizer at this moment of the schedule.

        Args:
          multiplier: the schedule's value, a scalar, possibly traced; every peak learning rate is multiplied by it.
          labels: the parameters' tree with a `Label` in place of each array.

        Returns:
          A transformation whose state does not depend on any number, so it can be made anew at every step.
        """

    def decay_mask(self, labels: Any) -> Any:
        """The parameters' tree with True where the role decays."""
        return jax.tree.map(
            lambda label: label.role in self.decay_roles, labels, is_leaf=lambda node: isinstance(node, Label)
        )
