"""Text in files: .txt, .jsonl and .parquet, plain or compressed, wherever fsspec reaches. Loads no TensorFlow.

A corpus is cut into *pieces*, the units in which it is prepared: runs of small files, parts of large plain files cut at
the ends of lines, single parquet files. Reading one holds a document or, of a parquet file, a row group in memory.
"""

import codecs
import contextlib
import io
import json
import lzma
import posixpath
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxopt_lm.errors import InputError, require

PIECE_BYTES = 2**28
PARAGRAPH_BYTES = 2**16
SUFFIXES = (".txt", ".jsonl", ".parquet")
_COMPRESSIONS = (".gz", ".bz2", ".xz")
_CHANGED = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified", "last_commit", "md5Hash")


class Range(NamedTuple):
    """The lines of a file that begin in bytes [start, stop); None: to the end."""

    path: str
    start: int
    stop: int | None


class Piece(NamedTuple):
    """What is read and prepared in one go, and its size in bytes: on disk, of parquet those of the text alone."""

    ranges: tuple[Range, ...]
    size: int


class Corpus:
    """The files that a pattern names, in the order of their names.

    Args:
      address: a file, a folder (all files below it with a known suffix) or a pattern, local or for fsspec.
      suffixes: the kinds of file taken.
      max_files: at most so many.

    Raises:
      InputError: there are none, or one is of another kind.
    """

    def __init__(self, address: str, suffixes: tuple[str, ...] = SUFFIXES, max_files: int | None = None):
        import fsspec

        self._address, self._suffixes = address, suffixes
        try:
            self._fs, path = fsspec.core.url_to_fs(address)
            self.paths = self._find(path)[:max_files]
        except (ValueError, ImportError, OSError) as error:
            raise InputError(f"data.files={address}: cannot be read: {error}; give another place") from None
        require(bool(self.paths), f"data.files={address}: no file there ends in {', '.join(suffixes)}")
        for path in self.paths:
            require(self._kind(path) in suffixes, f"data.files: {path}: must end in {', '.join(suffixes)}")

    def _find(self, path: str) -> list[str]:
        if self._fs.isdir(path):
            return sorted(found for found in self._fs.find(path) if self._kind(found) in self._suffixes)
        return sorted(found for found in self._fs.glob(path) if not self._fs.isdir(found))

    @staticmethod
    def _kind(path: str) -> str:
        stem, suffix = posixpath.splitext(path)
        return posixpath.splitext(stem)[1] if suffix in _COMPRESSIONS else suffix

    def pieces(self) -> list[Piece]:
        """The corpus in pieces of about `PIECE_BYTES`; parquet and compressed files stay whole.

        Raises:
          InputError: every file is empty.
        """
        pieces: list[Piece] = []
        for path in self.paths:
            with _reading(path), self._fs.open(path, "rb") as file:
                size = _parquet(file, path)[1] if path.endswith(".parquet") else file.seek(0, io.SEEK_END)
            for part in self._parts(path, size):
                if pieces and pieces[-1].size + part.size <= PIECE_BYTES:
                    part = Piece(pieces[-1].ranges + part.ranges, pieces.pop().size + part.size)
                pieces.append(part)
        require(any(piece.size for piece in pieces), f"data.files={self._address}: its files hold no text; give others")
        return pieces

    @staticmethod
    def _parts(path: str, size: int) -> list[Piece]:
        if size <= PIECE_BYTES or not path.endswith((".txt", ".jsonl")):
            return [Piece((Range(path, 0, None),), size)]
        starts = range(0, size, PIECE_BYTES)
        return [
            Piece((Range(path, start, min(start + PIECE_BYTES, size)),), min(PIECE_BYTES, size - start))
            for start in starts
        ]

    def texts(self, piece: Piece) -> Iterator[str]:
        """The documents of a piece, in order; those of white space alone are left out.

        Raises:
          InputError: a file is not UTF-8, not JSON lines, or not parquet, or its documents have no `text`.
        """
        readers = {".txt": _paragraphs, ".jsonl": _json_lines, ".parquet": _parquet_rows}
        for part in piece.ranges:
            compression = None if part.path.endswith(SUFFIXES) else "infer"
            with _reading(part.path), self._fs.open(part.path, "rb", compression=compression) as file:
                yield from filter(str.strip, readers[self._kind(part.path)](file, part))

    def fingerprint(self) -> list[list[Any]]:
        """The name and size of every file, and when it was changed, in whatever form the file system says it."""
        found = []
        for path in self.paths:
            with _reading(path):
                info = self._fs.info(path)
            found.append([path, *(str(info[name]) for name in _CHANGED if info.get(name) is not None)])
        return found


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Within it, what a damaged or missing file raises is an `InputError` about `path`."""
    try:
        yield
    except (UnicodeError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path}: cannot be read: {error}; mend or remove the file") from None


def _lines(raw: Any, part: Range, most: int = -1) -> Iterator[tuple[int, bytes]]:
    """Lines that begin in the range, each with its place; lines longer than `most` come in parts."""
    file = io.BufferedReader(raw, 2**20)  # not every file of fsspec's has readline(most)
    try:
        position = _first_line(file, part.start)
        begins = True
        while (part.stop is None or position < part.stop or not begins) and (line := file.readline(most)):
            yield position, line
            position, begins = position + len(line), line.endswith(b"\n")
    finally:
        file.detach()  # else closing is done twice


def _first_line(file: io.BufferedReader, start: int) -> int:
    """Goes to the first line that begins at byte `start` or after it, and says where that is."""
    if start:
        file.seek(start - 1)
        while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
            pass
    return file.tell()


def _paragraphs(file: Any, part: Range) -> Iterator[str]:
    """Runs of lines without a blank one, cut where they grow beyond `PARAGRAPH_BYTES`."""
    decoder, held, size, begins = codecs.getincrementaldecoder("utf-8")(), "", 0, True
    for _, line in _lines(file, part, PARAGRAPH_BYTES):
        if (begins and not line.strip()) or size + len(line) > PARAGRAPH_BYTES:
            yield held
            held, size = "", 0
        held, size, begins = held + decoder.decode(line), size + len(line), line.endswith(b"\n")
    decoder.decode(b"", final=True)
    yield held


def _json_lines(file: Any, part: Range) -> Iterator[str]:
    for position, line in _lines(file, part):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
            text.encode()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(
                f"{part.path}: the line at byte {position} is not a JSON object with a string 'text'; mend or remove it"
            ) from None
        yield text


def _parquet(file: Any, path: str) -> tuple[Any, int]:
    """An opened parquet file, and the bytes of its column `text`."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a parquet file that can be read: {error}; mend or remove it") from None
    columns = table.schema_arrow.names
    require("text" in columns, f"{path}: has no column text, only {', '.join(columns)}; give other files")
    kind = table.schema_arrow.field("text").type
    is_string = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
    require(is_string, f"{path}: the column text is of type {kind}, must be string; give other files")
    column, groups = columns.index("text"), range(table.num_row_groups)
    return table, sum(table.metadata.row_group(i).column(column).total_uncompressed_size for i in groups)


def _parquet_rows(file: Any, part: Range) -> Iterator[str]:
    import pyarrow

    table, _ = _parquet(file, part.path)
    try:
        for batch in table.iter_batches(batch_size=256, columns=["text"]):
            yield from (text or "" for text in batch.column(0).to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{part.path}: not a parquet file that can be read: {error}; mend or remove it") from None
