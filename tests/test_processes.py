"""Two processes of four fake devices each, joined by jax.distributed on the loopback, against one process of eight."""

import contextlib
import dataclasses
import fcntl
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxopt_lm.config import CheckpointConfig, DistributedConfig, EvalConfig, MeshConfig
from jaxopt_lm.runs.read import read_metrics, saved_steps
from tests import forked
from tests.conftest import command_line, timeless, write_tokens

SECONDS = 240


@pytest.fixture
def config(tiny):
    saves, evaluation = CheckpointConfig(every_steps=8), EvalConfig(every_steps=20, batch_size=4, max_batches=2)
    mesh = MeshConfig(data=1, fsdp=4, tensor=2)  # neither process has all of a parameter
    return dataclasses.replace(tiny, num_train_steps=32, checkpoint=saves, eval=evaluation, mesh=mesh)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def processes(config, folder: Path, count: int, changed=None, file_kib=None) -> Iterator[list[forked.Popen]]:
    """The processes of a run on eight devices together; killed on leaving, should they live.

    Args:
      config: of the run.
      folder: for their files.
      count: of processes.
      changed: the second's config.
      file_kib: the second writes no file beyond so many KiB.
    """
    coordinator, started = f"127.0.0.1:{free_port()}", []
    for index in range(count):
        own = changed if index and changed else config
        if count > 1:
            joined = DistributedConfig(coordinator=coordinator, num_processes=count, process_id=index)
            own = dataclasses.replace(own, distributed=joined)
        place = folder / f"process_{index}"
        place.mkdir(exist_ok=True)
        command, limit = command_line("train", own, place), file_kib if index else None
        started.append(forked.Popen(command, devices=8 // count, file_kib=limit))
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


def wait_until(reached: Callable[[], bool], process: forked.Popen) -> None:
    deadline = time.monotonic() + SECONDS
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_saved(config, step: int) -> bool:
    return any(saved >= step for saved in saved_steps(Path(config.workdir, "checkpoints")))


@pytest.fixture
def alone(config, shared_folder):
    """The lines of the run of one process, made once for all tests and workers."""

    def make(folder: Path) -> None:
        finish(dataclasses.replace(config, workdir=str(folder / "run")), folder, 1)

    return timeless(shared_folder("alone", make) / "run")


def assert_same_lines(config, expected) -> None:
    found = timeless(config.workdir)
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)


def test_two_stop_together_then_one_dies_and_one_alone_goes_on(config, alone, tmp_path):
    """SIGTERM to one; the same command again, SIGKILL to one; then in one process: the lines of one run."""
    with processes(config, tmp_path, 2) as started:
        wait_until(lambda: any(line["step"] >= 2 for line in read_metrics(config.workdir)), started[0])
        started[1].send_signal(signal.SIGTERM)
        printed = [process.communicate(timeout=SECONDS) for process in started]
    assert [process.returncode for process in started] == [143, 143], printed
    steps = saved_steps(Path(config.workdir, "checkpoints"))
    assert f"stopped at step {steps[-1]}; the same command goes on from there" in printed[0][0]
    with processes(config, tmp_path, 2) as started:
        wait_until(lambda: has_saved(config, 16), started[0])
        assert_the_other_ends(started, killed=1)
    (output,) = finish(config, tmp_path, 1)
    assert "resuming" in output
    assert_same_lines(config, alone)


def assert_the_other_ends(started: list[forked.Popen], killed: int) -> None:
    """Kills one; the other ends within a minute, and says why."""
    started[killed].send_signal(signal.SIGKILL)
    began = time.monotonic()
    _, errors = started[1 - killed].communicate(timeout=60)
    assert time.monotonic() - began < 60
    assert started[1 - killed].returncode in (-signal.SIGABRT, 1)
    assert "UNAVAILABLE" in errors or "coordination service" in errors or "If another process ended" in errors, errors


@pytest.mark.full
@pytest.mark.parametrize("victim", [0, 1])
def test_one_dies_and_the_other_ends_within_a_minute_then_two_go_on_then_one(config, alone, tmp_path, victim):
    """SIGKILL to one; the same command again, SIGKILL to both; then in one process: the lines of one run."""
    with processes(config, tmp_path, 2) as started:
        wait_until(lambda: has_saved(config, 8), started[0])
        assert_the_other_ends(started, victim)
    with processes(config, tmp_path, 2) as started:
        wait_until(lambda: has_saved(config, 16), started[0])
        for process in started:
            process.send_signal(signal.SIGKILL)
    (output,) = finish(config, tmp_path, 1)
    assert "resuming" in output
    assert_same_lines(config, alone)


@pytest.mark.full
def test_sigterm_to_one_stops_both_after_the_same_step(config, alone, tmp_path):
    with processes(config, tmp_path, 2) as started:
        wait_until(lambda: any(line["step"] >= 2 for line in read_metrics(config.workdir)), started[0])
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
def test_sigterm_during_an_evaluation_stops_both_in_it(config, tmp_path):
    """And both go on with it. It has 750 batches, longer than JAX's service takes to tell everyone."""
    tokens = write_tokens(tmp_path / "tokens", num_validation=96_000)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, tokens_dir=str(tokens)),
        eval=EvalConfig(every_steps=6, batch_size=8, max_batches=None),
        num_train_steps=7,
    )
    with processes(config, tmp_path, 2) as started:
        wait_until(lambda: any(line["step"] == 5 for line in read_metrics(config.workdir)), started[0])
        started[1].send_signal(signal.SIGTERM)
        printed = [process.communicate(timeout=SECONDS) for process in started]
    assert [process.returncode for process in started] == [143, 143], printed
    assert saved_steps(Path(config.workdir, "checkpoints"))[-1] == 6, printed
    assert "eval/loss" not in list(read_metrics(config.workdir))[-1]
    assert "SIGTERM heard by one of the processes" in printed[0][0]
    finish(config, tmp_path, 2)
    assert [line["step"] for line in read_metrics(config.workdir) if "eval/loss" in line] == [0, 6, 7]


