"""Devices: their arrangement and where arrays go."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxopt_lm.config import MeshConfig
from jaxopt_lm.errors import require
from jaxopt_lm.training.loss import Batch


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh with the one axis `data`, over the first `config.data` devices.

    Raises:
      InputError: there are fewer devices.
    """
    devices = jax.devices()
    data = len(devices) if config.data == -1 else config.data
    require(data <= len(devices), f"mesh.data={data}: must be at most the {len(devices)} devices at hand, or -1")
    return jax.make_mesh((data,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:data])


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Axis 0 is divided over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def place(batch: Sequence[np.ndarray], mesh: Mesh) -> Batch:
    """(tokens, is_target) on the devices, divided over `data`."""
    return jax.device_put(Batch(*batch), batch_sharding(mesh))  # pyright: ignore[reportArgumentType]
