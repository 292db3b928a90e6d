"""Signals while a run trains: what is saved, what is raised, and what whoever goes on makes up for."""

import ctypes
import dataclasses
import io
import itertools
import json
import os
import select
import signal
import threading
from pathlib import Path

import chex
import jax
import pytest
from rich.console import Console

from jaxopt_lm import processes
from jaxopt_lm.config import CheckpointConfig, DataConfig, EvalConfig, LoggingConfig, TrainConfig
from jaxopt_lm.data.batches import EvalBatches
from jaxopt_lm.optimizers.schedules import ConstantConfig
from jaxopt_lm.processes import StopSignals, StopTogether
from jaxopt_lm.runs.checkpoints import Checkpoints
from jaxopt_lm.runs.read import read_metrics, saved_steps
from jaxopt_lm.training import ensure_tokens, run, setup
from jaxopt_lm.training.evaluation import evaluate_run
from tests.conftest import TINY_MODEL, timeless

pytestmark = pytest.mark.usefixtures("standard_promotion")

RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


def short_run(workdir: Path, tokens_dir: Path) -> TrainConfig:
    """8 steps; evaluations, of 11 batches, at 0, 4 and 8."""
    return TrainConfig(
        workdir=str(workdir),
        model=dataclasses.replace(TINY_MODEL, num_layers=1),
        data=DataConfig(vocab_size=64, tokens_dir=str(tokens_dir)),
        schedule=ConstantConfig(),
        eval=EvalConfig(every_steps=4, batch_size=4, max_batches=None),
        checkpoint=CheckpointConfig(every_steps=100),
        logging=LoggingConfig(every_steps=1, tensorboard=False),
        num_train_steps=8,
        global_batch_size=8,
        length=16,
    )


@pytest.fixture
def config(tmp_path, tokens_dir):
    return short_run(tmp_path / "run", tokens_dir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tokens_dir):
    """State and lines of the run that nothing stops."""
    config = short_run(tmp_path_factory.mktemp("whole"), tokens_dir)
    with jax.numpy_dtype_promotion("standard"):
        return run.train(config, Console(quiet=True)).state, timeless(config.workdir)


def during_evaluation(monkeypatch, number: int, action) -> list[int]:
    """Does `action` as batch 1 of evaluation `number` is read; the batches of it that are read."""
    real, begun, read = EvalBatches.__iter__, itertools.count(), []

    def batches(self):
        here = next(begun) == number
        for index, batch in enumerate(real(self)):
            if here:
                read.append(index)
                if index == 1:
                    action()
            yield batch

    monkeypatch.setattr(EvalBatches, "__iter__", batches)
    return read


def newest_line(config) -> dict:
    return list(read_metrics(config.workdir))[-1]


