"""The same run on one device and on several: fake CPU devices, in processes of their own."""

import dataclasses
import os
import shutil
import subprocess
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


def test_batches_must_divide_over_the_devices(tiny, tmp_path):
    done = run(tiny, tmp_path, 3)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: global_batch_size / num_microbatches=8: must be a multiple of the 3 devices; or set mesh.data"
    )
    fixed = dataclasses.replace(tiny, global_batch_size=6, eval=dataclasses.replace(tiny.eval, batch_size=3))
    done = run(dataclasses.replace(fixed, num_train_steps=10), tmp_path, 3)  # nothing was begun: the config may change
    assert done.returncode == 0, done.stderr
