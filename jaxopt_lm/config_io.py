"""Configs in files and on the command line.

A config file is Python with `get_config(arg) -> TrainConfig`; `arg` is what follows the colon of `--config=FILE:arg`.
A run's own `config.json` is read the same way. Fields are then overridden one by one: `--config.optimizer.b1=0.95`.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import json
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxopt_lm.config import TrainConfig, has_type, join_path, type_name
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.optimizers import OPTIMIZERS, SCHEDULES, OptimizerConfig, ScheduleConfig

_T = TypeVar("_T")

REGISTRIES: dict[type, dict[str, type]] = {OptimizerConfig: OPTIMIZERS, ScheduleConfig: SCHEDULES}
"""Fields declared as one of these base classes hold any class of its registry; a dump names it under `name`."""


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON values, complete; classes of a registry carry their `name`."""
    result = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        result[field.name] = list(value) if isinstance(value, tuple) else value
    for registry in REGISTRIES.values():
        for name, cls in registry.items():
            if cls is type(config):
                result["name"] = name
    return result


def to_json(config: TrainConfig) -> str:
    """The complete config as indented JSON with sorted keys, ending in a newline."""
    return json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n"


def from_dict(cls: type, fields: Any, path: str = "") -> Any:
    """The inverse of `to_dict`.

    Raises:
      InputError: a field is missing, unknown, of the wrong type, or does not fit the others.
    """
    require(isinstance(fields, dict), f"{path or 'config'}={fields!r}: must be an object")
    fields = dict(fields)
    if cls in REGISTRIES:
        name, registry = fields.pop("name", None), REGISTRIES[cls]
        require(
            isinstance(name, str) and name in registry, f"{path}.name={name!r}: must be one of {', '.join(registry)}"
        )
        cls = registry[name]
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}
    for difference, what in ((fields.keys() - known, "no such field"), (known - fields.keys(), "is missing")):
        require(not difference, f"{', '.join(join_path(path, name) for name in sorted(difference))}: {what}")
    values = {}
    for name, value in fields.items():
        if dataclasses.is_dataclass(hints[name]):
            value = from_dict(typing.cast(type, hints[name]), value, join_path(path, name))
        values[name] = value = tuple(value) if isinstance(value, list) else value
        require(has_type(value, hints[name]), f"{join_path(path, name)}={value!r}: must be {type_name(hints[name])}")
    try:
        return cls(**values)
    except InputError as error:
        raise InputError(_at_path(str(error), path) if path else str(error)) from None


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
    """Reads `FILE.py`, `FILE.py:arg` or `FILE.json`.

    Raises:
      InputError: no such file, not a config, or its values do not fit together.
    """
    name, _, arg = (spec, "", "") if Path(spec).is_file() else spec.partition(":")
    path = Path(name)
    require(path.suffix in (".py", ".json"), f"--config={spec}: must be FILE.py[:key=value,…] or FILE.json")
    require(path.is_file(), f"--config={spec}: no such file {path}")
    if path.suffix == ".json":
        require(not arg, f"--config={spec}: a .json file takes no arguments after the colon")
        try:
            fields = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise InputError(f"--config={spec}: not JSON: {error}") from None
        return from_dict(TrainConfig, fields)
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    require(hasattr(module, "get_config"), f"--config={spec}: {path} has no get_config(arg)")
    config = module.get_config(arg)
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
        "--config=FILE.py[:key=value,…] or --config=RUN/config.json is read first. "
        "The fields below override it; the defaults are its values."
    )
    return parse_command_line(cls, f"{description}\n{note}", rest, default=cls(config=config))


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
    found = re.match(r"Error parsing (config\.)?([\w.]+): ", text)
    if found is None or found[2] == "config":
        return re.sub(r"^Error parsing (config: )?", "", text)
    return _at_path(text[found.end() :], found[2] if found[1] else "")
