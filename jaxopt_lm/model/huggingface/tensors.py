"""The files of a checkpoint folder: model.safetensors, or shards with an index, and how a folder is filled.

Names, shapes and dtypes of tensors are known here, models are not. Nothing is unpickled.
"""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.files import Writer, read_json, write_together

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""NumPy's names of the floating-point dtypes that are read, and the format's."""

Shapes = Mapping[str, tuple[int, ...]]


class Stored(NamedTuple):
    """What the header of the file `path` says of a tensor; dtype by the format's name."""

    path: Path
    dtype: str
    shape: tuple[int, ...]


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor in a folder by name, from the headers alone: model.safetensors, or else the index's shards.

    Raises:
      InputError: files are missing or damaged, are outside the folder, or are pickles.
    """
    if (folder / WEIGHTS).is_file():
        return _header(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _sharded(folder)
    require(
        not any(folder.glob("pytorch_model*.bin")),
        f"{folder}: holds pytorch_model.bin, a pickle, which could run code and is not read; convert it: in "
        "transformers, AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)",
    )
    raise InputError(f"{folder}: holds no {WEIGHTS} and no {INDEX}; give a Hugging Face checkpoint folder")


def _sharded(folder: Path) -> dict[str, Stored]:
    path = folder / INDEX
    places = read_object(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{path}: weight_map is missing; fetch it again")
    for name in places.values():
        if not (isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")):
            raise InputError(f"{path}: weight_map names {name!r}: must be a .safetensors file in this folder")
    shards = sorted(set(places.values()))
    missing = [name for name in shards if not (folder / name).is_file()]
    require(not missing, f"{folder}: shards are missing: {listed(missing)}; fetch them")
    found: dict[str, Stored] = {}
    for shard in shards:
        header, named = _header(folder / shard), {name for name, place in places.items() if place == shard}
        other = sorted(header.keys() ^ named)
        require(not other, f"{path}: does not name the tensors of {shard}: {listed(other)}; fetch both again")
        found |= header
    return found


def _header(path: Path) -> dict[str, Stored]:
    with opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: Stored(path, part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file: `get_tensor(name)` reads one of its tensors.

    Raises:
      InputError: the file is damaged or cut off, or cannot be read.
    """
    try:
        file = safe_open(path, framework="np")
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file: {error}; fetch it again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    with file:
        yield file


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a folder.

    Raises:
      InputError: the file is missing, or holds anything else.
    """
    value = read_json(path, "fetch it again")
    require(isinstance(value, dict), f"{path}: holds {type(value).__name__}, must be a JSON object")
    return value


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def weight_files(
    shapes: Shapes, dtype: str, value: Callable[[str], np.ndarray], max_shard_bytes: int
) -> dict[str, Writer]:
    """The files that hold tensors, by name: model.safetensors, or shards of at most so many bytes and their index.

    A tensor larger than a shard has one of its own.

    Args:
      shapes: of the tensors, in the order in which shards are filled.
      dtype: of all of them, NumPy's name.
      value: gives a tensor by its name; called when its turn to be written comes.
      max_shard_bytes: of tensors, the header apart.
    """
    itemsize, room = jnp.dtype(dtype).itemsize, 0
    shards: list[dict[str, tuple[int, ...]]] = []
    for name, shape in shapes.items():
        size = math.prod(shape) * itemsize
        if not shards or size > room:
            shards.append({})
            room = max_shard_bytes
        shards[-1][name] = shape
        room -= size
    if len(shards) == 1:
        return {WEIGHTS: lambda file: _write_tensors(file, shapes, dtype, value)}
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    total = sum(math.prod(shape) for shape in shapes.values()) * itemsize
    places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    files: dict[str, Writer] = {
        name: lambda file, shard=shard: _write_tensors(file, shard, dtype, value)
        for name, shard in zip(names, shards, strict=True)
    }
    return files | {INDEX: json_writer({"metadata": {"total_size": total}, "weight_map": places})}


def _write_tensors(file: BinaryIO, shapes: Shapes, dtype: str, value: Callable[[str], np.ndarray]) -> None:
    """A safetensors file with one tensor in memory at a time: the library's own writer wants all of them at once."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * jnp.dtype(dtype).itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8
    file.write(len(text).to_bytes(8, "little") + text)
    for name in shapes:
        file.write(np.ascontiguousarray(value(name)).reshape(-1).view(np.uint8).data)


def json_writer(value: dict[str, Any]) -> Writer:
    """Writes an object as JSON."""
    return lambda file: file.write((json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def write_files(folder: Path, files: Mapping[str, Writer]) -> None:
    """Fills a folder so that the last of `files` is there only if all others are, whole: after a crash too.

    Raises:
      InputError: the folder holds anything, or cannot be written to; nothing is left in it then.
    """
    require(folder.is_dir() or not folder.exists(), f"{folder}: is a file; give a folder that is empty or not there")
    held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    require(not held, f"{folder}: holds {listed(held)} already; give a folder that is empty or not there")
    write_together(folder, files)
