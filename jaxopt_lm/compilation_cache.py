"""JAX's persistent compilation cache, for command lines: a program that was compiled once is read from disk after that.

JAX's own keys leave out what a program of XLA's CPU backend was compiled for: another CPU may not run it, and a program
compiled on one core uses one core for ever. So programs are kept in a folder for each jaxlib, CPU and number of cores.
"""

import contextlib
import hashlib
import os
import platform
import re
import warnings
from pathlib import Path
from typing import Any

import jax
import jaxlib.version

MAX_BYTES = 2**30  # of all the folders together; the programs of a run are one or a few MB


def machine() -> str:
    """The name of the folder: jaxlib's version, the CPU's features and how many cores this process may use."""
    info = Path("/proc/cpuinfo")
    features = re.search(r"^(?:flags|Features)\s*:(.*)$", info.read_text() if info.exists() else "", re.MULTILINE)
    features = hashlib.sha256((features[1] if features else platform.machine()).encode()).hexdigest()[:8]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"jaxlib-{jaxlib.version.__version__}-{features}-{cores}"


def settings(folder: str | os.PathLike) -> dict[str, Any]:
    """JAX's options for a cache of all programs, also those that compile at once; each has its environment variable."""
    return {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }


def enable() -> None:
    """Gives this process a cache below `$XDG_CACHE_HOME/jaxopt_lm`, or `~/.cache/jaxopt_lm`.

    Not where JAX has one already, or has been told `JAX_COMPILATION_CACHE_DIR=` or JAXOPT_LM_COMPILATION_CACHE is `off`
    or empty, or the folder cannot be made or written. A program that cannot be read or kept costs its compilation and
    nothing else. Beyond `MAX_BYTES` the programs that were not used for the longest time are removed here, and not by
    JAX, whose own bound needs a lock for each program and keeps none any more after a `kill -9` between two files.
    """
    wanted = os.environ.get("JAXOPT_LM_COMPILATION_CACHE", "on") not in ("", "off")
    if not wanted or jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: nobody knows where home is
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "jaxopt_lm")
        folder = base / machine()
        folder.mkdir(parents=True, exist_ok=True)
        remove_beyond(MAX_BYTES, base)
        if os.access(folder, os.W_OK):
            warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
            for name, value in settings(folder).items():
                jax.config.update(name, value)


def remove_beyond(max_bytes: int, folder: Path) -> None:
    """Removes of the files below `folder` all but the last used ones that together have at most `max_bytes`.

    Others may read, write and remove them meanwhile.
    """
    found: list[tuple[float, int, Path]] = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                status = path.stat()
                found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = 0
    for _, size, path in sorted(found, reverse=True):
        total += size
        if total > max_bytes:
            with contextlib.suppress(OSError):
                path.unlink()
