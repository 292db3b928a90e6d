"""Evaluation of a saved run: the numbers of training, tokens of one's choice, and loss by frequency."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxopt_lm import model
from jaxopt_lm.config import CheckpointConfig
from jaxopt_lm.data.tokens import TokenStore
from jaxopt_lm.dumps import to_json
from jaxopt_lm.errors import InputError
from jaxopt_lm.optimizers import OPTIMIZERS, eval_params
from jaxopt_lm.training.evaluation import deciles, evaluate_run
from jaxopt_lm.training.saved_run import read_run
from tests.conftest import write_tokens
from tests.test_command_lines import run
from tests.training.test_run import quiet_train

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture
def short(tiny):
    return dataclasses.replace(tiny, num_train_steps=12, checkpoint=CheckpointConfig(every_steps=4, keep_last=3))


def test_the_numbers_of_training(short):
    result, _ = quiet_train(short)
    found = evaluate_run(short.workdir)
    assert (found.step, found.task, found.split) == (12, "sotu", "validation")
    for name in ("eval/loss", "eval/bits_per_byte", "eval/perplexity"):
        assert found.metrics[name] == pytest.approx(result.metrics[name], rel=1e-6)
    assert evaluate_run(short.workdir, step=4).metrics["eval/loss"] != found.metrics["eval/loss"]
    assert evaluate_run(short.workdir, split="train", max_batches=1).metrics["eval/loss"] > 0


def test_deciles_against_every_target_by_hand(short, tokens_dir):
    """Log-probabilities of each target in NumPy, averaged over the entries that a plain loop puts together."""
    quiet_train(dataclasses.replace(short, optimizer=OPTIMIZERS["schedule_free_adamw"]()))
    found, state = evaluate_run(short.workdir), read_run(short.workdir).state
    params = eval_params(state.opt_state, state.params)
    validation = TokenStore(tokens_dir, "validation")
    windows = np.stack([validation.read(i * 16, 16) for i in range(len(validation) // 16)])
    logits = np.asarray(jax.jit(model.logits, static_argnums=0)(short.model, params, windows), np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_probs[:, :-1], windows[:, 1:, None], -1)[..., 0]
    train = TokenStore(tokens_dir, "train")
    counts = np.bincount(train.read(0, len(train)), minlength=64)
    group, before = {}, 0
    for token in sorted(range(64), key=lambda token: -counts[token]):
        group[token] = min(int(10 * (before + counts[token] / 2) / counts.sum()), 9) if counts[token] else 9
        before += counts[token]
    groups = np.vectorize(group.get)(windows[:, 1:])
    for number, row in enumerate(found.deciles):
        member = groups == number
        assert row.entries == sum(g == number for g in group.values())
        assert row.target_share == pytest.approx(member.mean())
        assert row.train_share == pytest.approx(sum(counts[t] for t, g in group.items() if g == number) / counts.sum())
        assert row.loss == pytest.approx(losses[member].mean(), rel=1e-5)
    assert found.metrics["eval/loss"] == pytest.approx(losses.mean(), rel=1e-6)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=200).filter(any))
def test_deciles_are_ordered_and_even(counts):
    counts = np.asarray(counts)
    groups = deciles(counts)
    assert groups.min() >= 0
    assert groups.max() <= 9
    assert all(groups[counts == 0] == 9)
    order = np.argsort(-counts, kind="stable")
    assert all(np.diff(groups[order]) >= 0)
    mass = np.bincount(groups, counts, minlength=10)
    assert all(abs(np.cumsum(mass) / counts.sum() - np.arange(1, 11) / 10) <= counts.max() / counts.sum() + 1e-9)


def test_other_tokens_and_another_vocabulary(short, tmp_path):
    quiet_train(short)
    other = write_tokens(tmp_path / "other", num_validation=900)
    assert evaluate_run(short.workdir, tokens_dir=str(other)).metrics["eval/loss"] > 0
    foreign = tmp_path / "foreign"
    shutil.copytree(other, foreign)
    vocabulary = foreign / "sentencepiece.model"
    vocabulary.write_bytes(b"another")
    from jaxopt_lm.data.tokens import Manifest
    from jaxopt_lm.files import sha256_of_file

    dataclasses.replace(Manifest.read(foreign), vocabulary_sha256=sha256_of_file(vocabulary)).write(foreign)
    with pytest.raises(InputError, match="its vocabulary is not the run's; prepare it with --vocabulary="):
        evaluate_run(short.workdir, tokens_dir=str(foreign))
    config = dataclasses.replace(short, data=dataclasses.replace(short.data, tokens_dir=str(other)))
    Path(short.workdir, "config.json").write_text(to_json(config))
    with pytest.raises(InputError, match="not the tokens that the run was trained on; put them back"):
        evaluate_run(short.workdir)


def test_the_command_line(short):
    quiet_train(short)
    done = run("-m", "jaxopt_lm.evaluate", f"--workdir={short.workdir}", "--step=8")
    assert done.returncode == 0, done.stderr
    written = Path(short.workdir, "evaluations", "step_8_sotu_validation.json")
    assert f"written to {written}" in done.stdout
    saved = json.loads(written.read_text())
    assert len(saved["deciles"]) == 10
    assert f"{saved['metrics']['eval/loss']:.4f}" in done.stdout
    assert saved["metrics"]["eval/perplexity"] == pytest.approx(math.exp(saved["metrics"]["eval/loss"]))
    for arguments, message in (
        ([f"--workdir={short.workdir}", "--step=7"], "step=7: "),
        ([f"--workdir={short.workdir}/no"], "no such file"),
        ([f"--workdir={short.workdir}", "--tokens_dir=nowhere"], "manifest.json: no such file"),
        ([f"--workdir={short.workdir}", "--max_batches=0"], "eval.max_batches=0: must be at least 1"),
    ):
        done = run("-m", "jaxopt_lm.evaluate", *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert message in done.stderr
