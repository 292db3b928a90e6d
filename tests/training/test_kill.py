"""A run killed at random moments is, in the end, the run that was never killed: bit by bit, line by line."""

import dataclasses
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import chex
import jax
import pytest

from jaxopt_lm.config import CheckpointConfig, EvalConfig, TrainConfig
from jaxopt_lm.training import sharding
from jaxopt_lm.training.checkpoints import Checkpoints
from jaxopt_lm.training.run import read_metrics
from jaxopt_lm.training.step import HParams, init_state
from tests.conftest import command_line, timeless, write_tokens

STEPS = 60


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    """60 steps of about 40 ms, with 12 MB of state that takes a while to save."""
    from tests.conftest import TINY_MODEL

    folder = tmp_path_factory.mktemp("kill")
    tokens = write_tokens(folder / "tokens", vocab_size=4096, num_train=100_000, num_validation=10_000)
    model = dataclasses.replace(
        TINY_MODEL, vocab_size=4096, num_layers=2, embed_dim=128, num_heads=2, num_kv_heads=2, mlp_dim=64
    )
    base = TrainConfig(workdir=str(folder / "straight"), model=model, num_train_steps=STEPS)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, tokens_dir=str(tokens)),
        eval=EvalConfig(every_steps=15, batch_size=8, max_batches=2),
        checkpoint=CheckpointConfig(every_steps=3),
        logging=dataclasses.replace(base.logging, every_steps=2, tensorboard=False),
        global_batch_size=8,
        length=32,
    )


def final_state(config: TrainConfig):
    shapes = jax.eval_shape(lambda: init_state(config.model, HParams.of(config), jax.random.key(0)))
    with Checkpoints(Path(config.workdir, "checkpoints"), config.checkpoint) as checkpoints:
        assert checkpoints.latest_step == config.num_train_steps
        where = sharding.replicated(sharding.make_mesh(config.mesh))
        return checkpoints.restore(config.num_train_steps, shapes, where)


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    command = command_line("train", config, tmp_path_factory.mktemp("straight"))
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return final_state(config), timeless(config.workdir)


def check_equal(config, straight):
    (state, meta), lines = straight
    killed_state, killed_meta = final_state(config)
    chex.assert_trees_all_equal(killed_state, state)
    assert killed_meta == meta
    assert timeless(config.workdir) == lines


def last_line(workdir: str) -> int:
    return max((line["step"] for line in read_metrics(workdir)), default=-1)


def unfinished_saves(workdir: str) -> list[str]:
    folder = Path(workdir, "checkpoints")
    return [name for name in os.listdir(folder) if "tmp" in name] if folder.exists() else []


@pytest.mark.usefixtures("standard_promotion")
def test_kill_nine(config, straight, tmp_path, full, capsys):
    """Ten kills (three without --full), at least two of them while a checkpoint is being written."""
    kills, rng = 10 if full else 3, random.Random(0)
    config = dataclasses.replace(config, workdir=str(tmp_path / "killed"))
    command = command_line("train", config, tmp_path)
    inside_a_write = 0
    for kill in range(kills):
        goal = (kill + rng.random()) * (STEPS - 6) / kills
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while last_line(config.workdir) < goal and process.poll() is None:
                time.sleep(0.001)
            if kill % 2:
                time.sleep(rng.random() * 0.1)
            else:
                before = set(unfinished_saves(config.workdir))  # left by earlier kills
                while set(unfinished_saves(config.workdir)) <= before and process.poll() is None:
                    time.sleep(0.0005)
            process.kill()
            assert process.wait() == -signal.SIGKILL, process.stderr.read().decode() if process.stderr else ""
        inside_a_write += bool(unfinished_saves(config.workdir))
    assert inside_a_write >= 2
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    check_equal(config, straight)
    with capsys.disabled():
        print(f"\n{kills} kills, {inside_a_write} of them inside a checkpoint's write")


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_the_same_command_goes_on(config, straight, tmp_path, number, code):
    config = dataclasses.replace(config, workdir=str(tmp_path / "run"))
    config = dataclasses.replace(config, checkpoint=CheckpointConfig(every_steps=1000))
    command = command_line("train", config, tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while last_line(config.workdir) < 10 and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    saved = int(os.listdir(Path(config.workdir, "checkpoints"))[0])
    assert f"stopped at step {saved}; the same command goes on from there" in output
    assert last_line(config.workdir) == saved < STEPS
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    assert f"from step {saved}" in done.stdout
    (state, meta), lines = straight
    chex.assert_trees_all_equal(final_state(config), (state, meta))
    assert [line for line in timeless(config.workdir) if line["step"] % 2 == 0 or line["step"] == 15] == [
        line for line in lines if line["step"] % 2 == 0 or line["step"] == 15
    ]
