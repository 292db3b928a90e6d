"""Preparing tokens: bad input is one line."""

import gzip
import random
import sys
from pathlib import Path

import pytest

from jaxopt_lm import prepare as prepare_command
from tests.data.test_tasks import run_prepare


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task=c5", "--tokens_dir={out}"], "c5"),
        (["--vocab_size=12", "--tokens_dir={out}"], "error: vocab_size=12: must be at least 300"),
        (["--tokens_dir={file}/x"], "Not a directory"),
        (["--tokens_dir={file}"], "is a file, must be a folder"),
        (["--tokens_dir="], "error: tokens_dir='': must be a path"),
        (["--tokens_dir=."], "is the working directory; give a folder for the tokens alone"),
        (["--tokens_dir={out}", "--vocab_size=many"], "many"),
        (["--task=c4", "--files={out}", "--tokens_dir={out}"], "holds no c4/en/3.0.1/dataset_info.json"),
        (["--task=text", "--files={out}", "--tokens_dir={out}"], "no file there ends in .txt, .jsonl, .parquet"),
        (["--task=fineweb", "--files={file}", "--tokens_dir={out}"], "must end in .parquet"),
        (["--vocabulary={file}", "--tokens_dir={out}"], "not a SentencePiece model; give another file"),
        (["--vocabulary={out}/none", "--tokens_dir={out}"], "none: no such file; give a SentencePiece model"),
        (["--vocabulary={file}", f"--vocabulary_sha256={'0' * 64}", "--tokens_dir={out}"], "its SHA-256 is e3b"),
        (["--vocabulary={vocabulary}", "--vocab_size=401", "--tokens_dir={out}"], "set data.vocab_size=400"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message, vocabulary, monkeypatch, capfd):
    """Of the command line, called in this process, before it imports TensorFlow."""
    monkeypatch.setattr(sys, "argv", ["prepare", *filled(arguments, tmp_path, vocabulary)])
    assert prepare_command.main() == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def filled(arguments: list[str], folder: Path, vocabulary: Path) -> list[str]:
    """The arguments, with files that are wrong in place of their names."""
    names = {
        "out": folder / "out",
        "file": folder / "file",
        "bad": folder / "bad.jsonl",
        "one": folder / "one.txt",
        "empty": folder / "empty.txt",
        "gz": folder / "torn.txt.gz",
    }
    names["empty"].write_text("")
    whole = gzip.compress(random.Random(0).randbytes(300).hex().encode())
    names["gz"].write_bytes(whole[:100] + bytes(100) + whole[200:])
    names["file"].write_text("")
    names["bad"].write_text('{"text": "a"}\n{"text": 3}\n')
    names["one"].write_text("a single paragraph\n")
    return [argument.format(vocabulary=vocabulary, **names) for argument in arguments]


SMALL = ["--task=text", "--vocabulary={vocabulary}", "--vocab_size=400", "--tokens_dir={out}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens_dir={file}"], "is a file, must be a folder"),
        (["--task=text", "--files={gz}", "--vocab_size=300", "--tokens_dir={out}"], "torn.txt.gz: cannot be read: "),
        pytest.param(
            *(["--task=text", "--files={bad}", "--vocab_size=300", "--tokens_dir={out}"], "the line at byte 14 is"),
            marks=pytest.mark.full,
        ),
        pytest.param(*([*SMALL, "--files={empty}"], "its files hold no text; give others"), marks=pytest.mark.full),
        ([*SMALL, "--files={bad}"], "the line at byte 14 is"),
        pytest.param(*([*SMALL, "--files={one}"], "validation: the split has no tokens"), marks=pytest.mark.full),
    ],
    ids=["before TensorFlow", "for a vocabulary", "damaged", "no text", "in TensorFlow", "no validation"],
)
def test_a_process_of_its_own_prints_that_line_alone_too(tmp_path, arguments, message, vocabulary):
    """What TensorFlow prints by itself would be on stderr."""
    done = run_prepare(*filled(arguments, tmp_path, vocabulary))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
