"""What a run is trained on: it decides the run's speed and roundings, and no config says it."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jax.sharding import Mesh

_PACKAGES = ("jaxopt_lm", "jax", "jaxlib", "optax")


def machine(mesh: "Mesh") -> dict[str, Any]:
    """What trains on a mesh, as JSON values.

    Returns:
      `device`, the kind of the mesh's; `devices`, how many it has; `processor`, the model of this process's CPU;
      `cores`, as `available_cores`; and the version of each package by its name.
    """
    found = {"device": mesh.devices.flat[0].device_kind, "devices": mesh.size}
    return found | {"processor": processor(), "cores": available_cores()} | versions(*_PACKAGES)


def available_cores() -> int | None:
    """How many cores this process may use; None where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def versions(*packages: str) -> dict[str, str]:
    """Of each package the version; "not installed" of one that is only on the path."""
    return {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The model of this process's CPU."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    return found[1] if found else platform.machine()
