"""Tokens on disk: a folder with flat shards of uint16 or uint32 and a manifest.

The folder holds, for every split, shards `<split>-00000.bin`, … of little-endian tokens, documents one after another,
each closed by the end-of-sequence token; the vocabulary, `sentencepiece.model`; and `manifest.json`, written last, so
that a folder without it is unfinished. Shards are files of numbers only, nothing is unpickled.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxopt_lm.errors import InputError, require

MANIFEST = "manifest.json"
VOCABULARY = "sentencepiece.model"
SHARD_TOKENS = 2**27
_FORMAT = 1


def _check(condition: bool, what: object) -> None:
    if not condition:
        raise ValueError(f"{what}"[:200])


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of tokens: its name in the folder, its length, and the SHA-256 of its bytes."""

    file: str
    num_tokens: int
    sha256: str

    def __post_init__(self):
        _check(isinstance(self.file, str) and isinstance(self.num_tokens, int) and self.num_tokens > 0, self)


@dataclasses.dataclass(frozen=True)
class Split:
    """The tokens of one split and what was counted when they were written.

    Attributes:
      shards: in order; documents may cross from one to the next.
      num_documents: how many documents, each with one end-of-sequence token.
      num_bytes: UTF-8 bytes of the documents' text.
      unigram_entropy: of the tokens' empirical distribution, in nats per token.
    """

    shards: tuple[Shard, ...]
    num_documents: int
    num_bytes: int
    unigram_entropy: float

    def __post_init__(self):
        _check(
            len(self.shards) > 0 and isinstance(self.num_bytes, int) and isinstance(self.unigram_entropy, float), self
        )

    @property
    def num_tokens(self) -> int:
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def bytes_per_token(self) -> float:
        return self.num_bytes / self.num_tokens


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder of tokens holds.

    Attributes:
      task: name of the seqio task.
      vocab_size: size of the vocabulary; every token is below it.
      vocabulary_sha256: of the bytes of `sentencepiece.model`.
      dtype: uint16 or uint32.
      splits: by name, `train` and `validation`.
    """

    task: str
    vocab_size: int
    vocabulary_sha256: str
    dtype: str
    splits: dict[str, Split]

    def __post_init__(self):
        _check(isinstance(self.vocab_size, int) and self.vocab_size > 0, self)
        _check(self.dtype == token_dtype(self.vocab_size).name, self)

    @property
    def digest(self) -> str:
        """SHA-256 of all that the manifest says: two folders with equal digests hold the same tokens."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Writes `manifest.json` in one atomic step, after all else in the folder is on disk."""
        text = json.dumps({"format": _FORMAT} | dataclasses.asdict(self), indent=2, sort_keys=True)
        write_atomically(folder / MANIFEST, (text + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads `manifest.json`.

        Raises:
          InputError: there is none, or it is not one of this format.
        """
        path = folder / MANIFEST
        require(
            path.is_file(), f"{path}: no such file; make the tokens with python -m jaxopt_lm.prepare --out={folder}"
        )
        try:
            fields = json.loads(path.read_text())
            require(fields.pop("format") == _FORMAT, f"{path}: not of format {_FORMAT}; prepare the tokens again")
            splits = {
                name: Split(**split | {"shards": tuple(Shard(**shard) for shard in split["shards"])})
                for name, split in fields.pop("splits").items()
            }
            return cls(splits=splits, **fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path}: not a manifest ({error}); delete the folder and prepare the tokens again"
            ) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that after a crash is either the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_split(folder: Path, name: str, documents: Iterable[tuple[np.ndarray, int]], vocab_size: int) -> Split:
    """Writes the shards of one split, holding one shard in memory.

    Args:
      folder: an existing folder.
      name: of the split.
      documents: token ids of each document, end-of-sequence included, and the bytes of its text.
      vocab_size: bound of the ids; decides the dtype.

    Raises:
      InputError: an id is not below `vocab_size`, or there is no document.
    """
    dtype = token_dtype(vocab_size)
    counts = np.zeros(vocab_size, np.int64)
    shards, totals = [], {"num_documents": 0, "num_bytes": 0}

    def arrays() -> Iterator[np.ndarray]:
        for ids, num_bytes in documents:
            require(
                ids.size == 0 or int(ids.max()) < vocab_size, f"{name}: token {ids.max()} >= vocab_size={vocab_size}"
            )
            counts[:] += np.bincount(ids, minlength=vocab_size)
            totals["num_documents"] += 1
            totals["num_bytes"] += num_bytes
            yield ids.astype(dtype)

    for tokens in _regroup(arrays(), SHARD_TOKENS):
        shard = Shard(f"{name}-{len(shards):05d}.bin", tokens.size, hashlib.sha256(tokens.tobytes()).hexdigest())
        write_atomically(folder / shard.file, tokens.tobytes())
        shards.append(shard)
    require(bool(shards), f"{name}: the split has no tokens")
    frequencies = counts[counts > 0] / counts.sum()
    return Split(shards=tuple(shards), unigram_entropy=-float(frequencies @ np.log(frequencies)), **totals)


def token_dtype(vocab_size: int) -> np.dtype:
    """The dtype of shards: little-endian uint16 where every id fits, else uint32."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


def _regroup(arrays: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The concatenation of `arrays`, cut into pieces of `size`; the last may be shorter."""
    held, length = [], 0
    for array in arrays:
        held.append(array)
        length += array.size
        while length >= size:
            whole = np.concatenate(held)
            yield whole[:size]
            held, length = [whole[size:]], length - size
    if length:
        yield np.concatenate(held)


class TokenStore:
    """Read-only access to the tokens of one split, memory-mapped.

    Raises:
      InputError: the manifest is missing or damaged, the split is not in it, or a shard's size is not what it says.
    """

    def __init__(self, folder: str | os.PathLike, split: str):
        folder = Path(folder)
        self.manifest = Manifest.read(folder)
        known = ", ".join(self.manifest.splits)
        require(split in self.manifest.splits, f"{folder}: no split '{split}'; the manifest has {known}")
        self.split = self.manifest.splits[split]
        self._starts = np.cumsum([0] + [shard.num_tokens for shard in self.split.shards])
        self._shards = [self._open(folder / shard.file, shard.num_tokens) for shard in self.split.shards]

    def _open(self, path: Path, num_tokens: int) -> np.ndarray:
        dtype = np.dtype(self.manifest.dtype)
        expected, found = num_tokens * dtype.itemsize, path.stat().st_size if path.is_file() else None
        require(
            found == expected,
            f"{path}: " + ("no such file" if found is None else f"{found} bytes") + f", must be {expected} bytes; "
            f"delete {path.parent} and prepare the tokens again",
        )
        return np.memmap(path, dtype, mode="r")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def token_counts(self, max_tokens: int = 2**24) -> np.ndarray:
        """How often every vocabulary entry occurs in the first `max_tokens` tokens, int64, shape [vocab_size]."""
        counts, left = np.zeros(self.manifest.vocab_size, np.int64), max_tokens
        for shard in self._shards:
            counts += np.bincount(shard[:left], minlength=counts.size)
            left -= min(left, shard.size)
        return counts

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens [start, start + length) as int32, across shards where they meet."""
        if not 0 <= start <= start + length <= len(self):
            raise IndexError(f"tokens [{start}, {start + length}) of {len(self)}")
        pieces = []
        while length > 0:
            shard = int(np.searchsorted(self._starts, start, side="right")) - 1
            offset = start - int(self._starts[shard])
            piece = self._shards[shard][offset : offset + length]
            pieces.append(piece.astype(np.int32))
            start, length = start + piece.size, length - piece.size
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
