"""Training from Python: what a notebook gets, and that nothing is left behind."""

import dataclasses
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from rich.console import Console

from jaxopt_lm import training
from jaxopt_lm.config import CheckpointConfig, DataConfig, LoggingConfig
from jaxopt_lm.errors import InputError
from jaxopt_lm.model import huggingface
from jaxopt_lm.runs.read import read_metrics
from jaxopt_lm.training.saved_run import read_run
from tests import forked
from tests.conftest import command_line, timeless
from tests.data.corpora import paragraphs

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture
def short(tiny):
    return dataclasses.replace(tiny, num_train_steps=12, checkpoint=CheckpointConfig(every_steps=4))


def process_state(*_) -> tuple:
    settings = {name: value for name, value in jax.config.values.items() if "cache" not in name}
    return settings, dict(os.environ), threading.active_count(), signal.getsignal(signal.SIGINT), os.getcwd()


def test_a_result_has_metrics_as_arrays_and_the_final_state(short, capsys):
    before = process_state(training.train)  # its import, in which libraries set variables of theirs, comes first
    result = training.train(short)
    assert process_state() == before
    assert "done: step 12" in capsys.readouterr().out
    lines = list(read_metrics(short.workdir))
    steps, losses = result.history["train/loss"]
    np.testing.assert_array_equal(steps, np.arange(1, 13))
    np.testing.assert_array_equal(losses, [line["train/loss"] for line in lines if "train/loss" in line])
    np.testing.assert_array_equal(result.history["eval/loss"].steps, [0, 12])
    assert result.history["eval/loss"].values.dtype == np.float64
    chex.assert_trees_all_equal(result.state, read_run(short.workdir).state)
    again = training.train(short)
    chex.assert_trees_all_equal(again.state, result.state)
    np.testing.assert_array_equal(again.history["train/loss"].values, losses)


def test_two_calls_are_as_two_processes(short, tmp_path):
    other = dataclasses.replace(short, seed=1, workdir=str(tmp_path / "other"))
    first, second = training.train(short), training.train(other)
    alone = dataclasses.replace(other, workdir=str(tmp_path / "alone"))
    forked.run(command_line("train", alone, tmp_path), check=True)
    chex.assert_trees_all_equal(read_run(alone.workdir).state, second.state)
    assert timeless(alone.workdir) == timeless(other.workdir)
    assert not np.array_equal(first.history["train/loss"].values, second.history["train/loss"].values)


def test_in_another_thread(short):
    """Where Python delivers no signals."""
    results = []

    def work() -> None:
        with jax.numpy_dtype_promotion("standard"):
            results.append(training.train(short))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(120)
    assert results[0].status == "completed"


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = training.trian  # pyright: ignore


def test_a_run_from_a_hugging_face_folder(short, tmp_path):
    config = dataclasses.replace(
        short.model, mlp="swiglu", norm="rmsnorm", qk_norm="per_head", norm_eps=1e-6, num_kv_heads=1
    )
    short = dataclasses.replace(short, model=config)
    source = training.train(short)
    assert source.state is not None
    huggingface.write(tmp_path / "hf", config, source.state.params)
    printed = Console(file=io.StringIO(), width=500)
    on = dataclasses.replace(short, workdir=str(tmp_path / "on"), init_from=str(tmp_path / "hf"))
    went_on = training.train(on, printed)
    assert f"init_from={tmp_path}/hf: holds no vocabulary; its rows are taken as those" in printed.file.getvalue()
    assert went_on.history["eval/loss"].values[0] == pytest.approx(source.history["eval/loss"].values[-1], rel=1e-6)
    assert went_on.status == "completed"
    wrong = dataclasses.replace(short, workdir=str(tmp_path / "no"), init_from=str(tmp_path / "hf"))
    wrong = dataclasses.replace(wrong, model=dataclasses.replace(config, num_layers=2, rope_theta=5e3))
    with pytest.raises(InputError, match=r"give --config.model.num_layers=1 --config.model.rope_theta=10000.0"):
        training.train(wrong)


@pytest.mark.full
def test_wandb_keeps_a_run_offline_and_goes_on_with_it(short, tmp_path):
    short = dataclasses.replace(short, logging=LoggingConfig(every_steps=1, tensorboard=False, wandb_project="trial"))
    environment = os.environ | {"WANDB_MODE": "offline"}
    command = command_line("train", short, tmp_path)
    for _ in range(2):
        done = forked.run(command, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    folders = sorted(Path(short.workdir, "wandb").glob("offline-run-*"))
    name = Path(short.workdir, "wandb_id").read_text()
    assert len(folders) == 2
    assert all(folder.name.endswith(name) for folder in folders)
    content = b"".join(path.read_bytes() for path in folders[0].glob("*.wandb"))
    for word in (b"train/loss", b"eval/loss", b"trial", b"learning_rate", json.dumps(short.num_train_steps).encode()):
        assert word in content
    last = [line for line in read_metrics(short.workdir) if "train/loss" in line][-1]
    assert repr(last["train/loss"]).encode() in content


def test_wandb_that_is_not_there(short, monkeypatch):
    short = dataclasses.replace(short, logging=LoggingConfig(every_steps=1, tensorboard=False, wandb_project="trial"))
    real = importlib.import_module
    monkeypatch.setattr(
        "importlib.import_module", lambda name: real(name) if name != "wandb" else real("nothing_of_that_name")
    )
    with pytest.raises(InputError, match=r"wandb is not installed; pip install 'jaxopt_lm\[wandb\]'"):
        training.train(short)


def test_a_second_ctrl_c_ends_the_process_at_once(short, tmp_path):
    """Without a traceback."""
    command = command_line("train", dataclasses.replace(short, num_train_steps=10**6), tmp_path)
    lines = Path(short.workdir, "metrics.jsonl")
    with forked.Popen(command) as process:
        while process.poll() is None and not (lines.exists() and lines.read_text().count("\n") > 2):
            time.sleep(0.01)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")


def test_a_signal_while_tokens_are_prepared_ends_the_child_too(short, tmp_path):
    corpus = tmp_path / "a.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in paragraphs(0, 9000)))
    data = DataConfig(task="text", files=str(corpus), vocab_size=4096, tokens_dir=str(tmp_path / "mine"))
    config = dataclasses.replace(short, data=data, model=dataclasses.replace(short.model, vocab_size=4096))
    command = command_line("train", config, tmp_path)
    with forked.Popen(command) as process:
        while not (tmp_path / "mine" / ".lock").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "")
    probe = f"import fcntl; fcntl.flock(open({str(tmp_path / 'mine' / '.lock')!r}), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    subprocess.run([sys.executable, "-c", probe], check=True)  # nobody holds it any more
