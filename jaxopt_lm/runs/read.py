"""Reading the files of a run's folder; the run may be going on."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.dumps import from_dict
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.files import read_json


def saved_steps(folder: Path) -> list[int]:
    """The steps that a folder of checkpoints holds, sound or not, oldest first; `0004` is no name that was written."""
    return sorted(int(path.name) for path in folder.glob("*") if re.fullmatch("0|[1-9][0-9]*", path.name))


def read_config(folder: str | os.PathLike) -> TrainConfig:
    """The config of the run in `folder`.

    Raises:
      InputError: `config.json` is missing or damaged.
    """
    path = Path(folder, "config.json")
    require(path.is_file(), f"{path}: no such file; {folder} is not the folder of a run")
    return from_dict(TrainConfig, read_json(path, "give another folder"), folder)


def read_machines(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """What a run was trained on, as `machines.json` lists it; none of a run from before it was recorded.

    Raises:
      InputError: the file is damaged.
    """
    path, mend = Path(folder, "machines.json"), "remove it"
    found = read_json(path, mend) if path.exists() else []
    listed = isinstance(found, list) and all(isinstance(x, dict) and type(x.get("after_step")) is int for x in found)
    require(listed, f"{path}: is not a list of machines; {mend}")
    return found


def read_metrics(folder: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The lines of `metrics.jsonl`, oldest first; a last line cut off by a kill is left out.

    Raises:
      InputError: a line is not what this project writes.
    """
    path = Path(folder, "metrics.jsonl")
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                values = json.loads(line)
                if type(values["step"]) is not int or not all(isinstance(v, int | float) for v in values.values()):
                    raise TypeError
                yield values
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise InputError(f"{path}: line {number} is not a line of metrics; remove it") from None


class Series(NamedTuple):
    """A metric over a run: int64 steps and float64 values, both [number of lines that have it]."""

    steps: np.ndarray
    values: np.ndarray


def read_history(folder: str | os.PathLike) -> dict[str, Series]:
    """Every metric of `metrics.jsonl` by name.

    Raises:
      InputError: a line is not what this project writes.
    """
    columns: dict[str, list[tuple[int, float]]] = {}
    for line in read_metrics(folder):
        for name in line.keys() - {"step"}:
            columns.setdefault(name, []).append((line["step"], line[name]))
    pairs = {name: tuple(zip(*column, strict=True)) for name, column in sorted(columns.items())}
    return {name: Series(np.asarray(steps), np.asarray(values, float)) for name, (steps, values) in pairs.items()}
