"""Trains tiny models on meshes of eight fake devices and compares: run by `test_mesh.py` in processes of its own.

JAX_NUM_CPU_DEVICES=8 python -m tests.training.meshes equal --dtype=float64 --optimizers adamw --meshes 2,2,2
"""

import argparse
import dataclasses
import itertools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from jaxopt_lm import model
from jaxopt_lm.config import CheckpointConfig, DataConfig, EvalConfig, MeshConfig, TrainConfig
from jaxopt_lm.model import ModelConfig
from jaxopt_lm.optimizers import block_adam
from jaxopt_lm.optimizers.schedules import WarmupCosineConfig
from jaxopt_lm.runs.checkpoints import Checkpoints
from jaxopt_lm.training import sharding
from jaxopt_lm.training.program import Program
from jaxopt_lm.training.step import HParams
from tests.optimizers.worlds import config_of, with_narrow_momenta

MESHES = {"8,1,1": (8, 1, 1), "1,8,1": (1, 8, 1), "2,2,2": (2, 2, 2), "1,2,4": (1, 2, 4)}
ONE = MeshConfig(data=1)
STEPS = 5
TO_ROUNDING = ("sgdw", "adalayer", "adalayer_star", "hybrid", "frozen", "lars")
"""Their float32 parameters agree; elsewhere a sign, or Adam's first steps, turn rounding into a full step."""

ROUNDING = 0.015
"""Relative error of a leaf's gradient in bfloat16: some roundings of 2^-9; a stalled sum is wrong by tenths."""


def mesh_of(name: str) -> MeshConfig:
    return MeshConfig(**dict(zip(("data", "fsdp", "tensor"), MESHES[name], strict=True)))


def config_for(optimizer: str, dtype: str, **changes) -> TrainConfig:
    """SOAP gets square matrices and norms without a mean: a rank-deficient gradient has many eigenbases."""
    square = {"mlp_dim": 16, "norm": "rmsnorm"} if optimizer == "soap" else {"mlp_dim": 32}
    decoder = ModelConfig(
        **{"vocab_size": 64, "num_layers": 2, "embed_dim": 16, "num_heads": 4, "num_kv_heads": 4} | square,
        scan_layers=True,
        param_dtype=dtype,
        compute_dtype=dtype,
    )
    fields = {"max_dim": 16} if optimizer == "soap" else {}
    base = TrainConfig(
        workdir="unused",
        model=decoder,
        data=DataConfig(vocab_size=64),
        optimizer=config_of(optimizer, **fields),
        schedule=WarmupCosineConfig(warmup_steps=2),
        eval=EvalConfig(batch_size=8),
        mesh=ONE,
        num_train_steps=10,
        global_batch_size=32,
        length=16,
    )
    return dataclasses.replace(base, **changes)


def train(config: TrainConfig, *, padded: bool = False):
    """(state, losses) after some steps; the state lies where it lay at first, moments as their parameters do."""
    mesh = sharding.make_mesh(config.mesh)
    rows, rng, losses = sharding.Rows(mesh, config.global_batch_size), np.random.default_rng(0), []
    run, hparams = Program.of(config, mesh), HParams.of(config)
    state = run.init(hparams)
    where = sharding.shardings(state)
    for _ in range(STEPS):
        tokens = rng.integers(0, 64, (config.global_batch_size, config.length)).astype(np.int32)
        is_target = np.ones(tokens.shape, np.float32)
        if padded:  # unevenly, so that a mean of microbatches' means is another number
            is_target[np.arange(config.length) >= rng.integers(1, config.length, (len(tokens), 1))] = 0
        state, metrics = run.step(state, rows.place((tokens, is_target)), hparams)
        losses.append(float(metrics["train/loss"]))
    same = jax.tree.map(lambda x, first: x.sharding.is_equivalent_to(first, x.ndim), state, where)
    assert all(jax.tree.leaves(same))
    check_moments(state)
    return state, losses


