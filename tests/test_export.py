"""Runs written as Hugging Face folders: the parameters are the checkpoint's, those that the run evaluates."""

import dataclasses
import io
import json
import re
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from rich.console import Console

from jaxopt_lm.config import CheckpointConfig
from jaxopt_lm.config_io import load
from jaxopt_lm.data.tokens import VOCABULARY, Manifest
from jaxopt_lm.errors import InputError
from jaxopt_lm.export import ExportConfig, export
from jaxopt_lm.files import sha256_of_file
from jaxopt_lm.model import huggingface
from jaxopt_lm.model.huggingface.classes import why_not_exported
from jaxopt_lm.optimizers import ScheduleFreeAdamWConfig, eval_params
from jaxopt_lm.training.run import train
from jaxopt_lm.training.saved_run import read_run
from tests.conftest import write_tokens
from tests.test_command_lines import assert_one_line, run
from tests.vocabularies import trained as trained_vocabulary
from tests.write_config_dumps import ROOT

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    return trained_vocabulary()


@pytest.fixture
def qwen3(tiny, tmp_path, vocabulary):
    """A run of 8 steps of a small Qwen3, on tokens with a vocabulary."""
    folder = write_tokens(tmp_path / "tokens")
    (folder / VOCABULARY).write_bytes(vocabulary)
    manifest = Manifest.read(folder)
    dataclasses.replace(manifest, vocabulary_sha256=sha256_of_file(folder / VOCABULARY)).write(folder)
    shape = {"mlp": "swiglu", "norm": "rmsnorm", "qk_norm": "per_head", "num_kv_heads": 1, "head_dim": 12}
    return dataclasses.replace(
        tiny,
        model=dataclasses.replace(tiny.model, num_layers=2, scan_layers=True, **shape),
        data=dataclasses.replace(tiny.data, tokens_dir=str(folder)),
        checkpoint=CheckpointConfig(every_steps=4),
        num_train_steps=8,
    )


def trained(config):
    assert train(config, Console(file=io.StringIO())).status == "completed"
    return config


def exported(config, out: Path, **options) -> str:
    return export(ExportConfig(workdir=config.workdir, out=str(out), **options))


def test_a_run_is_exported_with_its_vocabulary(qwen3, tmp_path, vocabulary):
    config, out = trained(qwen3), tmp_path / "out"
    line = exported(config, out)
    count = 2 * 64 * 16 + 16 + 2 * (16 * 12 * (2 + 1 + 1 + 2) + 2 * 12 + 3 * 16 * 32 + 2 * 16)
    assert line == f"Qwen3ForCausalLM, {count:,} parameters, step 8: {out}"
    saved = read_run(config.workdir)
    chex.assert_trees_all_equal(huggingface.read_params(out, config.model), jax.device_get(saved.state.params))
    fields = json.loads((out / "config.json").read_text())
    assert (fields["eos_token_id"], fields["pad_token_id"], fields["max_position_embeddings"]) == (1, 0, config.length)
    assert max(fields["eos_token_id"], fields["pad_token_id"]) < fields["vocab_size"]
    assert (out / "tokenizer.model").read_bytes() == vocabulary
    assert len(json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]) == 18
    assert json.loads((out / "tokenizer_config.json").read_text())["eos_token"] == "</s>"
    assert exported(config, tmp_path / "early", step=4).endswith(f"step 4: {tmp_path}/early")
    early = huggingface.read_params(tmp_path / "early", config.model)
    chex.assert_trees_all_equal(early, jax.device_get(read_run(config.workdir, 4).state.params))
    assert not np.array_equal(early["embed"], saved.state.params["embed"])


def test_schedule_free_exports_what_it_evaluates(qwen3, tmp_path):
    config = trained(dataclasses.replace(qwen3, optimizer=ScheduleFreeAdamWConfig()))
    exported(config, tmp_path / "out")
    state = read_run(config.workdir).state
    found = huggingface.read_params(tmp_path / "out", config.model)
    chex.assert_trees_all_equal(found, jax.device_get(eval_params(state.opt_state, state.params)))
    assert not np.array_equal(found["embed"], state.params["embed"])