def ends(config, folder, *, changed=None, file_kib=None, seconds: float = 60) -> list[tuple[int, str]]:
    """(exit code, stderr) of both processes, the second's config changed, or its disk small; within the time."""
    with processes(config, folder, 2, changed, file_kib) as started:
        errors = [process.communicate(timeout=seconds)[1] for process in started]
    return [(process.returncode, text) for process, text in zip(started, errors, strict=True)]


def error_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_other_configs_are_refused_by_name(config, tmp_path):
    faster = dataclasses.replace(config.optimizer, learning_rate=0.5)
    found = ends(config, tmp_path, changed=dataclasses.replace(config, optimizer=faster, num_train_steps=33))
    line = (
        "error: process 1: num_train_steps=33 (process 0 has 32), optimizer.learning_rate=0.5 (process 0 has 0.00316); "
        "give every process the same"
    )
    assert [(code, error_lines(text)) for code, text in found] == [(2, [line])] * 2
    assert not Path(config.workdir, "config.json").exists()


@pytest.mark.full
def test_other_tokens_are_refused(config, tmp_path):
    there = write_tokens(tmp_path / "there", num_train=3000)
    data = dataclasses.replace(config.data, tokens_dir=str(there))
    found = ends(config, tmp_path, changed=dataclasses.replace(config, data=data))
    assert [code for code, _ in found] == [2, 2]
    assert "holds other tokens here than in process 1" in found[0][1]
    assert "holds other tokens here than in process 0" in found[1][1]


@pytest.mark.full
def test_a_disk_that_is_full_for_one_ends_both(config, tmp_path):
    """Orbax has all wait for all; the one that failed says so and leaves, and JAX ends the other."""
    config = dataclasses.replace(config, num_train_steps=100_000)
    (one, _), (other, text) = ends(config, tmp_path, file_kib=3)
    assert other == 2
    assert len(error_lines(text)) == 1
    assert "a checkpoint cannot be written: File too large; there is none yet; make room there" in text
    assert one in (-signal.SIGABRT, 1)


@pytest.mark.full
def test_an_error_of_one_before_training_ends_both(config, tmp_path):
    """The run's folder is locked by a process of this test, which the primary alone notices."""
    Path(config.workdir).mkdir()
    with open(Path(config.workdir, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = ends(config, tmp_path)
    assert [code for code, _ in found] == [2, 2]
    assert "another process trains there" in found[0][1]
    assert error_lines(found[1][1]) == ["error: process 0 stopped; see its message"]


@pytest.mark.full
def test_a_coordinator_that_is_not_there(config, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    alone = DistributedConfig(coordinator=address, num_processes=2, process_id=1, timeout_seconds=2)
    done = forked.run(command_line("train", dataclasses.replace(config, distributed=alone), tmp_path), timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: distributed.coordinator={address}: no answer within distributed.timeout_seconds=2: Connection "
        "refused; start process 0 there, or mend the address\n"
    )


@pytest.mark.full
def test_a_port_that_is_taken(config, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        first = DistributedConfig(coordinator=address, num_processes=2, process_id=0)
        command = command_line("train", dataclasses.replace(config, distributed=first), tmp_path)
        done = forked.run(command, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: distributed.coordinator={address}: process 0 cannot listen there: Address already in use; give a free "
        "port\n"
    )


@pytest.mark.full
@pytest.mark.parametrize("receivers", [(0, 1), (1,)])
def test_ctrl_c_in_several_processes_is_a_sigterm(config, tmp_path, receivers):
    config = dataclasses.replace(config, num_train_steps=100_000)
    with processes(config, tmp_path, 2) as started:
        wait_until(lambda: any(line["step"] >= 2 for line in read_metrics(config.workdir)), started[0])
        for index in receivers:
            started[index].send_signal(signal.SIGINT)
        printed = [process.communicate(timeout=SECONDS) for process in started]
    assert [process.returncode for process in started] == [143, 143], printed
    steps = saved_steps(Path(config.workdir, "checkpoints"))
    assert f"stopped at step {steps[-1]}; the same command goes on from there" in printed[0][0]