def check_moments(state) -> None:
    """What has a parameter's path at its end, and its shape, lies as the parameter does."""
    params = {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(state.params)}
    found = 0
    for path, x in jax.tree.leaves_with_path(state.opt_state):
        ends = (jax.tree_util.keystr(path[i:]) for i in range(len(path)))
        like = next((params[end] for end in ends if end in params), None)
        if like is not None and like.shape == x.shape:
            assert x.sharding.is_equivalent_to(like.sharding, x.ndim), jax.tree_util.keystr(path)
            found += 1
    assert found >= 4, found


def assert_close(found, expected, bound: float, what: str) -> None:
    """Every leaf within `bound` of its largest absolute entry."""
    for (path, x), y in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        atol = bound * float(np.abs(y).max(initial=0)) if y.dtype.kind == "f" else 0
        np.testing.assert_allclose(x, y, rtol=0, atol=atol, err_msg=f"{what}: {jax.tree_util.keystr(path)}")


def equal(optimizer: str, dtype: str, meshes: list[str], mutate=lambda config: None) -> None:
    config = config_for(optimizer, dtype)
    state, losses = train(config)
    for name in meshes:
        on_mesh = dataclasses.replace(config, mesh=mesh_of(name))
        mutate(on_mesh)
        moved, found = train(on_mesh)
        what = f"{optimizer} on {name}"
        if dtype == "float64":
            assert_close(moved, state, 1e-8, what)
        elif optimizer in TO_ROUNDING:
            assert_close(moved.params, state.params, 1e-5, what)
        np.testing.assert_allclose(found, losses, rtol=1e-8 if dtype == "float64" else 1e-5, err_msg=what)


def accumulate(optimizer: str, dtype: str, meshes: list[str]) -> None:
    """Microbatches against the whole batch, with rows padded to different lengths."""
    config = config_for(optimizer, dtype)
    state, losses = train(config, padded=True)
    for mesh, parts in [(ONE, 8), *((mesh_of(name), 2) for name in meshes)]:
        config = dataclasses.replace(config, mesh=mesh, num_microbatches=parts)
        moved, found = train(config, padded=True)
        assert_close(moved, state, 1e-8, f"{optimizer} in {parts} microbatches on {mesh}")
        np.testing.assert_allclose(found, losses, rtol=1e-8)


def restore(optimizer: str, dtype: str, meshes: list[str]) -> None:
    """Saved on one mesh and restored on another: the same bits, of momenta in bfloat16 too."""
    config = config_for(optimizer, dtype)
    if optimizer != "schedule_free_adamw":
        config = dataclasses.replace(config, optimizer=with_narrow_momenta(config.optimizer))
    places = [ONE, *map(mesh_of, meshes)]
    there = list(itertools.pairwise(places))
    for before, after in [*there, *((after, before) for before, after in there)]:
        state, _ = train(dataclasses.replace(config, mesh=before))
        with tempfile.TemporaryDirectory() as folder:
            with Checkpoints(Path(folder, "checkpoints"), CheckpointConfig()) as checkpoints:
                checkpoints.save(STEPS, state, {})
            layout = Program.of(config, sharding.make_mesh(after)).layout
            with Checkpoints(Path(folder, "checkpoints"), CheckpointConfig()) as checkpoints:
                restored, _ = checkpoints.restore(STEPS, layout)
        assert_close(restored, state, 0, f"{optimizer} from {before} to {after}")
        assert sharding.shardings(restored) == sharding.shardings(layout)


def take_local_means(config: TrainConfig) -> None:
    """The mutation: a block's mean square over the shard at hand, as a naive `shard_map` would have it."""
    mesh, right = sharding.make_mesh(config.mesh), block_adam.sum_of_squares
    pairs = zip(jax.tree.leaves(model.shapes(config.model)), jax.tree.leaves(model.labels(config.model)), strict=True)
    specs = {x.shape: sharding.spec(label.axes) for x, label in pairs}

    def wrong(g, kept):
        def local(shard):
            return right(shard, kept) * (g.size / shard.size)

        divided = specs[g.shape]
        return jax.shard_map(local, mesh=mesh, in_specs=divided, out_specs=PartitionSpec(), check_vma=False)(g)

    block_adam.sum_of_squares = wrong


