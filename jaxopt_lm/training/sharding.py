"""How arrays are placed on a mesh of devices: one table from logical axes to mesh axes, and all that follows from it.

Mesh axes: `data` copies the parameters and divides the batch; `fsdp` divides the batch and, between their uses, the
parameters; `tensor` divides heads, hidden units and the vocabulary. Parameters declare their logical axes where they
are made, activations where they arise; the state of an optimizer is asked (`logical_axes`), never known by its type.
"""

import math
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxopt_lm import model
from jaxopt_lm.config import MESH_AXES, MeshConfig, TrainConfig
from jaxopt_lm.errors import require
from jaxopt_lm.model import ModelConfig
from jaxopt_lm.training.loss import Batch

_State = TypeVar("_State")

RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "embed": ("fsdp",),
}
"""The mesh axes over which each logical axis is divided; others are whole everywhere."""

Axes = tuple[str | None, ...]


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh of a config, over the first devices where it needs fewer than there are.

    Raises:
      InputError: there are fewer devices, or they cannot be shared out evenly.
    """
    devices, sizes = jax.devices(), [config.data, config.fsdp, config.tensor]
    asked = " ".join(f"mesh.{name}={size}" for name, size in zip(MESH_AXES, sizes, strict=True))
    known = math.prod(size for size in sizes if size != -1)
    require(known <= len(devices), f"{asked}: needs {known} devices, there are {len(devices)}; make one smaller")
    if -1 in sizes:
        require(len(devices) % known == 0, f"{asked}: {known} must divide the {len(devices)} devices, or leave out -1")
        sizes[sizes.index(-1)] = len(devices) // known
    needed = math.prod(sizes)
    require(
        needed == len(devices) or jax.process_count() == 1,
        f"{asked}: with several processes must be all {len(devices)} devices, are {needed}; give -1 for the rest",
    )
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:needed])


def spec(axes: Axes, *, leave_out: str | None = None) -> PartitionSpec:
    """How an array of these logical axes is divided. A mesh axis serves once: the first logical axis that asks has it.

    Args:
      axes: a name for each dimension; None for one that has none.
      leave_out: a mesh axis over which it is not divided.
    """
    taken, entries = {leave_out}, []
    for axis in axes:
        mine = [name for name in RULES.get(axis or "", ()) if name not in taken]
        taken.update(mine)
        entries.append(mine[0] if len(mine) == 1 else tuple(mine) or None)
    return PartitionSpec(*entries)


class OnMesh(model.Placement):
    """Pins arrays inside the model, for without pins the compiler finds worse ways.

    Weights are cast, then gathered over `fsdp` for their use; pinned before and after, so what moves is the cast copy.
    """

    def __init__(self, mesh: Mesh):
        self._mesh = mesh

    def pin(self, x: jax.Array, axes: Axes) -> jax.Array:
        return self._to(x, spec(axes))

    def gather(self, weight: jax.Array, axes: Axes) -> jax.Array:
        return self._to(self.pin(weight, axes), spec(axes, leave_out="fsdp"))

    def _to(self, x: jax.Array, where: PartitionSpec) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(self._mesh, where))


def placement(mesh: Mesh) -> model.Placement:
    """What the model is told of a mesh; of one device, nothing."""
    return model.ONE_DEVICE if mesh.size == 1 else OnMesh(mesh)


def logical_axes(f: Callable[[Any], Any], shapes: Any, labels: Any) -> Any:
    """The logical axes, of those in `RULES`, of every array in `f(params)`: a tuple of names or None for each.

    Found by asking: with an axis one longer in every parameter, the dimensions that change are that axis's. A dimension
    that several axes change, a product of them, is none's.

    Args:
      f: from parameters to a pytree of arrays, an optimizer's init say; only its shapes are computed.
      shapes: the parameters' tree of `jax.ShapeDtypeStruct`s.
      labels: their tree of `Label`s.
    """
    here = jax.eval_shape(f, shapes)

    def resized(axis: str, by: int) -> Any:
        def shape(x, label):
            sizes = tuple(size + by * (name == axis) for size, name in zip(x.shape, label.axes, strict=True))
            return jax.ShapeDtypeStruct(sizes, x.dtype)

        return jax.eval_shape(f, jax.tree.map(shape, shapes, labels))

    def ranks(tree: Any) -> Any:
        return jax.tree.structure(tree), [x.ndim for x in jax.tree.leaves(tree)]

    found = [[set() for _ in x.shape] for x in jax.tree.leaves(here)]
    for axis in RULES:
        # A threshold on a size, as Adafactor's, may be right above it; then it is not right below.
        there = next((tree for by in (1, -1) if ranks(tree := resized(axis, by)) == ranks(here)), None)
        for names, x, y in zip(found, jax.tree.leaves(here), jax.tree.leaves(there or here), strict=True):
            for name, size, other in zip(names, x.shape, y.shape, strict=True):
                if size != other:
                    name.add(axis)
    axes = [tuple(next(iter(name)) if len(name) == 1 else None for name in names) for names in found]
    return jax.tree.unflatten(jax.tree.structure(here), axes)


def layout(decoder: ModelConfig, mesh: Mesh, init: Callable[[Any], _State]) -> _State:
    """The state of a run on a mesh, with a `jax.ShapeDtypeStruct` that has its sharding in place of each array.

    Args:
      decoder: the model.
      mesh: the devices.
      init: from parameters to the state.

    Raises:
      InputError: a mesh axis does not divide an axis of a parameter, or float64 is asked for and jax has none.
    """
    wide = "float64" in (decoder.param_dtype, decoder.compute_dtype)
    require(
        not wide or jax.dtypes.canonicalize_dtype("float64") == "float64",
        "model dtype float64: jax has it switched off; set the environment variable JAX_ENABLE_X64=1",
    )
    shapes, labels = model.shapes(decoder), model.labels(decoder)
    for (path, x), label in zip(jax.tree.leaves_with_path(shapes), jax.tree.leaves(labels), strict=True):
        for name, size, mesh_axes in zip(label.axes, x.shape, spec(label.axes), strict=True):
            divisor = _size(mesh, mesh_axes)
            require(
                size % divisor == 0,
                f"mesh.{mesh_axes}={divisor}: does not divide {name}={size} of parameter "
                f"{'/'.join(key.key for key in path)}; give a divisor of {size}",
            )

    def where(x, axes):
        wanted = spec(axes)
        fits = [entry if size % _size(mesh, entry) == 0 else None for size, entry in zip(x.shape, wanted, strict=True)]
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, PartitionSpec(*fits)))

    return jax.tree.map(where, jax.eval_shape(init, shapes), logical_axes(init, shapes, labels))


def with_members(members: int, x: jax.ShapeDtypeStruct, axis: int | None) -> jax.ShapeDtypeStruct:
    """What a population has in place of one run's array: all members of it on every device that has some of it.

    Args:
      members: of the population.
      x: of one run, with its sharding.
      axis: 0; None: one array for all.
    """
    if axis is None:
        return x
    where = typing.cast(NamedSharding, x.sharding)
    return jax.ShapeDtypeStruct(
        (members, *x.shape), x.dtype, sharding=NamedSharding(where.mesh, PartitionSpec(None, *where.spec))
    )


def abstract_batch(config: TrainConfig, mesh: Mesh) -> Batch:
    """A batch of a run on a mesh, as `layout` has the state."""
    shape, where = (config.global_batch_size, config.length), batch_sharding(mesh)
    batch = Batch(jnp.int32, jnp.float32)
    return jax.tree.map(lambda dtype: jax.ShapeDtypeStruct(shape, dtype, sharding=where), batch)


def shardings(tree: Any) -> Any:
    """The sharding of every array, abstract or not, of a tree."""
    return jax.tree.map(lambda x: x.sharding, tree)


def _size(mesh: Mesh, entry: Any) -> int:
    """Into how many parts an entry of a `PartitionSpec` divides."""
    names = (entry,) if isinstance(entry, str) else entry or ()
    return math.prod(mesh.shape[name] for name in names)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows are divided over `data` and `fsdp`."""
    return NamedSharding(mesh, spec(("batch",)))


class Rows:
    """The rows of a batch on a mesh.

    Attributes:
      local: those on devices of this process, in order: what it has to read.
    """

    def __init__(self, mesh: Mesh, batch_size: int):
        self._sharding, self._all = batch_sharding(mesh), np.arange(batch_size)
        slices = self._sharding.addressable_devices_indices_map((batch_size,)).values()
        self.local = np.unique(np.concatenate([self._all[index] for index in slices])).tolist()

    def place(self, batch: Sequence[np.ndarray]) -> Batch:
        """(tokens, is_target), of which this process has the local rows, on the devices, divided by rows."""
        return Batch(*map(self._place, batch))

    def _place(self, local: np.ndarray) -> jax.Array:
        def rows(index):
            return local[np.searchsorted(self.local, self._all[index[0]])]

        return jax.make_array_from_callback((self._all.size, *local.shape[1:]), self._sharding, rows)
