"""Whole checkpoint folders: the config, the parameters and the vocabulary."""

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.files import Writer
from jaxopt_lm.model.config import ModelConfig
from jaxopt_lm.model.decoder import Params, shapes
from jaxopt_lm.model.huggingface import tokenizer as vocabularies
from jaxopt_lm.model.huggingface.classes import EMBEDDING, HEAD, Tensor, class_of, from_fields, tensors, to_fields
from jaxopt_lm.model.huggingface.tensors import (
    DTYPES,
    Stored,
    json_writer,
    listed,
    opened,
    read_object,
    stored_tensors,
    weight_files,
    write_files,
)

CONFIG, TOKENIZER = "config.json", "tokenizer.model"

_OF_THE_RUN = ("scan_layers", "param_dtype", "compute_dtype", "init", "init_std")


def read_config(folder: str | os.PathLike) -> ModelConfig:
    """The model in a folder; of what a checkpoint does not say (dtypes, initialisation, scan_layers), the defaults.

    Raises:
      InputError: no such folder or file, damaged, or of a model that is not our decoder's; in one line.
    """
    folder = Path(folder)
    require(folder.is_dir(), f"{folder}: no such folder")
    path = folder / CONFIG
    require(path.is_file(), f"{path}: no such file; give a Hugging Face checkpoint folder")
    fields = read_object(path)
    try:
        return from_fields(fields)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_params(folder: str | os.PathLike, config: ModelConfig) -> Params:
    """The parameters in a folder, as the tree that `init(config, key)` makes.

    Args:
      folder: with one model.safetensors, or shards and their index.
      config: of the run; scan_layers, param_dtype, compute_dtype and the initialisation are its own.

    Returns:
      NumPy arrays of `config.param_dtype`, for the caller to place on devices. While they are read, one tensor is in
      memory beside them.

    Raises:
      InputError: the folder's model is another than the run's (the line has the flags that mend it), or the files are
        missing, damaged, or hold other tensors than the model has.
    """
    folder = Path(folder)
    _check_same(folder, read_config(folder), config)
    stored, wanted = stored_tensors(folder), tensors(config)
    _check_tensors(folder, stored, wanted, config.tied_embeddings)
    params = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes(config))
    for path in sorted({stored[tensor.name].path for tensor in wanted}):
        with opened(path) as file:
            for tensor in wanted:
                if stored[tensor.name].path == path:
                    _fill(params, tensor, file.get_tensor(tensor.name), path)
    if config.tied_embeddings and HEAD in stored:
        _check_tied_head(stored[HEAD].path, params["embed"])
    return params


def check_vocabulary(folder: str | os.PathLike, path: str | os.PathLike) -> bool:
    """Refuses a folder whose vocabulary is another than a SentencePiece model's.

    Returns:
      Whether the folder has a vocabulary to compare; without one its eos_token_id alone is.

    Raises:
      InputError: it has another, or one that cannot be read.
    """
    read_config(folder)
    if vocabularies.compare(folder, path):
        return True
    eos = read_object(Path(folder, CONFIG)).get("eos_token_id")
    if eos is not None:
        ours = vocabularies.read(path).eos_id
        require(
            ours in (eos if isinstance(eos, list) else [eos]),
            f"{Path(folder, CONFIG)}: eos_token_id={eos}, but {path} ends a sequence by {ours}: another vocabulary; "
            "prepare the tokens with the folder's, or set eos_token_id to null",
        )
    return False


def write(
    folder: str | os.PathLike,
    config: ModelConfig,
    params: Params,
    *,
    max_shard_bytes: int = 5 * 10**9,
    max_length: int | None = None,
    tokenizer: str | os.PathLike | None = None,
) -> str:
    """Writes a folder that transformers loads: config.json last, so that a folder that has it is whole.

    Args:
      folder: empty, or made here.
      config: of the model.
      params: as `init(config, key)` makes them; kept in their dtype.
      max_shard_bytes: beyond it tensors are written as shards of at most this size, and an index.
      max_length: config.json's max_position_embeddings, which changes no number; None: left out.
      tokenizer: a SentencePiece model: copied as tokenizer.model, written as transformers reads it, and its ids of
        padding and the end of a sequence are config.json's; None: null there.

    Returns:
      The name of the class.

    Raises:
      InputError: no class computes what the model does, the tokenizer has more pieces than the model or has no form
        that transformers reads, the folder holds files already, or it cannot be written to.
      ValueError: `params` are not those of `config`.
    """
    row, wanted = class_of(config), tensors(config)
    require(max_shard_bytes >= 1, f"max_shard_bytes={max_shard_bytes}: must be at least 1")
    if jax.tree.map(_shape_and_dtype, params) != jax.tree.map(_shape_and_dtype, shapes(config)):
        raise ValueError("the parameters are not those of this model config: their paths, shapes or dtypes differ")
    special, beside = _tokenizer_files(tokenizer, config.vocab_size)
    fields = to_fields(config) | special
    fields |= {} if max_length is None else {"max_position_embeddings": max_length}
    by_name = {tensor.name: tensor for tensor in wanted}

    def value(name: str) -> np.ndarray:
        tensor = by_name[name]
        if not tensor.path:
            return np.zeros(wanted[tensor], config.param_dtype)
        return tensor.to_stored(np.asarray(tensor.of(params)))

    files = weight_files({t.name: shape for t, shape in wanted.items()}, config.param_dtype, value, max_shard_bytes)
    write_files(Path(folder), files | beside | {CONFIG: json_writer(fields)})
    return row.name


