"""Checksums of saved checkpoints: what is written beside one, and what is found wrong with one.

A checkpoint is a folder of Orbax's, named after its step, that appears by one rename. Its sidecar `checksums.json`,
written before the rename, holds the SHA-256 of every file in it; a folder without it is torn. Two files get their last
bytes in the rename itself, the time of the commit and a note that it happened; `seal` adds them soon after.
"""

import contextlib
import json
from pathlib import Path

from jaxopt_lm.files import sha256_of_file, write_atomically

SIDECAR = "checksums.json"
_WRITTEN_ON_COMMIT = ("_CHECKPOINT_METADATA", "commit_success.txt")


def sign(folder: Path) -> None:
    """Writes the sidecar of a checkpoint that is whole but not yet committed."""
    _write(folder, {name: sha256_of_file(folder / name) for name in _files(folder) if name not in _WRITTEN_ON_COMMIT})


def seal(folder: Path) -> None:
    """Adds to the sidecar of a committed checkpoint what was not final when it was signed."""
    with contextlib.suppress(FileNotFoundError):  # the checkpoint has been deleted meanwhile, as older ones are
        known = read_sidecar(folder)
        new = {name: sha256_of_file(folder / name) for name in _WRITTEN_ON_COMMIT if name not in known}
        if new:
            _write(folder, known | new)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None: every file is as it was signed."""
    sidecar = folder / SIDECAR
    if not sidecar.is_file():
        return f"{SIDECAR} is missing: the save was cut short, or the file was removed"
    try:
        entries = [(name, sha256, folder / name) for name, sha256 in read_sidecar(folder).items()]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return f"{SIDECAR} is not readable"
    if not entries:
        return f"{SIDECAR} is empty"
    for name, sha256, path in entries:
        try:
            if sha256_of_file(path) != sha256:
                return f"{name} is damaged: its SHA-256 is not the one in {SIDECAR}"
        except (OSError, ValueError):
            return f"{name} is missing"
    return None


def read_sidecar(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a checkpoint, by its name below the folder."""
    return json.loads((folder / SIDECAR).read_bytes())


def _files(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != SIDECAR)


def _write(folder: Path, checksums: dict[str, str]) -> None:
    write_atomically(folder / SIDECAR, (json.dumps(checksums, indent=0, sort_keys=True) + "\n").encode())
