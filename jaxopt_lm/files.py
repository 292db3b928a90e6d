"""Files that are whole after a crash, their checksums, locks, and JSON."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

from jaxopt_lm.errors import InputError, require, writing

Writer = Callable[[BinaryIO], object]
"""Writes the content of a file."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that after a crash is either the old one or the new one, whole.

    Raises:
      InputError: the disk is full, or the folder cannot be written to.
    """
    with new_file(path) as file:
        file.write(content)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when all of it is on disk; nothing is left of it otherwise.

    Raises:
      InputError: the disk is full, or the folder cannot be written to.
    """
    with writing(path):
        try:
            with _durable(_temporary(path)) as file:
                yield file
            _temporary(path).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                _temporary(path).unlink()
            raise


def write_together(folder: Path, files: Mapping[str, Writer]) -> None:
    """Writes new files so that the last one is there only if all others are, whole: after a crash too.

    Args:
      folder: holds none of them; made if missing.
      files: by name, in the order in which they are written.

    Raises:
      InputError: the disk is full, or the folder cannot be written to; nothing is left in it then.
    """
    paths, made = [folder / name for name in files], not folder.exists()
    with writing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, write in zip(paths, files.values(), strict=True):
                with _durable(_temporary(path)) as file:
                    write(file)
            *others, last = paths
            for path in others:
                _temporary(path).rename(path)
            _sync(folder)  # the other names are on disk before the last is
            _temporary(last).rename(last)
            _sync(folder)
        except BaseException:
            for path in paths:
                path.unlink(missing_ok=True)
                _temporary(path).unlink(missing_ok=True)
            if made and folder.exists():
                folder.rmdir()
            raise


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


@contextlib.contextmanager
def _durable(path: Path) -> Iterator[BinaryIO]:
    """A file to write; on leaving, all of it is on disk."""
    with open(path, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Returns when the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock(path: Path, *, wait: bool) -> IO[str] | None:
    """The lock of a file, which is made if missing; until it is closed, or the process ends, no other process gets it.

    Args:
      path: of the file; its content does not matter and stays.
      wait: until it is free; otherwise the answer is None where another process, or this one, has it.

    Raises:
      OSError: the file cannot be opened.
    """
    import fcntl  # Windows has none

    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "a"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return None
        stack.pop_all()
        return file


def locked_folder(workdir: str, occupied: str) -> IO[str]:
    """Makes a folder and takes its lock, which holds until it is closed or the process ends.

    Args:
      workdir: the folder.
      occupied: what another process that has the lock does there, for the message.

    Raises:
      InputError: another process has it, or the folder cannot be made.
    """
    try:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        held = lock(Path(workdir, ".lock"), wait=False)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"workdir={workdir}: cannot be made: {reason}; give another path") from None
    if held is None:
        raise InputError(f"workdir={workdir}: another process {occupied}")
    return held


def read_json(path: Path, mend: str) -> Any:
    """The value in a JSON file.

    Args:
      path: of the file.
      mend: what to do where it is damaged, for the message.

    Raises:
      InputError: the file is missing, or not JSON.
    """
    require(path.is_file(), f"{path}: no such file; {mend}")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}; {mend}") from None