def test_tokens_that_are_gone_or_damaged(qwen3, tmp_path):
    config = trained(qwen3)
    path = Path(config.data.tokens_dir, VOCABULARY)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"sentencepiece.model: is damaged, its SHA-256 is not the manifest's"):
        exported(config, tmp_path / "out")
    manifest = Manifest.read(path.parent)
    path.write_bytes(b"none")
    dataclasses.replace(manifest, vocabulary_sha256=sha256_of_file(path)).write(path.parent)
    with pytest.raises(InputError, match="not the tokens that the run was trained on; put them back"):
        exported(config, tmp_path / "out")
    again = trained(dataclasses.replace(config, workdir=str(tmp_path / "again")))
    with pytest.raises(InputError, match="not a SentencePiece model"):
        exported(again, tmp_path / "out")
    assert ", step 8: " in exported(again, tmp_path / "left_out", tokenizer=False)
    path.unlink()
    line = exported(config, tmp_path / "out")
    assert f"step 8, without a tokenizer, for {config.data.tokens_dir} has no vocabulary: " in line
    for out in (tmp_path / "left_out", tmp_path / "out"):
        assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
        assert json.loads((out / "config.json").read_text())["eos_token_id"] is None


def test_the_command_line_and_what_it_refuses(qwen3, tmp_path):
    config, out = trained(dataclasses.replace(qwen3, num_train_steps=6)), tmp_path / "out"
    command = ("-m", "jaxopt_lm.export", f"--workdir={config.workdir}", f"--out={out}")
    done = run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"step 6: {out}\n")
    assert done.stdout.count("\n") == 1
    assert_one_line(run(*command), f"{out}: holds config.json", "give a folder that is empty")
    with pytest.raises(InputError, match=r"step=5: .* give one of these"):
        exported(config, tmp_path / "new", step=5)
    with pytest.raises(InputError, match="is not the folder of a run"):
        export(ExportConfig(workdir=str(tmp_path), out=str(tmp_path / "new")))
    path = Path(config.workdir, "config.json")
    path.write_text(path.read_text().replace('"per_head"', '"full"'))
    with pytest.raises(InputError, match=r"model\.qk_norm=full: no published class computes it"):
        exported(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_run_begins_only_from_a_folder_of_its_tokens_vocabulary(qwen3, tmp_path):
    config, out = trained(dataclasses.replace(qwen3, num_train_steps=6)), tmp_path / "out"
    exported(config, out)
    again = dataclasses.replace(config, init_from=str(out), workdir=str(tmp_path / "again"))
    printed = Console(file=io.StringIO(), width=500)
    assert train(again, printed).status == "completed"
    assert "vocabulary" not in printed.file.getvalue()
    other = dataclasses.replace(again, workdir=str(tmp_path / "other"))

    def refused(part: str) -> None:
        with pytest.raises(InputError, match=part):
            train(other, Console(file=io.StringIO()))
        assert not any(Path(other.workdir).glob("checkpoints/*"))

    (out / "tokenizer.model").write_bytes(trained_vocabulary(["a house", "the houses of a street"] * 20, 15))
    refused(r"out/tokenizer\.model: id \d+ is '.+', in .*/sentencepiece\.model it is '.+': rows of one vocabulary")
    (out / "tokenizer.model").unlink()
    (out / "tokenizer.json").unlink()
    fields = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(fields | {"eos_token_id": [3, 4]}))
    refused(
        r"config\.json: eos_token_id=\[3, 4\], but .*/sentencepiece\.model ends a sequence by 1: another vocabulary"
    )


def test_training_says_first_that_a_run_cannot_be_exported(tiny):
    """Before tokens are looked for; the words are export's."""
    printed = Console(file=io.StringIO(), width=500)
    config = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, qk_norm="full"), num_train_steps=6)
    train(config, printed)
    reason = why_not_exported(config.model)
    assert reason is not None
    assert printed.file.getvalue().startswith(f"not exportable: {reason}\n")
    with pytest.raises(InputError, match=re.escape(reason)):
        export(ExportConfig(workdir=config.workdir, out="never"))


def test_ones_own_text_trains_an_exportable_model(qwen3):
    assert why_not_exported(load(f"{ROOT}/configs/text.py:files=texts").model) is None
    assert why_not_exported(qwen3.model) is None
    assert "qk_norm=full" in str(why_not_exported(load(f"{ROOT}/configs/quickstart.py").model))
