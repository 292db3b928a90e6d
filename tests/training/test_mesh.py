"""The same run on one device and on several: fake CPU devices, in processes of their own."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxopt_lm.config import CheckpointConfig, MeshConfig
from tests.conftest import command_line, timeless


def run(config, tmp_path, devices: int) -> subprocess.CompletedProcess:
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    command = command_line("train", config, tmp_path)
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def assert_same_lines(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=2e-4)


def test_data_parallel_equals_one_device_and_resumes_on_another_mesh(tiny, tmp_path):
    config = dataclasses.replace(tiny, num_train_steps=12, checkpoint=CheckpointConfig(every_steps=4))
    four = dataclasses.replace(config, workdir=str(tmp_path / "four"))
    four = dataclasses.replace(four, num_microbatches=2)
    for each, devices in ((config, 1), (four, 4)):
        done = run(each, tmp_path, devices)
        assert done.returncode == 0, done.stderr
    single = timeless(config.workdir)
    assert_same_lines(timeless(four.workdir), single)

    shutil.rmtree(Path(four.workdir, "checkpoints", "12"))
    two = dataclasses.replace(four, mesh=MeshConfig(data=2))
    done = run(two, tmp_path, 2)
    assert done.returncode == 0, done.stderr
    assert "from step 8" in done.stdout
    assert_same_lines(timeless(two.workdir), single)


def test_microbatches_stay_divided_over_the_devices(tmp_path):
    """No device computes another's rows: FLOPs a device do not grow with the number of microbatches."""
    code = """
import jax
from jaxopt_lm.optimizers import OPTIMIZERS, SCHEDULES
from jaxopt_lm.training import sharding
from jaxopt_lm.config import MeshConfig
from jaxopt_lm.training.loss import Batch
from jaxopt_lm.training.step import HParams, init_state, make_train_step
from tests.conftest import TINY_MODEL
import jax.numpy as jnp
jax.config.update("jax_numpy_dtype_promotion", "standard")
hparams = HParams(OPTIMIZERS["adamw"](), SCHEDULES["constant"](), 10, 1e-4, 1.0, 0)
mesh = sharding.make_mesh(MeshConfig())
place = lambda tree, where: jax.device_put(tree, where)
state = place(init_state(TINY_MODEL, hparams, jax.random.key(0)), sharding.replicated(mesh))
batch = place(Batch(jnp.zeros((16, 32), int), jnp.ones((16, 32))), sharding.batch_sharding(mesh))
for parts in (1, 4):
    text = jax.jit(make_train_step(TINY_MODEL, parts)).lower(state, batch, hparams).compile().as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text, parts
"""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_batches_must_divide_over_the_devices(tiny, tmp_path):
    done = run(tiny, tmp_path, 3)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: global_batch_size / num_microbatches=8: must be a multiple of the mesh's data=3; or set mesh.data"
    )
    fixed = dataclasses.replace(tiny, global_batch_size=6, eval=dataclasses.replace(tiny.eval, batch_size=3))
    done = run(dataclasses.replace(fixed, num_train_steps=10), tmp_path, 3)  # nothing was begun: the config may change
    assert done.returncode == 0, done.stderr