def local_means(optimizer: str, dtype: str, meshes: list[str]) -> None:
    equal(optimizer, dtype, meshes, take_local_means)


def zipfian(tied: bool, compute_dtype: str, **changes) -> TrainConfig:
    """A step of heavy ball, whose first buffer is the gradient, on so many tokens that a row's are thousands."""
    config = config_for("sgdw", "float32", **{"global_batch_size": 512, "max_grad_norm": None} | changes)
    fields = {"tied_embeddings": tied, "compute_dtype": compute_dtype, "num_layers": 1, "scan_layers": False}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **fields))


def gradients(config: TrainConfig, params=None):
    """Of the real step, for tokens of which the r-th is 1 / r as frequent as the first."""
    run, hparams = Program.of(config), HParams.of(config)
    frequency = 1 / np.arange(1, 65)
    shape = config.global_batch_size, config.length
    tokens = np.random.default_rng(0).choice(64, shape, p=frequency / frequency.sum()).astype(np.int32)
    batch = sharding.Rows(run.mesh, config.global_batch_size).place((tokens, np.ones(shape, np.float32)))
    state, _ = run.step(run.init(hparams, params), batch, hparams)
    return optax.tree.get(state.opt_state, "mu")


def relative_errors(found, expected) -> dict[str, float]:
    """Of every leaf: norm of the difference over that of the expected."""
    pairs = zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True)
    return {
        jax.tree_util.keystr(path): float(np.linalg.norm(np.asarray(x) - y) / np.linalg.norm(y))
        for (path, x), y in pairs
    }


def bfloat16() -> None:
    for tied, parts in ((False, 1), (True, 4)):
        one = zipfian(tied, "float32", global_batch_size=2048)
        on_mesh = zipfian(tied, "bfloat16", global_batch_size=2048, num_microbatches=parts, mesh=mesh_of("1,2,4"))
        errors = relative_errors(gradients(on_mesh), gradients(one))
        assert max(errors.values()) < ROUNDING, (tied, parts, errors)


def compiled(config: TrainConfig):
    """The train step, compiled from shapes alone."""
    run = Program.of(config)
    return run.step.lower(run.layout, sharding.abstract_batch(config, run.mesh), HParams.of(config)).compile()


def microbatches() -> None:
    for parts in (1, 4):
        text = compiled(config_for("adamw", "float32", mesh=MeshConfig(), num_microbatches=parts)).as_text() or ""
        assert "all-reduce" in text
        assert "all-gather" not in text, parts


def memory() -> None:
    """Prints bytes a device of the step's arguments on one device and with fsdp=8."""
    for mesh in (ONE, MeshConfig(data=1, fsdp=8)):
        config = TrainConfig(workdir="unused", model=model.preset("150m"), mesh=mesh, global_batch_size=8, length=64)
        analysis = compiled(config).memory_analysis()
        assert analysis is not None
        print(analysis.argument_size_in_bytes)


COMPARISONS = {check.__name__: check for check in (equal, accumulate, restore, local_means)}
ALONE = {check.__name__: check for check in (microbatches, memory, bfloat16)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("check", choices=COMPARISONS | ALONE)
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--optimizers", nargs="+", default=[])
    parser.add_argument("--meshes", nargs="+", default=list(MESHES))
    args = parser.parse_args()
    if args.check in ALONE:
        return ALONE[args.check]()
    jax.config.update("jax_enable_x64", args.dtype == "float64")
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    assert jnp.zeros(()).dtype == args.dtype
    for optimizer in args.optimizers:
        COMPARISONS[args.check](optimizer, args.dtype, args.meshes)


if __name__ == "__main__":
    main()
