"""Two processes of four fake devices each, joined by jax.distributed on the loopback, against one process of eight."""

import contextlib
import dataclasses
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxopt_lm.config import DistributedConfig, MeshConfig
from jaxopt_lm.training.checkpoints import saved_steps
from jaxopt_lm.training.run import read_metrics
from tests.conftest import command_line, timeless

SECONDS = 240


@pytest.fixture
def config(tiny):
    return dataclasses.replace(tiny, mesh=MeshConfig(data=2, fsdp=2, tensor=2))


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


def wait_for_step(config, step, process) -> None:
    deadline = time.monotonic() + SECONDS
    while not any(line["step"] >= step for line in read_metrics(config.workdir)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


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


def test_two_processes_are_as_one_killed_and_resumed_too(config, alone, tmp_path):
    """Killed after some saves; resumed by two, killed again, resumed by one."""
    for goal, count in ((15, 2), (35, 2)):
        with processes(config, tmp_path, count) as started:
            wait_for_step(config, goal, started[0])
            for process in started:
                process.send_signal(signal.SIGKILL)
    outputs = finish(config, tmp_path, 1)
    assert "from step 30" in outputs[0] or "from step 40" in outputs[0]
    assert_same_lines(config, alone)
    whole = dataclasses.replace(config, workdir=str(tmp_path / "whole"))
    first, second = finish(whole, tmp_path, 2)
    assert "done: step 60" in first
    assert "step" not in second  # Gloo prints of its own
    assert_same_lines(whole, alone)


def test_sigterm_to_one_stops_both_after_the_same_step(config, alone, tmp_path):
    with processes(config, tmp_path, 2) as started:
        wait_for_step(config, 5, started[0])
        started[1].send_signal(signal.SIGTERM)
        printed = [process.communicate(timeout=SECONDS) for process in started]
    assert [process.returncode for process in started] == [143, 143], printed
    steps = saved_steps(Path(config.workdir, "checkpoints"))
    assert f"stopped at step {steps[-1]}; the same command goes on from there" in printed[0][0]
    assert steps[-1] < 60
    finish(config, tmp_path, 2)
    assert_same_lines(config, alone)


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.full), 1])
def test_a_process_that_dies_ends_the_other_within_a_minute(config, tmp_path, victim):
    config = dataclasses.replace(config, num_train_steps=100_000)
    with processes(config, tmp_path, 2) as started:
        wait_for_step(config, 12, started[0])
        started[victim].send_signal(signal.SIGKILL)
        began = time.monotonic()
        _, errors = started[1 - victim].communicate(timeout=60)
        assert time.monotonic() - began < 60
    assert started[1 - victim].returncode != 0
    assert "terminate" in errors.lower() or "died" in errors.lower() or "unavailable" in errors.lower(), errors


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
