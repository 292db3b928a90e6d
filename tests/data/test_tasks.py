"""From the addresses to tokens, once, through TFDS and seqio, in a process of its own."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from jaxopt_lm.data.prepare import is_prepared, prepare
from jaxopt_lm.data.tokens import Manifest, TokenStore
from jaxopt_lm.errors import InputError


def run_prepare(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "jaxopt_lm.prepare", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sotu") / "tokens"
    done = run_prepare("--task=sotu", "--vocab_size=512", f"--out={folder}")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_progress_is_shown(prepared):
    _, output = prepared
    assert "tokens of train" in output
    assert "tokens of validation" in output


def test_tokens_are_the_text(prepared):
    """Each document is its file in SentencePiece's pieces, and EOS; splits are disjoint and cover the corpus."""
    import sentencepiece

    from jaxopt_lm.data.sotu import speech_files

    folder, _ = prepared
    spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
    assert (spm.pad_id(), spm.eos_id(), spm.unk_id(), spm.bos_id()) == (0, 1, 2, -1)
    manifest = Manifest.read(folder)
    assert manifest.vocab_size == spm.vocab_size() == 512
    assert manifest.vocabulary_sha256 == hashlib.sha256((folder / "sentencepiece.model").read_bytes()).hexdigest()
    texts = {file.name: file.read_text(encoding="utf-8") for file in speech_files()}

    def key(ids: list[int]) -> tuple[int, str]:  # TensorFlow Text breaks ties between equal segmentations its own way
        return len(ids), spm.decode(ids)

    names = {key(spm.encode(text)): name for name, text in texts.items()}
    found = {}
    for split_name, split in manifest.splits.items():
        store = TokenStore(folder, split_name)
        ids = store.read(0, len(store))
        documents = np.split(ids, np.flatnonzero(ids == spm.eos_id()) + 1)
        assert documents.pop().size == 0
        found[split_name] = [names[key(document[:-1].tolist())] for document in documents]
        assert len(documents) == split.num_documents == len(set(found[split_name]))
        assert split.num_bytes == sum(len(texts[name].encode()) for name in found[split_name])
        counts = np.bincount(ids)
        frequencies = counts[counts > 0] / len(ids)
        np.testing.assert_allclose(split.unigram_entropy, -(frequencies * np.log(frequencies)).sum())
    assert sorted(found["train"] + found["validation"]) == sorted(texts)


def test_vocabulary_and_shards_are_deterministic(prepared, tmp_path):
    folder, _ = prepared
    again = tmp_path / "again"
    assert run_prepare("--task=sotu", "--vocab_size=512", f"--out={again}").returncode == 0
    assert Manifest.read(again).digest == Manifest.read(folder).digest


def test_what_is_prepared_is_left_alone(prepared):
    folder, _ = prepared
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert prepare("sotu", folder, 512) == Manifest.read(folder)
    assert before == {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    with pytest.raises(InputError, match="holds task sotu with vocab_size=512, asked for sotu with vocab_size=600"):
        is_prepared(folder, "sotu", 600)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task=c5", "--out={out}"], "error: task 'c5': must be one of sotu"),
        (["--task=sotu", "--vocab_size=12", "--out={out}"], "error: vocab_size=12: must be at least 300"),
        (["--task=sotu", "--out={file}/x"], "Not a directory"),
        (["--task=sotu", "--out={file}"], "is a file, must be a folder"),
        (["--task=sotu"], "--out"),
        (["--task=sotu", "--out="], "is the working directory; give a folder for the tokens alone"),
        (["--task=sotu", "--out={out}", "--vocab_size=many"], "many"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    filled = [argument.format(out=tmp_path / "out", file=tmp_path / "file") for argument in arguments]
    done = run_prepare(*filled)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
