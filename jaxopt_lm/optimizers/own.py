"""A user's own optimizer: a class of theirs, or any function that returns an optax transformation.

A class is a subclass of `OptimizerConfig` in any file. `FromOptax` makes a class of a function's arguments. Both are
what the registered optimizers are: their numbers are traced, a dump names them by where they come from.
"""

import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.labels import ROLES
from jaxopt_lm.optimizers.config import OptimizerConfig, check, field_name, register, traceable_classes
from jaxopt_lm.optimizers.rates import record_rate
from jaxopt_lm.optimizers.sources import Origin, find, find_again, origin_of
from jaxopt_lm.optimizers.trees import with_wide_state

T = TypeVar("T")

_SCALARS = (float, int, bool, str)
_PLAIN = (*_SCALARS, type(None))
_EMPTY = inspect.Parameter.empty
_MASKS = ("mask", "weight_decay_mask")  # what optax's functions call the parameters that decay
_OURS = {field.name for field in dataclasses.fields(OptimizerConfig)}
_RESERVED = {"name", "source_sha256", "function", "origin", "passed", *vars(OptimizerConfig)} - {*_OURS, "decay"}

# Functions whose b1, b2, eps and eps_root are those of Adam's moments, by which telemetry reads them.
_ADAMS = {f"optax._src.alias:{name}" for name in ("adam", "adamw", "nadam", "nadamw", "lamb")}


def class_named(base: type[T], registry: Mapping[str, type[T]], spec: str) -> type[T]:
    """The config class that `spec` names: of a registry, `FILE.py:CLASS` or `MODULE:CLASS`; or `MODULE:FUNCTION`.

    Raises:
      InputError: there is none, or it is no subclass of `base`.
    """
    if spec in registry:
        return registry[spec]
    require(":" in spec, f"'{spec}': must be one of {', '.join(registry)}, or FILE.py:NAME or MODULE:NAME")
    return _as_config(base, *find(spec), {})


def class_again(base: type[T], name: str, sha256: str, folder: Path, fields: Mapping[str, Any]) -> type[T]:
    """The config class that a dump in `folder` names, with the fields that it has."""
    return _as_config(base, *find_again(name, sha256, folder), fields)


def _as_config(base: type[T], thing: Any, origin: Origin, arguments: Mapping[str, Any]) -> type[T]:
    if isinstance(thing, type) and issubclass(thing, base):
        check_class(thing)
        return thing
    require(
        callable(thing) and not isinstance(thing, type) and base is OptimizerConfig,
        f"'{origin.name}': must be a subclass of {base.__name__}"
        + (" or a function that returns an optax transformation" if base is OptimizerConfig else ""),
    )
    return typing.cast(type[T], _class_of(thing, origin, arguments))


def check_class(cls: type) -> None:
    """Raises `InputError` unless a config class is a dataclass and a pytree of its own, and can be dumped."""
    require(
        cls in traceable_classes,
        f"{cls.__qualname__}: must be decorated: @traceable above @dataclasses.dataclass(frozen=True, kw_only=True)",
    )
    hints = typing.get_type_hints(cls)
    for name in (field.name for field in dataclasses.fields(cls)):
        where = f"{cls.__qualname__}.{name}"
        if name in ("name", "source_sha256"):
            raise InputError(f"{where}: dumps use that name; call the field otherwise")
        if not _in_json(hints[name]):
            raise InputError(
                f"{where}: is declared {hints[name]}; a field must be float, int, bool, str, Literal[...], "
                "tuple[X, ...] of one of these, another config, or one of these | None"
            )


