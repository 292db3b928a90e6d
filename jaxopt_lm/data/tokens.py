"""Tokens on disk: a folder with flat shards of uint16 or uint32 and a manifest.

The folder holds, for every split, shards `<split>-00000.bin`, … of little-endian tokens, documents one after another,
each closed by the end-of-sequence token; the vocabulary, `sentencepiece.model`; and `manifest.json`, written last, so
that a folder without it is unfinished. Shards are files of numbers only, nothing is unpickled. The manifest holds the
SHA-256 of every other file, and its own.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxopt_lm.data.find import TextFile
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.files import new_file, sha256_of, sha256_of_file, write_atomically

MANIFEST = "manifest.json"
VOCABULARY = "sentencepiece.model"
_FORMAT = 2


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
        _check(isinstance(self.file, str) and isinstance(self.num_tokens, int) and self.num_tokens >= 0, self)


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
            self.num_tokens > 0 and isinstance(self.num_bytes, int) and isinstance(self.unigram_entropy, float), self
        )

    @classmethod
    def of(cls, name: str, parts: Iterable["Part"]) -> "Split":
        """The split whose shards are those of `parts`, held one at a time.

        Raises:
          InputError: they hold no token.
        """
        shards, num_documents, num_bytes, counts = [], 0, 0, np.zeros(0, np.int64)
        for part in parts:
            shards.append(part.shard)
            num_documents, num_bytes = num_documents + part.num_documents, num_bytes + part.num_bytes
            counts = np.asarray(part.counts) + (counts if counts.size else 0)
        require(
            bool(counts.any()), f"{name}: the split has no tokens; give more text, or another part of it to hold out"
        )
        frequencies = counts[counts > 0] / counts.sum()
        return cls(tuple(shards), num_documents, num_bytes, -float(frequencies @ np.log(frequencies)))

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
      source: what the tokens were made from, `TokensConfig.identity()`.
      vocabulary_sha256: of the bytes of `sentencepiece.model`.
      dtype: uint16 or uint32.
      splits: by name, `train` and `validation`.
      text: the files that the tokens were made of; None in manifests of before 2026-11-26.
    """

    source: dict[str, Any]
    vocabulary_sha256: str
    dtype: str
    splits: dict[str, Split]
    text: tuple[TextFile, ...] | None = None

    def __post_init__(self):
        _check(isinstance(self.source["task"], str) and isinstance(self.vocab_size, int) and self.vocab_size > 0, self)
        _check(self.dtype == token_dtype(self.vocab_size).name, self)
        kinds = {tuple(map(type, file)) for file in self.text or ()}
        _check(kinds <= {(str, int, str)}, self.text)

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary; every token is below it."""
        return self.source["vocab_size"]

    @property
    def digest(self) -> str:
        """SHA-256 of the checksums: two folders with equal digests hold the same tokens of the same vocabulary."""
        shards = {name: [[s.num_tokens, s.sha256] for s in split.shards] for name, split in self.splits.items()}
        return _digest({"vocabulary": self.vocabulary_sha256, "dtype": self.dtype, "shards": shards})

    def has_digest(self, digest: str) -> bool:
        """Whether this is the digest; or was until 2026-11, when it held what was counted and measured, too."""
        names = ("vocabulary_sha256", "dtype", "splits")
        older = {name: value for name, value in dataclasses.asdict(self).items() if name in names}
        return digest in (self.digest, _digest(older))

    def write(self, folder: Path) -> None:
        """Writes `manifest.json` in one atomic step, after all else in the folder is on disk."""
        fields = {"format": _FORMAT} | dataclasses.asdict(self)
        text = json.dumps(fields | {"sha256": _digest(fields)}, indent=2, sort_keys=True)
        write_atomically(folder / MANIFEST, (text + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads `manifest.json`.

        Raises:
          InputError: there is none, or it is not one of this format.
        """
        path = folder / MANIFEST
        require(
            path.is_file(),
            f"{path}: no such file; make the tokens with python -m jaxopt_lm.prepare --tokens_dir={folder}",
        )
        try:
            fields = json.loads(path.read_text())
            sha256 = fields.pop("sha256", None)
            known = fields.pop("format") == _FORMAT
            require(known, f"{path}: not of format {_FORMAT}; delete the folder and prepare the tokens again")
            _check(sha256 == _digest({"format": _FORMAT} | fields), "its checksum is wrong")
            splits = {
                name: Split(**split | {"shards": tuple(Shard(**shard) for shard in split["shards"])})
                for name, split in fields.pop("splits").items()
            }
            text = fields.pop("text", None)
            return cls(splits=splits, text=text and tuple(TextFile(*file) for file in text), **fields)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path}: not a manifest ({error}); delete the folder and prepare the tokens again"
            ) from None


