"""Configs as JSON values and back: complete, with the version of their fields, checked against the fields' types.

Where a field holds an optimizer or a schedule, the dump names its class; the source of a user's own stands beside the
dump and is executed on reading.
"""

import dataclasses
import json
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.optimizers import OPTIMIZERS, SCHEDULES, OptimizerConfig, ScheduleConfig
from jaxopt_lm.optimizers.own import class_again, origin_of_class

REGISTRIES: dict[type, dict[str, type]] = {OptimizerConfig: OPTIMIZERS, ScheduleConfig: SCHEDULES}
"""Fields declared as one of these base classes hold any class of its registry, or a user's own; a dump names it under
`name`, and of a user's own has its source's hash under `source_sha256`."""

VERSION = 2
"""Of the fields in a dump: one more whenever a field is added, taken away or comes to mean something else. 0: dumps
that carry none."""

AS_BEFORE: dict[tuple[str, str], Any] = {}
"""What a dump of an earlier version means by leaving out a field, (class, field), where that is not the default."""


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON values, complete, with the `version` of its fields; classes of a registry carry their `name`."""
    return {"version": VERSION} | _fields(config)


def _fields(config: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            value = _fields(value)
        result[field.name] = list(value) if isinstance(value, tuple) else value
    for base, registry in REGISTRIES.items():
        if isinstance(config, base):
            result |= named(type(config), registry)
    return result


def named(cls: type, registry: dict[str, type]) -> dict[str, str]:
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


def to_json(config: Any) -> str:
    """The dump as indented JSON with sorted keys, ending in a newline."""
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
            if not has_type(value, hint):
                raise InputError(f"{where}={value!r}: must be {type_name(hint)}")
            values[name] = value
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(at_path(str(error), path) if path else str(error)) from None

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


def at_path(message: str, path: str) -> str:
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


def flat(dump: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Fields by dotted name, as text; those that are None are left out."""
    for name, value in dump.items():
        where = join_path(path, name)
        if isinstance(value, Mapping):
            yield from flat(value, where)
        elif value is not None:
            yield where, str(value)


def without(dump: dict[str, Any], *names: str, path: str = "") -> dict[str, Any]:
    """A dump without some fields or sections, by dotted name."""
    kept = {}
    for name, value in dump.items():
        where = join_path(path, name)
        if where not in names:
            kept[name] = without(value, *names, path=where) if isinstance(value, dict) else value
    return kept


def replaced(config: Any, values: Mapping[str, Any], path: str = "") -> Any:
    """A config with other values of some fields, by dotted name; checked once all are in place.

    Raises:
      InputError: there is no such field, or the values do not fit.
    """
    changes: dict[str, Any] = {}
    for name, value in values.items():
        head, dot, rest = name.partition(".")
        inner = getattr(config, head, None)
        known = head in (field.name for field in dataclasses.fields(config)) and (
            not dot or dataclasses.is_dataclass(inner)
        )
        require(known, f"{join_path(path, name)}: there is no such field")
        if dot:
            changes.setdefault(head, {})[rest] = value
        else:
            changes[head] = tuple(value) if isinstance(value, list) else value
    for head, value in changes.items():
        if isinstance(value, dict):
            changes[head] = replaced(getattr(config, head), value, join_path(path, head))
    return dataclasses.replace(config, **changes)


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value is of a config field's annotated type; an int passes for a float, a bool for neither."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin in (typing.Union, types.UnionType):
        return any(has_type(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(has_type(item, args[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def type_name(hint: Any) -> str:
    """A config field's annotated type in words."""
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def join_path(path: str, name: str) -> str:
    """The dotted name of field `name` of the section at `path`, which is empty at the top."""
    return f"{path}.{name}" if path else name