def _in_json(hint: Any) -> bool:
    """Whether a dump can hold fields of this annotation, and reading it check them."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return all(isinstance(choice, str) for choice in inner)
    if typing.get_origin(hint) is tuple:
        return len(inner) == 2 and inner[1] is ... and _in_json(inner[0])
    if inner:
        return typing.get_origin(hint) in (typing.Union, types.UnionType) and all(map(_in_json, inner))
    return hint in _PLAIN or dataclasses.is_dataclass(hint)


def origin_of_class(cls: type) -> Origin:
    """Where a config class comes from, or the function that it was made of."""
    return cls.origin if issubclass(cls, FunctionConfig) else origin_of(cls)


def FromOptax(
    function: str | Callable[..., optax.GradientTransformation],
    arguments: Mapping[str, Any] | None = None,
    **fields: Any,
) -> OptimizerConfig:
    """Any function that returns an optax transformation, as the config of an optimizer.

    `FromOptax("optax.contrib:muon", {"learning_rate": 0.02, "beta": 0.9, "nesterov": False})`. Floats are numbers, to
    be traced as those of every config; bools, ints, strings and tuples are structure. An argument whose default is one
    of these is a field too, so that a dump is complete. The function gets the parameters as the model has them, stacked
    layers and heads included, and what it guesses from their shapes is not checked.

    Args:
      function: `MODULE:FUNCTION` or `FILE.py:FUNCTION`, or the function itself if it is at the top level of a file.
        It takes `learning_rate`, which the schedule multiplies, and returns updates that only have to be added.
      arguments: of the function, by name.
      **fields: `decay_roles`, which the function must take a mask for if it has `weight_decay` itself; `weight_decay`,
        decoupled, where it has none; `mu_dtype`. Arguments, too.

    Raises:
      InputError: no such function, it takes no such argument, or lacks one.
    """
    thing, origin = find(function) if isinstance(function, str) else (function, origin_of(function))
    is_function = callable(thing) and not isinstance(thing, type)
    require(is_function, f"'{origin.name}': must be a function; a config class is used as it is")
    values = dict(arguments or {}) | fields
    made = _class_of(thing, origin, values)
    lacking = "learning_rate" not in values and inspect.signature(made).parameters["learning_rate"].default is _EMPTY
    require(not lacking, f"{origin.name}: needs learning_rate, which the schedule multiplies; give it in the arguments")
    return made(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FunctionConfig(OptimizerConfig):
    """What the configs that `FromOptax` makes have in common."""

    function: ClassVar[Callable[..., optax.GradientTransformation]]
    origin: ClassVar[Origin]
    passed: ClassVar[tuple[str, ...]]
    """Fields that are arguments of the function."""

    def __post_init__(self):
        super().__post_init__()
        for field in dataclasses.fields(self):
            check(self, field.name, -math.inf)
        require(
            set(self.decay_roles) == set(ROLES) or "weight_decay" not in self.passed or self._mask is not None,
            f"{field_name(self, 'decay_roles')}={list(self.decay_roles)}: {self.origin.name} takes no mask; leave it",
        )

    @property
    def _mask(self) -> str | None:
        """The function's argument that says what decays, if it has one."""
        return next((name for name in _MASKS if name in inspect.signature(type(self).function).parameters), None)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        raise TypeError(f"{self.origin.name} has no direction apart from its rate: see make")

    def make(self, multiplier: ArrayLike, labels: Any) -> optax.GradientTransformationExtraArgs:
        rate = jnp.asarray(self.learning_rate * multiplier, jnp.result_type(float))
        arguments = {name: getattr(self, name) for name in self.passed}
        mask = self._decays(labels)
        if "weight_decay" in self.passed:
            links = [self._call(rate, arguments | ({self._mask: mask} if mask is not None and self._mask else {}))]
        else:
            links = [self._call(rate, arguments), optax.add_decayed_weights(-rate * self.weight_decay, mask)]
        recorded = optax.chain(*links, record_rate(rate, self.moments()))
        return with_wide_state(recorded, self.mu_dtype, type(self).__name__)

    def _decays(self, labels: Any) -> Any:
        """The mask of what decays; None where all does, which a function without a mask can do."""
        labelled = any(label.decays is not None for label in jax.tree.leaves(labels))
        if set(self.decay_roles) == set(ROLES) and not labelled:
            return None
        require(
            "weight_decay" not in self.passed or self._mask is not None,
            f"labels: some say whether their parameter decays, and {self.origin.name} takes no mask",
        )
        return self.decay_mask(labels)

    def _call(self, rate: jax.Array, arguments: dict[str, Any]) -> optax.GradientTransformation:
        try:
            made = type(self).function(learning_rate=rate, **arguments)
        except jax.errors.ConcretizationTypeError as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{self.origin.name}: decides by the value of a number, and numbers are traced ({reason}); call it "
                "from a function of your own that fixes this one"
            ) from None
        require(
            isinstance(made, optax.GradientTransformation),
            f"{self.origin.name}: returned {type(made).__name__}; must return an optax transformation",
        )
        return made

    def moments(self) -> dict[str, Any]:
        names = ("b1", "b2", "eps", "eps_root") if self.origin.name in _ADAMS else ()
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


