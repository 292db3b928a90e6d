"""The same run on one device and on several: fake CPU devices, in processes of their own."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxopt_lm.config import CheckpointConfig, MeshConfig
from jaxopt_lm.optimizers import OPTIMIZERS
from tests import forked
from tests.conftest import command_line, timeless
from tests.training.meshes import MESHES, TO_ROUNDING

ROOT = Path(__file__).parents[2]
FULL = pytest.mark.full


def on_devices(devices: int, command: list[str]) -> subprocess.CompletedProcess:
    return forked.run(command, cwd=ROOT, devices=devices, timeout=900)


def compare(check: str, optimizers, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.training.meshes", check, "--optimizers", *optimizers, *arguments]
    return on_devices(8, command)


def run(config, tmp_path, devices: int) -> subprocess.CompletedProcess:
    return on_devices(devices, command_line("train", config, tmp_path))


def table(*ci):
    """Every optimizer in processes of three; those of CI in one."""
    rest = [name for name in OPTIMIZERS if name not in ci]
    chunks = [pytest.param(rest[i : i + 3], marks=FULL) for i in range(0, len(rest), 3)]
    return pytest.mark.parametrize("optimizers", [ci, *chunks], ids="-".join)


@table("adalayer")
@pytest.mark.parametrize("mesh", ["2,2,2", *(pytest.param(name, marks=FULL) for name in MESHES if name != "2,2,2")])
def test_five_steps_on_a_mesh_equal_those_on_one_device(optimizers, mesh):
    """In float64, parameters and state."""
    done = compare("equal", optimizers, "--meshes", mesh)
    assert done.returncode == 0, done.stderr[-2000:]


@FULL
@table("adalayer_star")
def test_float32_losses_agree_and_parameters_where_no_sign_decides(optimizers, full):
    assert set(TO_ROUNDING) <= set(OPTIMIZERS)
    done = compare("equal", optimizers, "--dtype=float32", "--meshes", *(MESHES if full else ["1,2,4"]))
    assert done.returncode == 0, done.stderr[-2000:]


@FULL
def test_a_mean_over_the_local_shard_is_noticed():
    done = compare("local_means", ["adalayer"], "--meshes", "2,2,2")
    assert done.returncode == 1
    assert "AssertionError" in done.stderr
    assert "adalayer on 2,2,2" in done.stderr


@table("adalayer")
def test_microbatches_equal_the_whole_batch(optimizers):
    done = compare("accumulate", optimizers, "--meshes", "2,2,2")
    assert done.returncode == 0, done.stderr[-2000:]


@FULL
@table("adafactor")
def test_a_state_saved_on_one_mesh_is_restored_on_another(optimizers):
    done = compare("restore", optimizers, "--meshes", "2,2,2")
    assert done.returncode == 0, done.stderr[-2000:]


def assert_same_lines(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=2e-4)


def test_a_run_goes_on_on_another_mesh(tiny, tmp_path, full):
    """Of eight devices on one; with --full of one on four too."""
    config = dataclasses.replace(tiny, num_train_steps=12, checkpoint=CheckpointConfig(every_steps=4))
    eight = dataclasses.replace(config, workdir=str(tmp_path / "eight"), mesh=MeshConfig(fsdp=2, tensor=2))
    for each, devices in ((config, 1), (eight, 8)):
        done = run(each, tmp_path, devices)
        assert done.returncode == 0, done.stderr
    single = timeless(config.workdir)
    assert_same_lines(timeless(eight.workdir), single)

    others = ((eight, MeshConfig(), 1), (config, MeshConfig(data=1, fsdp=-1, tensor=2), 4))
    for each, mesh, devices in others if full else others[:1]:
        shutil.rmtree(Path(each.workdir, "checkpoints", "12"))
        done = run(dataclasses.replace(each, mesh=mesh), tmp_path, devices)
        assert done.returncode == 0, done.stderr
        assert "from step 8" in done.stdout
        assert_same_lines(timeless(each.workdir), single)


def test_microbatches_stay_divided_over_the_devices():
    """No device computes another's rows: FLOPs a device do not grow with the number of microbatches."""
    done = on_devices(4, [sys.executable, "-m", "tests.training.meshes", "microbatches"])
    assert done.returncode == 0, done.stderr[-2000:]


@FULL
def test_gradients_in_bfloat16_on_a_mesh_are_those_in_float32_on_one_device():
    """Of every parameter, on tokens as uneven as words are, to rounding; in one part and in four."""
    done = on_devices(8, [sys.executable, "-m", "tests.training.meshes", "bfloat16"])
    assert done.returncode == 0, done.stderr[-2000:]


def test_fsdp_divides_the_memory_of_parameters_and_state():
    """Of the compiled step of 150m with AdamW: its arguments, bytes a device."""
    done = on_devices(8, [sys.executable, "-m", "tests.training.meshes", "memory"])
    assert done.returncode == 0, done.stderr[-2000:]
    whole, divided = map(int, done.stdout.split())
    assert whole > 12 * 150e6
    assert divided <= 0.15 * whole


def test_what_does_not_divide_is_named(tiny, tmp_path):
    done = run(tiny, tmp_path, 3)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: global_batch_size / num_microbatches=8: must be a multiple of the mesh's data * fsdp = 3; or change "
        "the mesh"
    )
    narrow = dataclasses.replace(tiny, mesh=MeshConfig(data=1, tensor=4))
    done = run(narrow, tmp_path, 4)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: mesh.tensor=4: does not divide kv_heads=2 of parameter layer_00/attention/key; give a divisor of 2"
    )
    done = run(narrow, tmp_path, 2)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: mesh.data=1 mesh.fsdp=1 mesh.tensor=4: needs 4 devices, there are 2; make one smaller"
    )
    fixed = dataclasses.replace(tiny, global_batch_size=6, eval=dataclasses.replace(tiny.eval, batch_size=3))
    done = run(dataclasses.replace(fixed, num_train_steps=10), tmp_path, 3)  # nothing was begun: the config may change
    assert done.returncode == 0, done.stderr