@pytest.mark.parametrize("number", RAISED, ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("evaluation", [0, 1, 2])
def test_a_stop_during_an_evaluation_saves_its_step_and_the_evaluation_is_made_up(
    config, whole, monkeypatch, number, evaluation
):
    read, output = during_evaluation(monkeypatch, evaluation, lambda: signal.raise_signal(number)), io.StringIO()
    with pytest.raises(RAISED[number]) as raised:
        run.train(config, Console(file=output, width=200))
    assert getattr(raised.value, "code", None) == (143 if number == signal.SIGTERM else None)
    assert read == [0, 1]
    assert f"{signal.Signals(number).name} heard: stopping after this step or batch of an eval" in output.getvalue()
    assert f"stopped at step {4 * evaluation}; the same command goes on from there" in output.getvalue()
    assert saved_steps(Path(config.workdir, "checkpoints")) == [4 * evaluation] * (evaluation > 0)
    if evaluation:
        assert newest_line(config)["step"] == 4 * evaluation
        assert "train/loss" in newest_line(config)
        assert "eval/loss" not in newest_line(config)
    assert not Path(config.workdir, "result.json").exists()
    monkeypatch.undo()
    result = run.train(config, Console(quiet=True))
    assert (result.status, result.signal) == ("completed", None)
    state, lines = whole
    assert timeless(config.workdir) == lines
    chex.assert_trees_all_equal(result.state, state)


def test_an_evaluation_that_is_made_up_may_be_stopped_too(config, whole, monkeypatch):
    for number in (1, 0):  # the second run begins with the evaluation of step 4
        during_evaluation(monkeypatch, number, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run.train(config, Console(quiet=True))
        monkeypatch.undo()
        assert (newest_line(config)["step"], saved_steps(Path(config.workdir, "checkpoints"))) == (4, [4])
    run.train(config, Console(quiet=True))
    assert timeless(config.workdir) == whole[1]


def test_a_loop_over_runs_ends(config, tmp_path, monkeypatch):
    during_evaluation(monkeypatch, 1, lambda: signal.raise_signal(signal.SIGINT))
    runs = (dataclasses.replace(config, workdir=str(tmp_path / name)) for name in ("first", "second"))
    with pytest.raises(KeyboardInterrupt):
        list(map(run.train, runs))
    assert saved_steps(tmp_path / "first" / "checkpoints") == [4]
    assert not (tmp_path / "second").exists()


def test_a_handler_of_the_callers_is_called_once_the_state_is_saved(config, monkeypatch):
    found, before = [], signal.getsignal(signal.SIGTERM)
    during_evaluation(monkeypatch, 1, lambda: signal.raise_signal(signal.SIGTERM))
    signal.signal(
        signal.SIGTERM, lambda number, _: found.append((number, saved_steps(Path(config.workdir, "checkpoints"))))
    )
    try:
        result = run.train(config, Console(quiet=True))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found == [(signal.SIGTERM, [4])]
    assert (result.status, result.step, result.signal, result.exit_code) == ("interrupted", 4, signal.SIGTERM, 143)


def test_a_signal_during_the_last_save_comes_too_late_to_interrupt(config, monkeypatch):
    """In Python it is raised nevertheless; the command line's exit code is 0."""
    real = Checkpoints.save

    def save(self, step, *rest):
        real(self, step, *rest)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Checkpoints, "save", save)
    result = run.run(config, Console(quiet=True))
    assert (result.status, result.step, result.signal, result.exit_code) == ("completed", 8, signal.SIGINT, 0)
    Path(config.workdir, "checkpoints", "8").rename(Path(config.workdir, "gone"))
    with pytest.raises(KeyboardInterrupt):
        run.train(config, Console(quiet=True))
    assert json.loads(Path(config.workdir, "result.json").read_text())["status"] == "completed"
    assert saved_steps(Path(config.workdir, "checkpoints")) == [8]


@pytest.mark.parametrize(
    ("owner", "name"), [(setup, "TokenStore"), (Checkpoints, "restore")], ids=["tokens_are_verified", "restoring"]
)
def test_where_nothing_is_to_be_saved_a_signal_acts_at_once(config, monkeypatch, owner, name):
    run.train(config, Console(quiet=True))
    lines, after = timeless(config.workdir), []
    real = getattr(owner, name)

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        after.append(real(*args, **kwargs))

    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.train(config, Console(quiet=True))
    assert after == []
    assert timeless(config.workdir) == lines


def test_a_signal_while_the_first_state_is_compiled_is_remembered(config, monkeypatch):
    """An exception amid compiling crashes the process."""
    real, output = run.Setup.of, io.StringIO()

    def interrupted(config):
        ready = real(config)

        def init(*args):
            signal.raise_signal(signal.SIGINT)
            return ready.program.init(*args)

        return ready._replace(program=dataclasses.replace(ready.program, init=init))

    monkeypatch.setattr(run.Setup, "of", interrupted)
    result = run.run(config, Console(file=output, width=200))
    assert (result.status, result.step, result.exit_code) == ("interrupted", 0, 130)
    assert list(read_metrics(config.workdir)) == []
    assert "SIGINT heard: stopping before the first step; a second ends at once" in output.getvalue()


def test_a_signal_while_tokens_are_prepared(config, tmp_path, monkeypatch):
    """The child is ended, and no training begins."""
    children = []

    class Child:
        returncode = None

        def __init__(self, command, **options):
            children.append(self)

        def communicate(self, timeout):
            if self.returncode is None:
                signal.raise_signal(signal.SIGINT)
                raise ensure_tokens.subprocess.TimeoutExpired("prepare", timeout)
            return "", ""

        def terminate(self):
            self.returncode = -signal.SIGTERM

        def __enter__(self):
            return self

        def __exit__(self, *exception): ...

    monkeypatch.setattr(ensure_tokens.subprocess, "Popen", Child)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, tokens_dir=str(tmp_path / "none")))
    output = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run.train(config, Console(file=output, width=200))
    assert [child.returncode for child in children] == [-signal.SIGTERM]
    assert "SIGINT heard: ending the preparation of the tokens; a second ends at once" in output.getvalue()
    assert not Path(config.workdir, "checkpoints").exists()


def test_several_processes_poll_before_every_batch_and_after_every_step(config, whole, monkeypatch):
    """JAX's service wants the polls of all runs of a process counted without a gap; it stops them at one of them."""
    polls, at = [], 1 + 11 + 4 + 2  # the beginning, evaluation 0, four steps, two batches of evaluation 1

    def reached(count: int) -> bool:
        polls.append(count)
        return len(polls) == at

    monkeypatch.setattr(processes, "_polls", itertools.count(1))
    monkeypatch.setattr(processes.multihost_utils, "reached_preemption_sync_point", reached)
    monkeypatch.setattr(run, "StopSignals", StopTogether)
    read, output = during_evaluation(monkeypatch, 1, lambda: None), io.StringIO()
    with pytest.raises(SystemExit) as raised:
        run.train(config, Console(file=output, width=200))
    assert raised.value.code == 143
    assert read == [0, 1]
    assert "SIGTERM heard by one of the processes: all stop here, with the state saved" in output.getvalue()
    assert (newest_line(config)["step"], saved_steps(Path(config.workdir, "checkpoints"))) == (4, [4])
    run.train(config, Console(quiet=True))
    assert timeless(config.workdir) == whole[1]
    assert polls == list(range(1, at + 1 + (1 + 11 + 4 + 11)))


def test_a_second_signal_has_its_usual_effect():
    stop = StopSignals(lambda text: None)
    with stop.listening("stopping"):
        signal.raise_signal(signal.SIGINT)
        assert (stop.received, stop.poll()) == (signal.SIGINT, True)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_signal_is_told_while_the_main_thread_computes_in_c():
    """Another thread gets the signal, so the main one sleeps on, in C, until it is told or ten seconds are over."""
    reading, writing = os.pipe()
    stop = StopSignals(lambda text: os.write(writing, text.encode()))
    with stop.listening("stopping"):
        sender = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
        waited = (ctypes.c_int * 2)(reading, select.POLLIN)  # struct pollfd
        sender.start()
        assert ctypes.CDLL(None).poll(waited, 1, 10_000) == 1
        sender.join()
    assert os.read(reading, 100) == b"SIGTERM heard: stopping; a second ends at once"
    assert stop.received == signal.SIGTERM
    os.close(reading)
    os.close(writing)


def test_an_evaluation_called_from_python_is_interrupted_between_batches(config, monkeypatch):
    run.train(config, Console(quiet=True))
    read = during_evaluation(monkeypatch, 0, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(config.workdir)
    assert read == [0, 1]
