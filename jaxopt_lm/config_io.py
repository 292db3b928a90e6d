"""Configs in files and on the command line.

A config file is Python with `get_config(arg) -> TrainConfig`; `arg` is what follows the colon of `--config=FILE:arg`.
A run's own `config.json` is read the same way: a dump, complete and with the version of its fields. The source of a
user's own optimizer stands beside it and is executed on reading. Fields are then overridden one by one:
`--config.optimizer.b1=0.95`, or a whole class is chosen, `--config.optimizer=lion`.
"""

import argparse
import contextlib
import copy
import dataclasses
import io
import json
import os
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jaxopt_lm.config import TrainConfig, has_type, join_path, type_name
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.optimizers import OPTIMIZERS, SCHEDULES, OptimizerConfig, ScheduleConfig
from jaxopt_lm.optimizers.own import class_again, class_named, origin_of_class
from jaxopt_lm.optimizers.sources import importing_beside, load_file

_T = TypeVar("_T")

REGISTRIES: dict[type, dict[str, type]] = {OptimizerConfig: OPTIMIZERS, ScheduleConfig: SCHEDULES}
"""Fields declared as one of these base classes hold any class of its registry, or a user's own; a dump names it under
`name`, and of a user's own has its source's hash under `source_sha256`."""

VERSION = 2
"""Of the fields in a dump: one more whenever a field is added, taken away or comes to mean something else. 0: dumps
that carry none."""

AS_BEFORE: dict[tuple[str, str], Any] = {}
"""What a dump of an earlier version means by leaving out a field, (class, field), where that is not the default."""


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON values, complete; classes of a registry carry their `name`, a whole one its `version`."""
    result: dict[str, Any] = {"version": VERSION} if isinstance(config, TrainConfig) else {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        result[field.name] = list(value) if isinstance(value, tuple) else value
    for base, registry in REGISTRIES.items():
        if isinstance(config, base):
            result |= _named(type(config), registry)
    return result


def _named(cls: type, registry: dict[str, type]) -> dict[str, str]:
    """What names a class in a dump."""
    for name, registered in registry.items():
        if registered is cls:
            return {"name": name}
    origin = origin_of_class(cls)
    return {"name": origin.name, "source_sha256": origin.sha256}


def sources(config: Any) -> dict[str, bytes]:
    """The files that a dump of a config needs beside it, by name: the sources of a user's own classes, nested ones too.

    Raises:
      InputError: two of them have the same name.
    """
    found: dict[str, bytes] = {}
    for section in _sections(config):
        if isinstance(section, tuple(REGISTRIES)) and "source_sha256" in to_dict(section):
            origin = origin_of_class(type(section))
            same = found.setdefault(origin.file, origin.content) == origin.content
            require(same, f"{origin.name}: another source of this config is named {origin.file} too; rename one")
    return found


def _sections(config: Any) -> Iterator[Any]:
    """A config and all configs inside it."""
    yield config
    for value in vars(config).values():
        if dataclasses.is_dataclass(value):
            yield from _sections(value)


def to_json(config: TrainConfig) -> str:
    """The complete config as indented JSON with sorted keys, ending in a newline."""
    return json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n"


def from_dict(cls: type, fields: Any, folder: str | os.PathLike = ".") -> Any:
    """The inverse of `to_dict`.

    A field that a dump of an earlier version lacks has the value that means what was so then.

    Args:
      cls: of the config.
      fields: the dump.
      folder: of the run, where the sources of a user's own classes are.

    Raises:
      InputError: a field is missing, unknown, of the wrong type, or does not fit the others; the dump is of a later
        version; a source is missing or changed.
    """
    require(isinstance(fields, dict), f"config={fields!r}: must be an object")
    version = fields.get("version", 0)
    require(type(version) is int and version >= 0, f"version={version!r}: must be a whole number, at least 0")
    config = _Dump(version, Path(folder)).read(cls, {name: x for name, x in fields.items() if name != "version"}, "")
    require(version <= VERSION, f"version={version}: {_NEWER}")
    return config


_NEWER = f"the config was written by a newer jaxopt_lm; this one knows versions up to {VERSION}; use the newer one"


class _Dump(NamedTuple):
    """How a dump is read.

    Attributes:
      version: of its fields.
      folder: of its sources.
    """

    version: int
    folder: Path

    def read(self, cls: type, fields: Any, path: str) -> Any:
        """The config at the dotted name `path`."""
        require(isinstance(fields, dict), f"{path or 'config'}={fields!r}: must be an object")
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        if cls in REGISTRIES:
            cls = self._class(cls, fields, path)
        hints, values = typing.get_type_hints(cls), self._lacking(cls, fields, path)
        for name, value in fields.items():
            where, hint = join_path(path, name), hints[name]
            inner = next((kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)), None)
            if inner is not None and (inner is hint or value is not None):
                value = self.read(typing.cast(type, inner), value, where)
            require(has_type(value, hint), f"{where}={value!r}: must be {type_name(hint)}")
            values[name] = value
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(_at_path(str(error), path) if path else str(error)) from None

    def _class(self, base: type, fields: dict[str, Any], path: str) -> type:
        """The class that the fields name; what names it is taken out."""
        name, sha256 = fields.pop("name", None), fields.pop("source_sha256", None)
        registry = REGISTRIES[base]
        if isinstance(name, str) and name in registry and sha256 is None:
            return registry[name]
        own = isinstance(name, str) and ":" in name and isinstance(sha256, str)
        require(own, f"{path}.name={name!r}: must be one of {', '.join(registry)}, or name a source by its SHA-256")
        try:
            return class_again(base, name, sha256, self.folder, fields)
        except InputError as error:
            raise InputError(f"{path}.name: {error}") from None

    def _lacking(self, cls: type, fields: dict[str, Any], path: str) -> dict[str, Any]:
        """The values of what a dump of an earlier version lacks; any other difference is refused."""
        default = {field.name: field.default for field in dataclasses.fields(cls)}
        reason = f"no such field; {_NEWER}" if self.version > VERSION else "no such field"
        meant = {name: _meant(cls, name, default[name]) for name in default.keys() - fields.keys()}
        lost = [name for name, value in meant.items() if self.version >= VERSION or value is dataclasses.MISSING]
        for odd, what in ((fields.keys() - default.keys(), reason), (lost, "is missing")):
            require(not odd, f"{', '.join(join_path(path, name) for name in sorted(odd))}: {what}")
        return meant


def _meant(cls: type, name: str, default: Any) -> Any:
    """What a dump from before a field was there means by leaving it out."""
    known = (AS_BEFORE[kind.__name__, name] for kind in cls.__mro__ if (kind.__name__, name) in AS_BEFORE)
    return next(known, default)


def _at_path(message: str, path: str) -> str:
    """What a config's check says of `Class.field` or `section.field`, said of the field at its dotted path."""
    return re.sub(r"^\w+\.(?=\w)", f"{path}." if path else "", message)


def differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> dict[str, tuple[Any, Any]]:
    """The fields in which two dumps differ: dotted name to (old, new)."""
    found = {}
    for name in sorted(old.keys() | new.keys()):
        a, b, where = old.get(name), new.get(name), join_path(path, name)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differences(a, b, where)
        elif a != b:
            found[where] = (a, b)
    return found


def load(spec: str) -> TrainConfig:
    """Reads `FILE.py`, `FILE.py:arg` or `FILE.json`; either may execute code: the file's, or a user's own optimizer's.

    Raises:
      InputError: no such file, not a config, or its values do not fit together.
    """
    match = re.fullmatch(r"(.+?\.(?:py|json))(?::(.*))?", spec, re.DOTALL)
    name, arg = (spec, None) if Path(spec).is_file() or match is None else match.groups()
    path = Path(name)
    require(path.suffix in (".py", ".json"), f"--config={spec}: must be FILE.py[:key=value,…] or FILE.json")
    require(path.is_file(), f"--config={spec}: no such file {path}")
    if path.suffix == ".json":
        require(not arg, f"--config={spec}: a .json file takes no arguments after the colon")
        try:
            fields = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise InputError(f"--config={spec}: not JSON: {error}") from None
        return from_dict(TrainConfig, fields, path.parent)
    module = load_file(path)
    require(hasattr(module, "get_config"), f"--config={spec}: {path} has no get_config(arg)")
    with importing_beside(path):
        config = module.get_config(arg or "")
    require(isinstance(config, TrainConfig), f"--config={spec}: get_config returned {type(config).__name__}")
    return config


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithConfig:
    """The arguments of a command that takes a config; commands with more of them add fields."""

    config: TrainConfig


_A = TypeVar("_A", bound=WithConfig)