def _class_of(function: Callable[..., Any], origin: Origin, arguments: Mapping[str, Any]) -> type[FunctionConfig]:
    """The config class of a function: a field for every argument that is given or has a plain default."""
    name, parameters = origin.name, inspect.signature(function).parameters
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    taken = {key: p.default for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    require("learning_rate" in taken or any_name, f"{name}: must take learning_rate; call it from a function that does")
    strange = sorted(arguments.keys() - taken.keys() - _OURS)
    require(any_name or not strange, f"{name}: has no argument {', '.join(strange)}; it takes {', '.join(taken)}")
    given = {key: value for key, value in arguments.items() if key in taken or key in strange}
    missing = [key for key, default in taken.items() if default is _EMPTY and key not in {*given, "learning_rate"}]
    require(not missing, f"{name}: needs {', '.join(missing)}; give it in the arguments")
    shadowing = sorted({*taken, *given} & _RESERVED)
    require(not shadowing, f"{name}: has an argument {', '.join(shadowing)}; call it from a function that has none")
    fields = []
    for key in dict.fromkeys(("learning_rate", *taken, *given)):
        default = taken.get(key, _EMPTY)
        value = given.get(key, 0.0 if key == "learning_rate" else default)
        if key not in ("mu_dtype", "decay_roles") and (key in given or type(value) in _SCALARS):
            hint = float if key == "learning_rate" else _hint(f"{name}: {key}", default, value)
            fields.append((key, hint, default))
    return _made(function, origin, tuple(fields))


def _hint(where: str, default: Any, value: Any) -> Any:
    """The annotation of an argument: of its value, and of its default where that is plain."""
    if isinstance(value, tuple) and value and all(type(x) in _SCALARS for x in value):
        kinds = {type(x) for x in value}
        return tuple[float if kinds == {float, int} else kinds.pop(), ...]
    require(
        type(value) in _PLAIN,
        f"{where}={value!r}: must be a number, a bool, a string, None, or a tuple of them; for anything else call the "
        "function from one of your own",
    )
    kinds = {type(x) for x in (default, value)} & set(_PLAIN)
    kinds -= {int} if float in kinds else set()
    return functools.reduce(lambda a, b: a | b, sorted(kinds, key=_PLAIN.index))


@functools.cache
def _made(
    function: Callable[..., Any], origin: Origin, fields: tuple[tuple[str, Any, Any], ...]
) -> type[FunctionConfig]:
    """The class; one for the same function and fields, so that programs compiled for it serve again."""
    columns = [
        (name, hint, dataclasses.field(**({"default": default} if type(default) in (*_PLAIN, tuple) else {})))
        for name, hint, default in fields
    ]
    namespace = {
        "function": staticmethod(function),
        "origin": origin,
        "passed": tuple(name for name, *_ in fields if name != "learning_rate"),
        "__doc__": f"{origin.name}: {(inspect.getdoc(function) or '').partition(chr(10))[0]}",
        "__module__": __name__,
    }
    cls = dataclasses.make_dataclass(
        origin.attribute.rpartition(".")[2],
        columns,
        bases=(FunctionConfig,),
        namespace=namespace,
        frozen=True,
        kw_only=True,
    )
    numbers = [name for name, hint, _ in fields if hint is float or float in typing.get_args(hint)]
    register(cls, list(dict.fromkeys(("learning_rate", "weight_decay", *numbers))))
    return cls
