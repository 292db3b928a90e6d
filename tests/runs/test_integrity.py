"""Damaged checkpoints are found, moved aside, and the one before is used; a full disk costs nothing that was saved."""

import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxopt_lm import processes
from jaxopt_lm.config import CheckpointConfig
from jaxopt_lm.errors import InputError
from jaxopt_lm.runs import integrity
from jaxopt_lm.runs.read import saved_steps
from jaxopt_lm.training import saved_run
from jaxopt_lm.training.saved_run import read_run
from tests import forked
from tests.conftest import command_line, timeless, write_tokens
from tests.corrupt import KINDS, corrupt, corruptible, main
from tests.training.test_run import checkpoints, quiet_train

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture
def short(tiny):
    return dataclasses.replace(tiny, num_train_steps=12, checkpoint=CheckpointConfig(every_steps=4, keep_last=3))


def test_every_file_of_a_checkpoint_is_covered(short):
    quiet_train(short)
    for step in checkpoints(short):
        folder = Path(short.workdir, "checkpoints", str(step))
        assert integrity.damage(folder) is None
        known = set(integrity.read_sidecar(folder))
        assert known == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {
            integrity.SIDECAR
        }


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_newest_checkpoint_is_moved_aside_and_the_one_before_is_used(short, kind):
    quiet_train(short)
    whole, newest = timeless(short.workdir), Path(short.workdir, "checkpoints", "12")
    corrupt(random.Random(3).choice(corruptible(newest)), kind, random.Random(4))
    with pytest.raises(InputError, match=r"checkpoints/12: .*; give --step=8"):
        read_run(short.workdir)
    assert read_run(short.workdir, 8).step == 8
    _, output = quiet_train(short)
    moved = Path(short.workdir, "damaged", "12.1")
    assert f"warning: checkpoint 12 of {short.workdir}: " in output
    assert f"moved to {moved}" in output
    assert f"resuming {short.workdir} from step 8" in output
    assert moved.is_dir()
    assert timeless(short.workdir) == whole
    assert checkpoints(short) == [4, 8, 12]


def test_without_a_sound_checkpoint_training_begins_anew(short):
    quiet_train(short)
    whole = timeless(short.workdir)
    for step in checkpoints(short):
        (Path(short.workdir, "checkpoints", str(step)) / integrity.SIDECAR).unlink()
    with pytest.raises(InputError, match="no older one is whole"):
        read_run(short.workdir)
    _, output = quiet_train(short)
    assert output.count("warning: checkpoint ") == 3
    assert "checksums.json is missing: the save was cut short" in output
    assert "no sound checkpoint is left; starting from step 0" in output
    assert timeless(short.workdir) == whole


def test_a_second_damage_of_the_same_step_is_kept_beside_the_first(short):
    quiet_train(short)
    for number in (1, 2):
        shutil.rmtree(Path(short.workdir, "checkpoints", "12", "state"))
        quiet_train(short)
        assert Path(short.workdir, "damaged", f"12.{number}").is_dir()


def test_a_checkpoint_deleted_while_it_is_read(short, monkeypatch):
    """By the run, which goes on: the newest is read in its place; one that was asked for is missed in one line."""
    quiet_train(short)
    real, gone = saved_run.read_checkpoint, []

    def deleted(folder, step, *rest):
        shutil.rmtree(folder / str(step))
        gone.append(step)
        monkeypatch.setattr(saved_run, "read_checkpoint", real)
        return real(folder, step, *rest)

    monkeypatch.setattr(saved_run, "read_checkpoint", deleted)
    assert (read_run(short.workdir).step, gone) == (8, [12])
    monkeypatch.setattr(saved_run, "read_checkpoint", deleted)
    with pytest.raises(InputError, match=r"step=8: .*checkpoints has 4; give one of these"):
        read_run(short.workdir, 8)


def test_checkpoints_without_their_config_are_not_gone_on_with(short):
    quiet_train(short)
    Path(short.workdir, "config.json").unlink()
    with pytest.raises(InputError, match=r"config.json: no such file"):
        quiet_train(dataclasses.replace(short, seed=7))


def test_names_that_are_no_steps_of_ours_are_left_alone(short):
    """Of `0004` only the number is that of a checkpoint; it is neither taken for `4` nor moved as damaged."""
    quiet_train(short)
    shutil.rmtree(Path(short.workdir, "checkpoints", "12"))
    foreign = [Path(short.workdir, "checkpoints", name) for name in ("0004", "0012", "٢٠", "1_6", "+8", "latest")]
    for folder in foreign:
        folder.mkdir()
    assert saved_steps(Path(short.workdir, "checkpoints")) == [4, 8]
    assert read_run(short.workdir).step == 8
    _, output = quiet_train(short)
    assert f"resuming {short.workdir} from step 8" in output
    assert "warning" not in output
    assert all(folder.is_dir() for folder in foreign)
    assert saved_steps(Path(short.workdir, "checkpoints")) == [4, 8, 12]


