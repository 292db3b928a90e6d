"""Which files an address names: a file, a folder or a pattern, local or of fsspec. Loads no TensorFlow.

What is there under the address is that file or folder, whatever characters its name has; only else is it a pattern.
Below a folder links are followed, hidden names (`.git`, `.ipynb_checkpoints`, `._a.txt`) are left out, and a file to
which two paths lead is taken once.
"""

import contextlib
import glob
import hashlib
import lzma
import os
import posixpath
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jaxopt_lm.errors import InputError, require

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_CHANGED = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified", "last_commit", "md5Hash")


def split_kind(path: str) -> tuple[str, str]:
    """The suffix that says what a file holds and the one that says how it is packed, if so; in lower case."""
    stem, suffix = posixpath.splitext(path.lower())
    return (posixpath.splitext(stem)[1], suffix) if suffix in COMPRESSIONS else (suffix, "")


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Within it, what a damaged or missing file raises is an `InputError` about `path`."""
    try:
        yield
    except (UnicodeError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path}: cannot be read: {error}; mend or remove the file") from None


class TextFile(NamedTuple):
    """A file that tokens were made of: its name below the folder of all of them, its bytes, and their SHA-256."""

    name: str
    size: int
    sha256: str


class Files:
    """Files, in the order of their paths.

    Args:
      fs: their file system, of fsspec.
      paths: of the files.
      left_out: what was found beside them, each with the reason.

    Attributes:
      paths: by name below the deepest folder that holds all of them, so that it is the same wherever that is.
    """

    def __init__(self, fs: Any, paths: Iterable[str], left_out: Iterable[str] = ()):
        paths = sorted(paths)
        self.fs, self.left_out = fs, tuple(left_out)
        self.paths = dict(zip(_names(paths), paths, strict=True))

    def sizes(self) -> dict[str, int]:
        """The bytes of every file."""
        return {name: self._info(path)["size"] for name, path in self.paths.items()}

    def stamps(self) -> list[list[str]]:
        """The name and size of every file, and when it was changed, in whatever form the file system says it."""
        infos = {name: self._info(path) for name, path in self.paths.items()}
        return [
            [name, *(str(info[key]) for key in _CHANGED if info.get(key) is not None)] for name, info in infos.items()
        ]

    def sums(self) -> tuple[TextFile, ...]:
        """The files as they are; reads every byte of them."""
        return tuple(self._sum(name, path) for name, path in self.paths.items())

    def _info(self, path: str) -> dict[str, Any]:
        with reading(path):
            return self.fs.info(path)

    def _sum(self, name: str, path: str) -> TextFile:
        digest, size = hashlib.sha256(), 0
        with reading(path), self.fs.open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
                size += len(block)
        return TextFile(name, size, digest.hexdigest())


def local_files(paths: Iterable[str | os.PathLike[str]]) -> Files:
    """Files of this machine."""
    import fsspec

    return Files(fsspec.filesystem("file"), [os.fspath(path) for path in paths])


def find(address: str, suffixes: tuple[str, ...], max_files: int | None = None) -> Files:
    """The files of an address.

    Args:
      address: of a file, or of a folder, for everything below it; or a pattern of files and folders.
      suffixes: the kinds taken, plain or compressed.
      max_files: at most so many.

    Raises:
      InputError: there are none, or a single one of another kind.
      OSError: a folder cannot be read.
    """
    import fsspec

    named = os.path.lexists(address)
    here = (fsspec.filesystem("file"), os.path.join(os.getcwd(), address))  # fsspec reads more than a name into some
    fs, path = here if named else fsspec.core.url_to_fs(address)
    search, kinds = _Search(fs, suffixes), ", ".join(suffixes)
    single = (named or fs.exists(path)) and not fs.isdir(path)
    for top in [path] if single or fs.isdir(path) else _matches(fs, path):
        search.take(top.rstrip("/") or "/")
    left_out = search.described()
    require(bool(search.paths) or not single, f"data.files: {path}: must end in {kinds}, and be a file")
    require(
        bool(search.paths), f"data.files={address}: no file there ends in {kinds}{listed('; left out: ', left_out)}"
    )
    return Files(fs, sorted(search.paths)[:max_files], left_out)


def listed(before: str, names: list[str] | tuple[str, ...], most: int = 8) -> str:
    """`before` and the names, on one line that any terminal shows; nothing where there are none."""
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (before + ", ".join(names[:most]) + more).encode(errors="backslashreplace").decode()


class _Search:
    """What is taken, and what is left out and why, as an address is gone through."""

    def __init__(self, fs: Any, suffixes: tuple[str, ...]):
        self._fs, self._suffixes, self._local = fs, suffixes, _is_local(fs)
        self._reached: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        self.paths: list[str] = []

    def take(self, path: str) -> None:
        """Takes a file, or what is below a folder."""
        if not self._fs.isdir(path):
            self._take_file(path)
        elif not self._is_again(path):
            self._take_folder(path)

    def _take_file(self, path: str) -> None:
        if split_kind(path)[0] not in self._suffixes:
            self._left_out[path] = ""
        elif self._local and os.path.exists(path) and not os.path.isfile(path):
            self._left_out[path] = " (neither a file nor a folder)"
        elif not self._is_again(path):
            self.paths.append(path)

    def _take_folder(self, folder: str) -> None:
        names = os.listdir(folder) if self._local else (_below(folder, path) for path in self._fs.find(folder))
        take = self.take if self._local else self._take_file  # elsewhere it is asked for all of them at once
        for name in sorted(names):
            path = posixpath.join(folder, name)
            if _is_hidden(name):
                self._left_out[path] = " (hidden)"
            else:
                take(path)

    def _is_again(self, path: str) -> bool:
        real = os.path.realpath(path) if self._local else path
        again, first = real in self._reached, self._reached.setdefault(real, path)
        if first != path:
            self._left_out[path] = f" (the same as {posixpath.basename(first)})"
        return again

    def described(self) -> list[str]:
        """What is left out, each with the reason, in the order of the paths."""
        paths = sorted(self._left_out)
        return [name + self._left_out[path] for name, path in zip(_names(paths), paths, strict=True)]


def _is_local(fs: Any) -> bool:
    return "file" in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)


def _below(folder: str, path: str) -> str:
    return posixpath.relpath(path, folder)


def _names(paths: list[str]) -> list[str]:
    """The paths below the deepest folder that holds all of them."""
    common = posixpath.commonpath([posixpath.dirname(path) for path in paths]) if paths else ""
    return [_below(common, path) for path in paths]


def _matches(fs: Any, pattern: str) -> list[str]:
    """What matches a pattern, hidden names only where it says so.

    Folders at its beginning that are there have these names, whatever characters they hold.
    """
    if not _is_local(fs):
        begins = posixpath.dirname(re.split(r"[*?[]", pattern)[0])
        return [path for path in fs.glob(pattern) if not _is_hidden(_below(begins, path))]
    there = pattern
    while not os.path.lexists(there):
        there = posixpath.dirname(there)
    return glob.glob(glob.escape(there) + pattern[len(there) :], recursive=True)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != "." for part in name.split("/"))