def from_command_line(cls: type[_A], description: str, argv: Sequence[str] | None = None) -> _A:
    """The arguments of a command line; `--help` prints every field, its doc and its default, and exits.

    Args:
      cls: a dataclass; every field but `config` has a default.
      description: the first lines of the help.
      argv: the arguments; those of the process by default.

    Raises:
      InputError: an unknown field, a value of the wrong type, or values that do not fit together.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config")
    try:
        known, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise InputError(f"--config: {error.message}: give --config=FILE") from None
    asks_help = not {"-h", "--help"}.isdisjoint(rest)
    require(known.config or asks_help, "--config is missing: give --config=FILE.py[:key=value,…] or RUN/config.json")
    config = load(known.config) if known.config else TrainConfig(workdir="runs/NAME")
    note = (
        "--config=FILE.py[:key=value,…] or --config=RUN/config.json is read first; of a run with an optimizer of its "
        "user's own it executes the source kept there. The fields below override it; the defaults are its values. "
        "--config.optimizer=NAME and --config.schedule=NAME choose another one: of "
        f"{', '.join(OPTIMIZERS)}; of {', '.join(SCHEDULES)}; or your own as FILE.py:CLASS or MODULE:CLASS, or of an "
        "optimizer MODULE:FUNCTION, a function that returns an optax transformation. Its fields then have its own "
        "defaults, whatever those of the same name are in the config, unless the config has the one chosen already."
    )
    config = _with_choices(config, rest, "config")
    return parse_command_line(cls, f"{description}\n{note}", rest, default=cls(config=config))


def _with_choices(config: _T, flags: list[str], path: str) -> _T:
    """The config with the classes that flags choose, which are taken out; not checked, for more flags may follow."""
    hints, chosen = typing.get_type_hints(type(config)), copy.copy(config)
    for name, value in vars(config).items():
        where = join_path(path, name)
        base = next((base for base in REGISTRIES if base in (hints.get(name), *typing.get_args(hints.get(name)))), None)
        spec = _taken(flags, f"--{where}") if base else None
        if base and spec is not None:
            value = _chosen(base, spec, value, where)
        if dataclasses.is_dataclass(value):
            value = _with_choices(value, flags, where)
        object.__setattr__(chosen, name, value)
    return chosen


def _taken(flags: list[str], name: str) -> str | None:
    """The value of the last flag `name`; all of them are removed from `flags`."""
    value = None
    for i in reversed([i for i, flag in enumerate(flags) if flag.partition("=")[0] == name]):
        _, equals, text = flags[i].partition("=")
        require(bool(equals) or i + 1 < len(flags), f"{name}: expected one argument: give {name}=NAME")
        text = text if equals else flags[i + 1]
        value = text if value is None else value
        del flags[i : i + (1 if equals else 2)]
    return value


def _chosen(base: type, spec: str, loaded: Any, where: str) -> Any:
    """What is there if it is of the class that `spec` names, else that class with its defaults; those it lacks are
    tyro's to ask for."""
    import tyro

    try:
        cls = class_named(base, REGISTRIES[base], spec)
    except InputError as error:
        raise InputError(f"--{where}: {error}") from None
    if isinstance(loaded, base) and _named(cls, REGISTRIES[base]) == _named(type(loaded), REGISTRIES[base]):
        return loaded
    config = object.__new__(cls)
    for field in dataclasses.fields(cls):
        missing = field.default is dataclasses.MISSING
        object.__setattr__(config, field.name, tyro.MISSING if missing else field.default)
    return config


def parse_command_line(
    cls: type[_T], description: str, argv: Sequence[str] | None = None, *, default: _T | None = None
) -> _T:
    """An instance of a dataclass from `--field=value` arguments, through tyro; its errors become `InputError`s."""
    import tyro

    messages = io.StringIO()
    options: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(
                cls,
                args=argv,
                description=description,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff,),
                **options,
            )
    except SystemExit as stop:
        if stop.code == 2:
            raise InputError(_one_line(messages.getvalue())) from None
        raise


def _one_line(message: str) -> str:
    """tyro's boxed message without its frame, title and pointer to --help."""
    lines = [line.strip("│╰╯─ \t") for line in message.splitlines() if not line.startswith("╭")]
    text = " ".join(line for line in lines if line and not line.startswith("For full helptext"))
    text = text.partition(" Argument helptext:")[0]
    if text.startswith("Missing from"):
        return f"{', '.join(re.findall(r'(--[a-z_.0-9]+) [A-Z{[]', text))}: is missing; give it a value"
    found = re.match(r"Error parsing (config\.)?([\w.]+): ", text)
    if found is None or found[2] == "config":
        return re.sub(r"^Error parsing (config: )?", "", text)
    return _at_path(text[found.end() :], found[2] if found[1] else "")
