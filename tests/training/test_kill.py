"""A run killed at random moments is, in the end, the run that was never killed: bit by bit, line by line."""

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import chex
import pytest

from jaxopt_lm.config import CheckpointConfig, EvalConfig, TrainConfig
from jaxopt_lm.runs.checkpoints import Checkpoints
from jaxopt_lm.runs.read import read_metrics
from jaxopt_lm.training.program import Program
from tests import forked
from tests.conftest import command_line, timeless, write_tokens


@pytest.fixture(scope="module")
def config(tmp_path_factory, full) -> TrainConfig:
    """60 steps (30 without --full) of about 40 ms, with 12 MB of state that takes a while to save."""
    from tests.conftest import TINY_MODEL

    folder = tmp_path_factory.mktemp("kill")
    tokens = write_tokens(folder / "tokens", vocab_size=4096, num_train=100_000, num_validation=10_000)
    model = dataclasses.replace(
        TINY_MODEL, vocab_size=4096, num_layers=1, embed_dim=128, num_heads=2, num_kv_heads=2, mlp_dim=64
    )
    base = TrainConfig(workdir=str(folder / "straight"), model=model, num_train_steps=60 if full else 30)
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
    layout = Program.of(config).layout
    with Checkpoints(Path(config.workdir, "checkpoints"), config.checkpoint) as checkpoints:
        assert checkpoints.latest_step == config.num_train_steps
        return checkpoints.restore(config.num_train_steps, layout)


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


def unfinished_saves(workdir: str) -> set[tuple[str, int]]:
    """Temporary folders of saves, each with its inode: the same step may be tried again under the same name."""
    found = set()
    for path in Path(workdir, "checkpoints").glob("*tmp*"):
        with contextlib.suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_ino))
    return found


def kill_once(command: list[str], workdir: str, goal: float, inside: bool, rng: random.Random) -> bool:
    """Runs until line `goal` is there and, if `inside`, a save has begun; kills. Whether that cut a save short."""
    with forked.Popen(command) as process:
        while last_line(workdir) < goal and process.poll() is None:
            time.sleep(0.001)
        before = unfinished_saves(workdir)  # left by earlier kills
        if inside:
            while unfinished_saves(workdir) <= before and process.poll() is None:
                time.sleep(0.0005)
        else:
            time.sleep(rng.random() * 0.1)
        process.kill()
        assert process.wait() == -signal.SIGKILL, process.communicate()
    return not unfinished_saves(workdir) <= before


@pytest.mark.usefixtures("standard_promotion")
def test_kill_nine(config, straight, tmp_path, full, capsys):
    """Ten kills (three without --full), or more until two of them have cut a checkpoint's write short."""
    rng, most, cut_short = random.Random(0), 14, []
    config = dataclasses.replace(config, workdir=str(tmp_path / "killed"))
    command = command_line("train", config, tmp_path)
    while len(cut_short) < (10 if full else 3) or sum(cut_short) < 2:
        kill = len(cut_short)
        assert kill < most, cut_short
        goal = (kill + rng.random()) * (config.num_train_steps - 6) / most
        cut_short.append(kill_once(command, config.workdir, goal, kill % 2 == 0, rng))
    forked.run(command, check=True)
    check_equal(config, straight)
    with capsys.disabled():
        print(f"\n{len(cut_short)} kills, {sum(cut_short)} of them inside a checkpoint's write")


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.full), (signal.SIGTERM, 143)]
)
def test_signals_save_and_the_same_command_goes_on(config, straight, tmp_path, number, code):
    config = dataclasses.replace(config, workdir=str(tmp_path / "run"))
    config = dataclasses.replace(config, checkpoint=CheckpointConfig(every_steps=1000))
    command = command_line("train", config, tmp_path)
    with forked.Popen(command) as process:
        while last_line(config.workdir) < 6 and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    saved = int(os.listdir(Path(config.workdir, "checkpoints"))[0])
    assert f"stopped at step {saved}; the same command goes on from there" in output
    assert last_line(config.workdir) == saved < config.num_train_steps
    done = forked.run(command, check=True)
    assert f"from step {saved}" in done.stdout
    (state, meta), lines = straight
    chex.assert_trees_all_equal(final_state(config), (state, meta))
    assert [line for line in timeless(config.workdir) if line["step"] % 2 == 0 or line["step"] == 15] == [
        line for line in lines if line["step"] % 2 == 0 or line["step"] == 15
    ]
