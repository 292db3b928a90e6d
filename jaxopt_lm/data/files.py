"""Text in files: .txt, .jsonl and .parquet, plain or compressed, wherever fsspec reaches. Loads no TensorFlow.

A corpus is cut into *pieces*, the units in which it is prepared: runs of small files, parts of large plain files cut at
the ends of lines, single parquet files. Reading one holds a document or, of a parquet file, a row group in memory.
"""

import bz2
import codecs
import contextlib
import gzip
import io
import json
import lzma
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxopt_lm.data.find import find, reading, split_kind
from jaxopt_lm.errors import InputError, require

PIECE_BYTES = 2**28
PARAGRAPH_BYTES = 2**16
SUFFIXES = (".txt", ".jsonl", ".parquet")


class Range(NamedTuple):
    """The lines of a file that begin in bytes [start, stop); None: to the end. Its size is as of a piece."""

    path: str
    start: int
    stop: int | None
    size: int


class Piece(NamedTuple):
    """What is read and prepared in one go, and its size in bytes: on disk, of parquet those of the text alone."""

    ranges: tuple[Range, ...]
    size: int


class Corpus:
    """The text of the files at an address, in the order of their names.

    Args:
      address: a file, a folder (all files below it with a known suffix) or a pattern, local or for fsspec.
      suffixes: the kinds of file taken.
      max_files: at most so many.

    Attributes:
      files: where the text is.

    Raises:
      InputError: there are none, or one is of another kind.
    """

    def __init__(self, address: str, suffixes: tuple[str, ...] = SUFFIXES, max_files: int | None = None):
        self._address = address
        try:
            self.files = find(address, suffixes, max_files)
        except InputError:
            raise
        except (ValueError, ImportError, OSError) as error:
            raise InputError(f"data.files={address}: cannot be read: {error}; give another place") from None

    def pieces(self) -> list[Piece]:
        """The corpus in pieces of about `PIECE_BYTES`; parquet and compressed files stay whole.

        Raises:
          InputError: every file is empty.
        """
        pieces: list[Piece] = []
        for path in self.files.paths.values():
            with self._open(path, packed=True) as file:
                size = _parquet(file, path)[1] if split_kind(path) == (".parquet", "") else file.seek(0, io.SEEK_END)
            for part in self._parts(path, size):
                if pieces and pieces[-1].size + part.size <= PIECE_BYTES:
                    part = Piece(pieces[-1].ranges + part.ranges, pieces.pop().size + part.size)
                pieces.append(part)
        require(any(piece.size for piece in pieces), f"data.files={self._address}: its files hold no text; give others")
        return pieces

    @staticmethod
    def _parts(path: str, size: int) -> list[Piece]:
        if size <= PIECE_BYTES or split_kind(path) not in ((".txt", ""), (".jsonl", "")):
            return [Piece((Range(path, 0, None, size),), size)]
        stops = [(start, min(start + PIECE_BYTES, size)) for start in range(0, size, PIECE_BYTES)]
        return [Piece((Range(path, start, stop, stop - start),), stop - start) for start, stop in stops]

    def texts(self, piece: Piece) -> Iterator[str]:
        """The documents of a piece, in order; those of white space alone are left out.

        Raises:
          InputError: a file is not UTF-8, not JSON lines, or not parquet, or its documents have no `text`.
        """
        readers = {".txt": _paragraphs, ".jsonl": _json_lines, ".parquet": _parquet_rows}
        for part in piece.ranges:
            with self._open(part.path) as file:
                yield from filter(str.strip, readers[split_kind(part.path)[0]](file, part))

    @contextlib.contextmanager
    def _open(self, path: str, packed: bool = False) -> Iterator[Any]:
        """A file, unless `packed` without its compression; what a damaged or missing one raises is an `InputError`."""
        kind, compression = split_kind(path)
        with reading(path), contextlib.ExitStack() as stack:
            file = stack.enter_context(self.files.fs.open(path, "rb"))
            if compression and not packed:
                file = stack.enter_context(_unpacked(file, compression))
                file = io.BytesIO(file.read()) if kind == ".parquet" else file  # read from its end
            yield file


def _unpacked(file: Any, compression: str) -> Any:
    if compression == ".zst":
        import pyarrow

        return pyarrow.CompressedInputStream(file, "zstd")
    return {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}[compression](file)


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
    if not start:
        return 0
    file.seek(start - 1)
    while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
        pass
    return file.tell()


def _lines_before(file: Any, start: int) -> int:
    """How many lines begin before byte `start`."""
    if not start:
        return 0
    file.seek(0)
    blocks = (file.read(min(2**20, start - 1 - place)) for place in range(0, start - 1, 2**20))
    return 1 + sum(block.count(b"\n") for block in blocks)


def _paragraphs(file: Any, part: Range) -> Iterator[str]:
    """Runs of lines without a blank one, cut where they grow beyond `PARAGRAPH_BYTES`."""
    decoder, held, size, begins = codecs.getincrementaldecoder("utf-8")(), "", 0, True
    number, end = 0, part.start
    try:
        for position, line in _lines(file, part, PARAGRAPH_BYTES):
            if (begins and not line.strip()) or size + len(line) > PARAGRAPH_BYTES:
                yield held
                held, size = "", 0
            number, end = number + begins, position + len(line)
            size, begins = size + len(line), line.endswith(b"\n")
            held += decoder.decode(line)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        at, number = end - len(error.object) + error.start, number + _lines_before(file, part.start)
        raise InputError(
            f"{part.path}: byte {at}, in line {number}, is not UTF-8 ({error.reason}); save the file as UTF-8, or "
            "remove it"
        ) from None
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
    require(_holds_strings(kind), f"{path}: the column text is of type {kind}, must be string; give other files")
    column, groups = columns.index("text"), range(table.num_row_groups)
    return table, sum(table.metadata.row_group(i).column(column).total_uncompressed_size for i in groups)


def _holds_strings(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _parquet_rows(file: Any, part: Range) -> Iterator[str]:
    import pyarrow

    table, _ = _parquet(file, part.path)
    try:
        for batch in table.iter_batches(batch_size=256, columns=["text"]):
            yield from (text or "" for text in batch.column(0).to_pylist())
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{part.path}: not a parquet file that can be read: {error}; mend or remove it") from None
