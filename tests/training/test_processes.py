"""Two processes of four fake devices each, joined by jax.distributed on the loopback, against one process of eight."""

import contextlib
import dataclasses
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxopt_lm.config import CheckpointConfig, DistributedConfig, MeshConfig
from jaxopt_lm.training.checkpoints import saved_steps
from jaxopt_lm.training.run import read_metrics
from tests.conftest import command_line, timeless

SECONDS = 240


@pytest.fixture
def config(tiny):
    decoder = dataclasses.replace(tiny.model, num_layers=1)
    saves = CheckpointConfig(every_steps=5)
    mesh = MeshConfig(data=2, fsdp=2, tensor=2)
    return dataclasses.replace(tiny, model=decoder, num_train_steps=40, checkpoint=saves, mesh=mesh)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def processes(config, folder: Path, count: int) -> Iterator[list[subprocess.Popen]]:
    """The processes of a run on eight devices together; killed on leaving, should they live."""
    coordinator, started = f"127.0.0.1:{free_port()}", []
    for index in range(count):
        if count > 1:
            joined = DistributedConfig(coordinator=coordinator, num_processes=count, process_id=index)
            config = dataclasses.replace(config, distributed=joined)
        place = folder / f"process_{index}"
        place.mkdir(exist_ok=True)
        started.append(
            subprocess.Popen(
                command_line("train", config, place),
                env=os.environ | {"JAX_NUM_CPU_DEVICES": str(8 // count), "JAX_PLATFORMS": "cpu"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def finish(config, folder, count) -> list[str]:
    """Runs to the end; what each process printed."""
    with processes(config, folder, count) as started:
        printed = [process.communicate(timeout=SECONDS) for process in started]
        assert [process.returncode for process in started] == [0] * count, printed
    return [output for output, _ in printed]


def wait_until(reached: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_saved(config, step: int) -> bool:
    return any(saved >= step for saved in saved_steps(Path(config.workdir, "checkpoints")))


@pytest.fixture
def alone(config, tmp_path):
    """The lines of the run of one process."""
    config = dataclasses.replace(config, workdir=str(tmp_path / "alone"))
    finish(config, tmp_path, 1)
    return timeless(config.workdir)


def assert_same_lines(config, expected) -> None:
    found = timeless(config.workdir)
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.full), 1])
def test_one_dies_and_the_other_ends_within_a_minute_then_two_go_on_then_one(config, alone, tmp_path, victim):
    """SIGKILL to one; the same command again, SIGKILL to both; then in one process: the lines of one run."""
    with processes(config, tmp_path, 2) as started:
        wait_until(lambda: has_saved(config, 5), started[0])
        started[victim].send_signal(signal.SIGKILL)
        began = time.monotonic()
        _, errors = started[1 - victim].communicate(timeout=60)
        assert time.monotonic() - began < 60
    assert started[1 - victim].returncode == -signal.SIGABRT
    assert "UNAVAILABLE" in errors or "coordination service" in errors, errors
    with processes(config, tmp_path, 2) as started:
        wait_until(lambda: has_saved(config, 20), started[0])
        for process in started:
            process.send_signal(signal.SIGKILL)
    (output,) = finish(config, tmp_path, 1)
    assert "resuming" in output
    assert_same_lines(config, alone)


def test_sigterm_to_one_stops_both_after_the_same_step(config, alone, tmp_path):
    with processes(config, tmp_path, 2) as started:
        wait_until(lambda: any(line["step"] >= 5 for line in read_metrics(config.workdir)), started[0])
        started[1].send_signal(signal.SIGTERM)
        printed = [process.communicate(timeout=SECONDS) for process in started]
    assert [process.returncode for process in started] == [143, 143], printed
    steps = saved_steps(Path(config.workdir, "checkpoints"))
    assert f"stopped at step {steps[-1]}; the same command goes on from there" in printed[0][0]
    assert steps[-1] < config.num_train_steps
    first, second = finish(config, tmp_path, 2)
    assert f"done: step {config.num_train_steps}" in first
    assert "step" not in second  # Gloo prints of its own
    assert_same_lines(config, alone)


@pytest.mark.full
def test_an_error_of_one_ends_all(config, tmp_path):
    """The run's folder is locked by a process of this test, which the primary alone notices."""
    Path(config.workdir).mkdir()
    with open(Path(config.workdir, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with processes(config, tmp_path, 2) as started:
            printed = [process.communicate(timeout=SECONDS)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], printed
    assert "another process trains there" in printed[0]
    assert printed[1] == "error: process 0 stopped; see its message\n"
