"""Configs in files and on the command line.

A config file is Python with `get_config(arg) -> TrainConfig`; `arg` is what follows the colon of `--config=FILE:arg`.
A run's own `config.json` is read the same way: a dump, complete and with the version of its fields. The source of a
user's own optimizer is kept beside it and is executed on reading. Fields are then overridden one by one:
`--config.optimizer.b1=0.95`, or a whole class is chosen, `--config.optimizer=lion`.
"""

import argparse
import contextlib
import copy
import dataclasses
import io
import itertools
import re
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.dumps import REGISTRIES, at_path, from_dict, join_path, named
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.files import read_json
from jaxopt_lm.optimizers import OPTIMIZERS, SCHEDULES
from jaxopt_lm.optimizers.own import class_named
from jaxopt_lm.optimizers.sources import importing_beside, load_file

_T = TypeVar("_T")


def load(spec: str) -> TrainConfig:
    """Reads `FILE.py`, `FILE.py:arg` or `FILE.json`; either may execute code: the file's, or a user's own optimizer's.

    Raises:
      InputError: no such file, not a config, or its values do not fit together.
    """
    return load_as(TrainConfig, spec)


def load_as(cls: type[_T], spec: str) -> _T:
    """The same of another class than `TrainConfig`, from `FILE.py` or `FILE.py:arg`.

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
        require(cls is TrainConfig, f"--config={spec}: must be FILE.py[:key=value,…] here")
        return from_dict(cls, read_json(path, "mend it, or give another --config"), path.parent)
    module = load_file(path)
    require(hasattr(module, "get_config"), f"--config={spec}: {path} has no get_config(arg)")
    with importing_beside(path):
        config = module.get_config(arg or "")
    found = type(config).__name__
    require(isinstance(config, cls), f"--config={spec}: get_config returned {found}, must be {cls.__name__}")
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
    spec, rest = config_flag(argv)
    config = load(spec) if spec else TrainConfig(workdir="runs/NAME")
    return overridden(cls(config=config), description, rest)


def config_flag(argv: Sequence[str] | None = None) -> tuple[str | None, list[str]]:
    """The value of `--config`, which only `--help` does without, and the other arguments.

    Raises:
      InputError: it is missing.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config")
    try:
        known, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise InputError(f"--config: {error.message}: give --config=FILE") from None
    asks_help = not {"-h", "--help"}.isdisjoint(rest)
    require(known.config or asks_help, "--config is missing: give --config=FILE.py[:key=value,…] or RUN/config.json")
    return known.config, rest


_OFTEN = (
    *("workdir", "num_train_steps", "global_batch_size", "length", "optimizer", "optimizer.learning_rate"),
    *("schedule", "seed", "mesh.fsdp", "checkpoint.every_steps"),
)


def overridden(default: _A, description: str, flags: list[str]) -> _A:
    """Arguments with what flags change of them, as in `from_command_line`."""
    note = (
        "--config=FILE.py[:key=value,…] or --config=RUN/config.json is read first; of a run with an optimizer of its "
        "user's own it executes the source kept there. The fields below override it; the defaults are its values. "
        f"Often changed: {', '.join(f'--config.{name}' for name in _OFTEN)}. "
        "--config.optimizer=NAME and --config.schedule=NAME choose another one: of "
        f"{', '.join(OPTIMIZERS)}; of {', '.join(SCHEDULES)}; or your own as FILE.py:CLASS or MODULE:CLASS, or of an "
        "optimizer MODULE:FUNCTION, a function that returns an optax transformation. Its fields then have its own "
        "defaults, whatever those of the same name are in the config, unless the config has the one chosen already."
    )
    default = dataclasses.replace(default, config=_with_choices(default.config, flags, "config"))
    return parse_command_line(type(default), f"{description}\n{note}", flags, default=default)


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
    if isinstance(loaded, base) and named(cls, REGISTRIES[base]) == named(type(loaded), REGISTRIES[base]):
        return loaded
    config = object.__new__(cls)
    for field in dataclasses.fields(cls):
        missing = field.default is dataclasses.MISSING
        object.__setattr__(config, field.name, tyro.MISSING if missing else field.default)
    return config


def parse_command_line(
    cls: type[_T], description: str, argv: Sequence[str] | None = None, *, default: _T | None = None
) -> _T:
    """An instance of a dataclass from `--field=value` arguments, through tyro; its errors become `InputError`s.

    A bool of the class itself may stand alone, `--dry_run`, which is True.
    """
    import tyro

    argv = _spelled_out(cls, sys.argv[1:] if argv is None else argv)

    messages = io.StringIO()
    options: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(
                cls,
                args=argv,
                prog=_program(),
                description=description,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff,),
                **options,
            )
    except SystemExit as stop:
        if stop.code == 2:
            raise InputError(_one_line(messages.getvalue())) from None
        raise


def _spelled_out(cls: type, argv: Sequence[str]) -> list[str]:
    """The arguments, bools that stand alone with their value."""
    alone = {f"--{name}" for name, hint in typing.get_type_hints(cls).items() if hint is bool}
    return [
        f"{word}=True" if word.replace("-", "_").replace("__", "--", 1) in alone and after.startswith("-") else word
        for word, after in itertools.pairwise([*argv, "--"])
    ]


def _program() -> str | None:
    """How the command was called, `python -m jaxopt_lm.train`; None: not as a module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec else None


def _one_line(message: str) -> str:
    """tyro's boxed message without its frame, title and pointer to --help."""
    lines = [line.strip("│╰╯─ \t") for line in message.splitlines() if not line.startswith("╭")]
    text = " ".join(line for line in lines if line and not line.startswith("For full helptext"))
    text = text.partition(" Argument helptext:")[0]
    text = re.sub(r"^Value error -+ (.*?) -+$", r"\1", text)  # a title where the terminal has no frames
    if unknown := re.match(r"Unrecognized options: (.*?)(?: Perhaps you meant: (.*))?$", text):
        near = re.findall(r"(--[\w.]+) [A-Z{\[]", unknown[2] or "")[:3]
        return f"{unknown[1]}: unknown option; " + (f"did you mean {' or '.join(near)}?" if near else "see --help")
    if text.startswith("Missing from"):
        return f"{', '.join(re.findall(r'(--[a-z_.0-9]+) [A-Z{[]', text))}: is missing; give it a value"
    found = re.match(r"Error parsing (config\.)?([\w.]+): ", text)
    if found is None or found[2] == "config":
        return re.sub(r"^Error parsing (config: )?", "", text)
    section = found[1] or found[2][0].islower()  # else the class that a command line fills
    return at_path(text[found.end() :], found[2] if section else "")
