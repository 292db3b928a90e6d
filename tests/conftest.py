"""Strictness for every test, and small worlds to train in."""

import dataclasses
import fcntl
import functools
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from jax._src.interpreters import mlir

from jaxopt_lm import compilation_cache
from jaxopt_lm.config import CheckpointConfig, DataConfig, EvalConfig, LoggingConfig, TrainConfig
from jaxopt_lm.data.tokens import VOCABULARY, Manifest, Split, token_dtype, write_shard
from jaxopt_lm.dumps import to_json
from jaxopt_lm.files import sha256_of_file
from jaxopt_lm.model import ModelConfig
from jaxopt_lm.optimizers.schedules import WarmupCosineConfig
from jaxopt_lm.runs.read import read_metrics

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

QUICKLY = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
"""XLA's flags for programs that compile longer than they run: in a third of the time, to other roundings."""

HALF_WRITTEN = "Error reading persistent compilation cache entry"  # by another process, or by one that was killed
GOLDEN = Path(__file__).parent / "golden"

TINY_MODEL = ModelConfig(
    vocab_size=64, num_layers=3, embed_dim=16, num_heads=2, num_kv_heads=2, mlp_dim=32, compute_dtype="float32"
)


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="whole tables of cases instead of CI's fixed slice")
    parser.addoption(
        "--slurm", action="store_true", help="start a Slurm cluster of one node for the tests that need one"
    )


def pytest_configure(config):
    """Without --full, programs are compiled quickly, not well, here and in processes that tests start.

    Tracing makes many objects, so circles among them are looked for less often, and notes in each operation the lines
    of Python that it comes from, which nobody reads here. JAX loads MLIR's dialects anew for every program, 6 ms of the
    15 that lowering a small one takes; here once.
    """
    gc.set_threshold(200_000, 20, 100)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell's job in the background has it
        signal.signal(signal.SIGINT, signal.default_int_handler)  # so that those that tests start do not ignore it
    if not config.getoption("--full"):
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
        flags = os.environ.get("XLA_FLAGS", "")
        if QUICKLY not in flags:  # as a worker of xdist inherits it; cached programs are kept by the very text
            os.environ["XLA_FLAGS"] = f"{flags} {QUICKLY}".strip()
        jax.config.update("jax_disable_most_optimizations", True)
        jax.config.update("jax_traceback_in_locations_limit", 0)
        mlir.make_ir_context = functools.cache(mlir.make_ir_context)


def pytest_collection_modifyitems(config, items):
    """Without --full, cases marked `full` are left out; without --slurm, those marked `slurm` are skipped."""
    if not config.getoption("--slurm"):
        for item in items:
            if item.get_closest_marker("slurm"):
                item.add_marker(pytest.mark.skip(reason="starts a Slurm cluster: make test-slurm"))
    if not config.getoption("--full"):
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


def pytest_make_parametrize_id(val, argname):
    """Bytes are called as their argument is: compressed ones hold the time, and two processes must collect alike."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """`shared_folder(name, make)`: the folder of this name, made by the first worker that asks; all have the same."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = base / f"shared_{name}", base / f"shared_{name}.done"
        with open(base / f"shared_{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session", autouse=True)
def shared_compilations(pytestconfig):
    """What one test compiles, others read, in whichever process: workers, what they start, and the next session."""
    default = pytestconfig.rootpath / ".cache" / compilation_cache.machine()
    settings = compilation_cache.settings(os.environ.get("JAXOPT_LM_TEST_CACHE", default))
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    os.environ["PYTHONWARNINGS"] = f"ignore:{HALF_WRITTEN}"


@pytest.fixture(scope="session")
def full(request) -> bool:
    return request.config.getoption("--full")


@pytest.fixture
def standard_promotion():
    """For tests through optax, whose bias correction raises a float to an int32 power."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def optimized():
    """For recorded numbers: programs compiled as they are for users."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def write_tokens(folder: Path, *, vocab_size: int = 64, num_train: int = 4000, num_validation: int = 700) -> Path:
    """A folder of random tokens that follow a rule a model can learn: half of them repeat the one before."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def document(size: int) -> np.ndarray:
        ids = rng.integers(2, vocab_size, size)
        return np.where(rng.random(size) < 0.5, np.roll(ids, 1), ids)

    splits = {
        name: Split.of(name, [write_shard(folder / f"{name}-00000.bin", [(document(size), 4 * size)], vocab_size)])
        for name, size in (("train", num_train), ("validation", num_validation))
    }
    (folder / VOCABULARY).write_bytes(b"none")
    Manifest(
        source=DataConfig(vocab_size=vocab_size).identity(),
        vocabulary_sha256=sha256_of_file(folder / VOCABULARY),
        dtype=token_dtype(vocab_size).name,
        splits=splits,
    ).write(folder)
    return folder


@pytest.fixture(scope="session")
def tokens_dir(tmp_path_factory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tiny")


@pytest.fixture
def tiny(tmp_path, tokens_dir) -> TrainConfig:
    """A run of 60 steps that takes seconds."""
    return TrainConfig(
        workdir=str(tmp_path / "run"),
        model=dataclasses.replace(TINY_MODEL, num_layers=1),
        data=DataConfig(vocab_size=64, tokens_dir=str(tokens_dir)),
        schedule=WarmupCosineConfig(warmup_steps=5),
        eval=EvalConfig(every_steps=20, batch_size=4, max_batches=None),
        checkpoint=CheckpointConfig(every_steps=10, keep_last=2),
        logging=LoggingConfig(every_steps=1, tensorboard=False),
        num_train_steps=60,
        global_batch_size=8,
        length=16,
    )


def command_line(module: str, config: TrainConfig, folder: Path, *arguments: str) -> list[str]:
    """The command that runs a module of ours on `config`, given as a file in `folder`."""
    path = folder / "config.json"
    path.write_text(to_json(config))
    return [sys.executable, "-m", f"jaxopt_lm.{module}", f"--config={path}", *arguments]


def timeless(folder: str | os.PathLike) -> list[dict]:
    """The run's lines of metrics but for what depends on the clock."""
    return [
        {name: value for name, value in line.items() if name not in ("tokens_per_sec", "mfu")}
        for line in read_metrics(folder)
    ]