@pytest.mark.parametrize(
    "line",
    [
        '{"step": Infinity}',
        "[1]",
        pytest.param('{"step": 12, "loss": "x"}', marks=pytest.mark.full),
        pytest.param('{"step": 1, "a": null}', marks=pytest.mark.full),
        pytest.param('{"step": 12.5}', marks=pytest.mark.full),
    ],
)
def test_damaged_lines_of_metrics(short, line):
    quiet_train(short)
    with open(Path(short.workdir, "metrics.jsonl"), "a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"line \d+ is not a line of metrics; remove it"):
        quiet_train(short)


def test_reading_a_run_that_is_not_there(short, tmp_path):
    with pytest.raises(InputError, match=r"config.json: no such file"):
        read_run(tmp_path)
    quiet_train(short)
    with pytest.raises(InputError, match=r"step=5: .* has 4, 8, 12; give one of these"):
        read_run(short.workdir, 5)
    shutil.rmtree(Path(short.workdir, "checkpoints"))
    with pytest.raises(InputError, match="holds no checkpoint; train it first"):
        read_run(short.workdir)


def test_random_corruptions_are_all_reported(tmp_path, full, capsys):
    """A fixed slice of what `python -m tests.corrupt` prints, a hundred with --full."""
    count = 100 if full else 6
    assert main(["--count", str(count), "--folder", str(tmp_path)]) == 0
    assert f"{count} of {count} reported" in capsys.readouterr().out


def test_a_process_that_is_not_the_first_verifies_its_own_tokens(short, tmp_path, monkeypatch):
    """Every shard of the training tokens overwritten with 7, of the same size."""
    folder = write_tokens(tmp_path / "own")
    shard = folder / "train-00000.bin"
    shard.write_bytes(np.full(shard.stat().st_size // 2, 7, "<u2").tobytes())
    monkeypatch.setattr(processes, "is_primary", lambda: False)
    with pytest.raises(InputError, match=r"own/train-00000.bin: damaged, its SHA-256 is"):
        quiet_train(dataclasses.replace(short, data=dataclasses.replace(short.data, tokens_dir=str(folder))))


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (lambda tokens, step: ["0" * 64, step], "holds other tokens here than in process 1; give every process"),
        (lambda tokens, step: [tokens, 4], "its newest checkpoint is None here, 4 in process 1; give a folder that"),
    ],
    ids=["tokens", "checkpoints"],
)
def test_processes_that_see_other_files_are_refused(short, monkeypatch, theirs, message):
    def gather(text):
        return [text, json.dumps(theirs(*json.loads(text)))] if text.startswith("[") else [text]

    monkeypatch.setattr(processes, "gather", gather)
    with pytest.raises(InputError, match=message):
        quiet_train(short)


@pytest.mark.parametrize("kib", [3, pytest.param(30, marks=pytest.mark.full)])
def test_a_full_disk_while_saving(short, tmp_path, kib):
    """One line, exit code 2; the last good checkpoint stays and the run goes on from it."""
    wide = dataclasses.replace(short.model, embed_dim=64, mlp_dim=256)
    short = dataclasses.replace(short, model=wide, logging=dataclasses.replace(short.logging, every_steps=4))
    straight = dataclasses.replace(short, workdir=str(tmp_path / "straight"))
    quiet_train(straight)
    quiet_train(short)
    for step in (8, 12):
        shutil.rmtree(Path(short.workdir, "checkpoints", str(step)))
    command = command_line("train", short, tmp_path)
    done = forked.run(command, file_kib=kib)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "cannot be written: File too large; " in done.stderr
    assert "make room there and run the same command again" in done.stderr
    assert integrity.damage(Path(short.workdir, "checkpoints", "4")) is None
    again = forked.run(command, check=True)
    assert "from step 4" in again.stdout
    assert timeless(short.workdir) == timeless(straight.workdir)


def test_nothing_is_unpickled():
    """No module of ours names a way to load pickled objects."""
    package = Path(integrity.__file__).parents[1]
    for path in package.rglob("*.py"):
        source = path.read_text()
        for word in (
            "import pickle",
            "allow_pickle",
            "torch.load",
            "joblib",
            "cloudpickle",
            "np.load",
            "marshal",
            "shelve",
        ):
            assert word not in source, path
