"""What a run would cost on a mesh: its real step, compiled ahead of time for devices that need not exist."""

import contextlib
import dataclasses
import os
import sys
import tempfile
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var
from jax.sharding import AbstractMesh, Mesh

from jaxopt_lm import model
from jaxopt_lm.chips import Chip
from jaxopt_lm.config import MESH_AXES, TrainConfig
from jaxopt_lm.errors import require
from jaxopt_lm.model.summary import flops_per_token
from jaxopt_lm.optimizers.trees import wide_dtype
from jaxopt_lm.planning import hlo
from jaxopt_lm.training import sharding
from jaxopt_lm.training.loss import Batch, summed_losses
from jaxopt_lm.training.program import Program
from jaxopt_lm.training.step import HParams

_REMATERIALIZED = "Involuntary full rematerialization"
REMATS = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a step costs; bytes are those of one device.

    Attributes:
      mesh: sizes of data, fsdp, tensor.
      num_params: in the whole model.
      params: bytes of parameters.
      grads: bytes of gradients, which are placed as the parameters are; of microbatches, their wide sum and one part's.
      opt_state: bytes of the optimizer's state.
      batch: bytes of tokens and targets.
      activations: by rematerialisation policy, what one microbatch keeps for the backward pass, gathered weights
        included, and one block's recomputation; from shapes.
      arguments: bytes of what the compiled step is given.
      temporaries: bytes it needs besides, by the CPU's compiler; at steps with telemetry, where those are more.
      model_flops: 6 * N * T + attention, of all devices together.
      program: what one device computes and exchanges.
      replicated: path and bytes of the largest arrays of the state that every device holds whole.
      rematerialized: lines in which the compiler says that it gathers an array whole against its will.
    """

    mesh: tuple[int, ...]
    num_params: int
    params: int
    grads: int
    opt_state: int
    batch: int
    activations: dict[str, int]
    arguments: int
    temporaries: int
    model_flops: int
    program: hlo.Cost
    replicated: list[tuple[str, int]]
    rematerialized: list[str]

    def seconds(self, chip: Chip) -> dict[str, float]:
        """Lower bounds of a step's time: of matrix products, of reading and writing the state, of exchange."""
        return {
            "compute": self.program.flops / chip.flops,
            "memory": 2 * (self.params + self.grads + self.opt_state) / chip.bandwidth,
            "links": self.program.sent() / chip.link,
        }


def make_plan(config: TrainConfig) -> Plan:
    """The plan of a config on this process's devices, which may be fake; compiles, allocates no array of the model.

    Raises:
      InputError: the config does not fit the devices.
    """
    mesh = sharding.make_mesh(config.mesh)
    require(
        mesh.size == jax.device_count(),
        f"devices={jax.device_count()}: the mesh has {mesh.size}; give as many, or -1 for an axis of the mesh",
    )
    config.check_batch_divides(mesh.shape["data"], mesh.shape["fsdp"])
    planned = Program.of(config, mesh, token_counts=stand_in_counts(config))
    layout, batch = planned.layout, sharding.abstract_batch(config, mesh)
    arguments = layout, batch, HParams.of(config)
    lowered = planned.step.lower(*arguments)
    with tempfile.TemporaryDirectory() as folder, _stderr() as said:
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True, "xla_dump_hlo_pass_re": "spmd.*"}
        compiled = lowered.compile(compiler_options=options)
        partitioned = Path(folder).glob("*.after_spmd-partitioning*.txt")
        text = next(partitioned).read_text() if mesh.size > 1 else lowered.as_text("hlo")
    programs = [compiled]
    if config.logging.telemetry_every_steps:
        programs.append(planned.telemetry_step.lower(*arguments).compile())
    memory = [typing.cast(Any, each.memory_analysis()) for each in programs]
    params = _bytes(layout.params)
    whole = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), x.size * x.dtype.itemsize)
        for path, x in jax.tree.leaves_with_path(layout)
        if mesh.size > 1 and x.size and x.sharding.shard_shape(x.shape) == x.shape
    ]
    return Plan(
        mesh=tuple(mesh.shape[name] for name in MESH_AXES),
        num_params=model.num_params(config.model),
        params=params,
        grads=params + (0 if config.num_microbatches == 1 else _bytes(_widened(layout.params))),
        opt_state=_bytes(layout.opt_state),
        batch=_bytes(batch),
        activations=activations(config, mesh),
        arguments=memory[0].argument_size_in_bytes,
        temporaries=max(each.temp_size_in_bytes for each in memory),
        model_flops=flops_per_token(config.model, config.length) * config.tokens_per_step,
        program=hlo.cost(text),
        replicated=sorted(whole, key=lambda item: -item[1])[:5],
        rematerialized=[line for line in said if _REMATERIALIZED in line],
    )


def stand_in_counts(config: TrainConfig) -> np.ndarray:
    """Occurrences of vocabulary entries, for the telemetry of tokens that need not be there."""
    return np.ones(config.data.vocab_size, np.int64)


def _widened(shapes: Any) -> Any:
    """Shapes of the sums of a tree's gradients."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, wide_dtype(x.dtype), sharding=x.sharding), shapes)


def _bytes(tree: Any) -> int:
    """Bytes on one device."""
    return sum(
        jax.ShapeDtypeStruct(x.sharding.shard_shape(x.shape), x.dtype).size * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
    )


class _Copying(model.Placement):
    """A gathered weight is another array than the device's share of it, whatever its dtype."""

    def gather(self, weight: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        del axes
        return jax.lax.optimization_barrier(weight)


def activations(config: TrainConfig, mesh: Mesh | AbstractMesh) -> dict[str, int]:
    """Bytes that the backward pass of one microbatch keeps on one device, by policy.

    Differentiation's own residuals, of the model with a device's share of heads, hidden units and vocabulary: also the
    weights that were cast and gathered, where they are not gathered again, but nothing that the step was given.
    """
    c, parts = config.model, mesh.shape["tensor"]
    place = model.ONE_DEVICE if mesh.shape["fsdp"] == 1 else _Copying()
    share = dataclasses.replace(
        c,
        head_dim=c.head_width,
        vocab_size=c.vocab_size // parts,
        num_heads=c.num_heads // parts,
        num_kv_heads=c.num_kv_heads // parts,
        mlp_dim=c.mlp_dim // parts,
    )

    rows = config.global_batch_size // config.num_microbatches // (mesh.shape["data"] * mesh.shape["fsdp"])
    batch = Batch(*(jnp.zeros((rows, config.length), dtype) for dtype in (jnp.int32, jnp.float32)))

    def kept(remat: str) -> int:
        shape = dataclasses.replace(share, remat=remat)

        def residuals(params, batch):
            def loss(params):
                return summed_losses(model.logits(shape, params, batch.tokens, place), batch)[0]

            return jax.vjp(loss, params)[1]

        jaxpr = jax.make_jaxpr(residuals)(model.shapes(shape), batch).jaxpr
        made: list[Any] = [x.aval for x in {x for x in jaxpr.outvars if isinstance(x, Var)} - set(jaxpr.invars)]
        return sum(x.size * x.dtype.itemsize for x in made)

    sizes = {remat: kept(remat) for remat in REMATS}
    return {remat: size + (sizes["none"] - size) // c.num_layers for remat, size in sizes.items()}


@contextlib.contextmanager
def _stderr() -> Iterator[list[str]]:
    """The lines that compiled code writes to stderr within it; they are written there afterwards."""
    lines: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
            print(*(line for line in lines if _REMATERIALIZED not in line), sep="\n", end="", file=sys.stderr)