def _tokenizer_files(
    path: str | os.PathLike | None, vocab_size: int
) -> tuple[dict[str, int | None], dict[str, Writer]]:
    """config.json's ids of special tokens, all of them, for a class's own defaults are another vocabulary's; files."""
    special: dict[str, int | None] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    if path is None:
        return special, {}
    vocabulary = vocabularies.read(path)
    size = len(vocabulary.pieces)
    require(size <= vocab_size, f"{path}: has {size} pieces: must be at most model.vocab_size={vocab_size}")
    special |= {"eos_token_id": vocabulary.eos_id, "pad_token_id": vocabulary.pad_id}
    files = {name: json_writer(fields) for name, fields in vocabularies.files(vocabulary).items()}
    return special, files | {TOKENIZER: lambda file: _copy(Path(path), file)}


def _check_same(folder: Path, found: ModelConfig, config: ModelConfig) -> None:
    """Refuses a run's model that is not the folder's, with the flags that make it so."""
    names = [field.name for field in dataclasses.fields(found) if field.name not in (*_OF_THE_RUN, "head_dim")]
    flags = [f"{name}={getattr(found, name)}" for name in names if getattr(found, name) != getattr(config, name)]
    # The width of the run's heads once it has taken the other flags.
    width = found.embed_dim / found.num_heads if config.head_dim is None else config.head_dim
    if width != found.head_width:
        flags.append(f"head_dim={found.head_width}")
    given = " ".join(f"--config.model.{flag}" for flag in flags)
    require(not flags, f"{folder}: the run's model is another than the checkpoint's; give {given}")


def _check_tensors(
    folder: Path, stored: Mapping[str, Stored], wanted: Mapping[Tensor, tuple[int, ...]], tied: bool
) -> None:
    """Refuses, by the headers alone, tensors that are missing, not the model's, of other shapes or not floats."""
    expected = {tensor.name: shape for tensor, shape in wanted.items()}
    missing = [name for name in expected if name not in stored]
    require(not missing, f"{folder}: tensors are missing: {listed(missing)}; fetch the folder again")
    if tied and HEAD in stored:
        expected[HEAD] = expected[EMBEDDING]
    # Old Llama folders store the rotary wavelengths, which follow from rope_theta.
    extra = [name for name in stored if name not in expected and not name.endswith(".rotary_emb.inv_freq")]
    require(not extra, f"{folder}: tensors that the model has not: {listed(sorted(extra))}; remove them")
    floats = list(DTYPES.values())
    for name, shape in expected.items():
        path, dtype, found = stored[name]
        if dtype not in floats:
            raise InputError(f"{path}: {name} is {dtype}: must be one of {', '.join(floats)}; convert it")
        if found != shape:
            raise InputError(f"{path}: {name} is {list(found)}: must be {list(shape)} by {CONFIG}; mend either")


def _fill(params: Params, tensor: Tensor, value: np.ndarray, path: Path) -> None:
    """Copies a stored tensor to its place among ours."""
    if not tensor.path:
        require(not value.any(), f"{path}: {tensor.name} is not all zeros: our decoder's norms have no bias")
        return
    ours = tensor.of(params)
    with np.errstate(over="ignore", invalid="ignore"):
        ours[...] = tensor.from_stored(value, ours.shape)
    finite = bool(np.isfinite(ours).all())
    require(finite, f"{path}: {tensor.name} holds values that are not finite in {ours.dtype.name}")


def _check_tied_head(path: Path, embed: np.ndarray) -> None:
    with opened(path) as file:
        same = np.array_equal(file.get_tensor(HEAD).astype(embed.dtype), embed)
    require(
        same, f"{path}: {HEAD} is not {EMBEDDING}, yet tie_word_embeddings is true: set it to false or remove {HEAD}"
    )


def _shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def _copy(source: Path, file: BinaryIO) -> None:
    with source.open("rb") as original:
        shutil.copyfileobj(original, file)