def _digest(fields: dict[str, Any]) -> str:
    return sha256_of(json.dumps(fields, sort_keys=True).encode())


class Part(NamedTuple):
    """A shard and what was counted when it was written: documents, bytes of their text, and tokens of every id."""

    shard: Shard
    num_documents: int
    num_bytes: int
    counts: list[int]


def write_shard(path: Path, documents: Iterable[tuple[np.ndarray, int]], vocab_size: int) -> Part:
    """Writes a shard, a document at a time.

    Args:
      path: where to; appears when it is whole.
      documents: token ids of each document, end-of-sequence included, and the bytes of its text.
      vocab_size: bound of the ids; decides the dtype.

    Raises:
      InputError: an id is not below `vocab_size`, or the disk is full.
    """
    dtype, counts, digest = token_dtype(vocab_size), np.zeros(vocab_size, np.int64), hashlib.sha256()
    num_documents = num_bytes = 0
    with new_file(path) as file:
        for ids, size in documents:
            largest = int(ids.max(initial=0))
            if largest >= vocab_size:
                raise InputError(f"{path}: token {largest} >= vocab_size={vocab_size}")
            counts += np.bincount(ids, minlength=vocab_size)
            content = ids.astype(dtype).tobytes()
            digest.update(content)
            file.write(content)
            num_documents, num_bytes = num_documents + 1, num_bytes + size
    shard = Shard(path.name, int(counts.sum()), digest.hexdigest())
    return Part(shard, num_documents, num_bytes, counts.tolist())


def token_dtype(vocab_size: int) -> np.dtype:
    """The dtype of shards: little-endian uint16 where every id fits, else uint32."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


class TokenStore:
    """Read-only access to the tokens of one split, memory-mapped.

    Args:
      folder: of the tokens.
      split: train or validation.
      verify: whether to read every shard once and compare its SHA-256; sizes and the vocabulary are always compared.

    Raises:
      InputError: the manifest is missing or damaged, the split is not in it, or a file is not what it says.
    """

    def __init__(self, folder: str | os.PathLike, split: str, *, verify: bool = False):
        folder = Path(folder)
        self.manifest = Manifest.read(folder)
        known = ", ".join(self.manifest.splits)
        require(split in self.manifest.splits, f"{folder}: no split '{split}'; the manifest has {known}")
        self.split = self.manifest.splits[split]
        _check_sha256(folder / VOCABULARY, self.manifest.vocabulary_sha256)
        self._starts = np.cumsum([0] + [shard.num_tokens for shard in self.split.shards])
        self._shards = [self._open(folder / shard.file, shard.num_tokens) for shard in self.split.shards]
        for shard in self.split.shards if verify else ():
            _check_sha256(folder / shard.file, shard.sha256)

    def _open(self, path: Path, num_tokens: int) -> np.ndarray:
        dtype = np.dtype(self.manifest.dtype)
        expected, found = num_tokens * dtype.itemsize, path.stat().st_size if path.is_file() else None
        require(
            found == expected,
            f"{path}: " + ("no such file" if found is None else f"{found} bytes") + f", must be {expected} bytes; "
            f"delete {path.parent} and prepare the tokens again",
        )
        return np.memmap(path, dtype, mode="r") if num_tokens else np.zeros(0, dtype)

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


def _check_sha256(path: Path, expected: str) -> None:
    mend = f"delete {path.parent} and prepare the tokens again"
    require(path.is_file(), f"{path}: no such file; {mend}")
    found = sha256_of_file(path)
    require(found == expected, f"{path}: damaged, its SHA-256 is {found}, must be {expected}; {mend}")
