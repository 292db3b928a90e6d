"""From files to tokens in this process: what is read, what is said of the rest, and what is kept of it."""

import dataclasses
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxopt_lm.data import prepare as preparing
from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.data.files import Corpus
from jaxopt_lm.data.find import Files, find, listed
from jaxopt_lm.data.tokens import Manifest
from jaxopt_lm.errors import InputError
from tests.data.corpora import paragraphs


@pytest.fixture
def config(tmp_path):
    """796 documents in two files, and what else may stand in the folder; nothing is prepared yet."""
    corpus = tmp_path / "corpus"
    (corpus / ".ipynb_checkpoints").mkdir(parents=True)
    texts = [text[:200] for text in paragraphs(0, 796)]
    first, second = ("".join(json.dumps({"text": t}) + "\n" for t in part) for part in (texts[:400], texts[400:]))
    (corpus / "a.jsonl").write_text(first)
    (corpus / ".ipynb_checkpoints" / "a-checkpoint.jsonl").write_text(first)
    (corpus / "b.jsonl.zst").write_bytes(pa.compress(second.encode(), codec="zstd", asbytes=True))
    (corpus / "notes.pdf").touch()
    pq.write_table(pa.table({"text": pa.array([None] * 5, pa.string())}), corpus / "c.parquet")
    return TokensConfig(
        task="text", files=str(corpus), vocab_size=400, validation_fraction=0.1, tokens_dir=str(tmp_path / "tokens")
    )


def test_every_document_once_and_a_line_on_what_is_not_read(config):
    said: list[str] = []
    manifest = preparing.prepare(config, say=said.append)
    assert said == [f"data.files={config.files}: left out: .ipynb_checkpoints (hidden), notes.pdf"]
    assert sum(split.num_documents for split in manifest.splits.values()) == 796
    found = Corpus(config.files).files
    assert list(found.paths) == ["a.jsonl", "b.jsonl.zst", "c.parquet"]
    assert Manifest.read(Path(config.tokens_dir)).text == manifest.text == found.sums()
    os.rename(config.files, f"{config.files}_moved")
    moved = dataclasses.replace(config, files=f"{config.files}_moved/*")
    assert preparing.prepare(moved, say=said.append) == manifest
    assert len(said) == 1


def test_a_vocabulary_is_trained_on_every_file(tmp_path):
    """As much of each, and all of the small ones: not the first files alone, until there is enough."""
    from jaxopt_lm.data.sources import TextFiles

    sizes = {"a.txt": 900, "b.jsonl": 5000, "c.txt": 40, "d.txt": 3000}
    for name, size in sizes.items():
        paragraphs = [name[0] * 19] * (size // 20)
        lines = [json.dumps({"text": text}) for text in paragraphs] if name == "b.jsonl" else paragraphs
        (tmp_path / name).write_text(("\n" if name == "b.jsonl" else "\n\n").join(lines))
    source = TextFiles(Corpus(str(tmp_path)), 1e-9)
    taken = "".join("".join(source.beginnings(1000, 256)).split())
    assert {name: taken.count(name[0]) for name in sizes} == pytest.approx(
        {"a.txt": 305, "b.jsonl": 320, "c.txt": 38, "d.txt": 305}, abs=20
    )
    assert taken == "".join(sorted(taken))  # in their order
    everything = [text for piece in source.pieces for text in source.corpus.texts(piece)]
    assert list(source.beginnings(10**6, 256)) == everything


def test_a_preparation_goes_on_with_the_same_text_wherever_it_is(tmp_path, monkeypatch):
    """Another time of change alone is no other text; its bytes are read again only then."""
    texts, folder = tmp_path / "texts", tmp_path / "tokens"
    for path in (texts, folder / ".parts"):
        path.mkdir(parents=True)
    (texts / "a.txt").write_text("one")
    begun = TokensConfig(task="text", files=str(texts), tokens_dir=str(folder))
    text = preparing._agree(begun, folder, find(str(texts), (".txt",)), None)
    assert text == find(str(texts), (".txt",)).sums()

    def agree(**changed):
        config = dataclasses.replace(begun, **changed)
        return preparing._agree(config, folder, find(config.files, (".txt",)), None)

    with monkeypatch.context() as patched:
        patched.setattr(Files, "sums", lambda _: pytest.fail("read again"))
        assert agree() == agree(files=f"{texts}/../texts/*.txt") == text
    os.utime(texts / "a.txt", (1, 1))
    assert agree() == text
    os.rename(texts, tmp_path / "moved")
    assert agree(files=str(tmp_path / "moved")) == text
    other = "its preparation was begun with other text, vocabulary or settings; delete it and begin anew"
    with pytest.raises(InputError, match=other):
        agree(files=str(tmp_path / "moved"), vocab_size=500)
    (tmp_path / "moved" / "a.txt").write_text("two")
    with pytest.raises(InputError, match=other):
        agree(files=str(tmp_path / "moved"))


def test_equal_files_are_named(tmp_path):
    for name in ("a.txt", "b.txt", "copy/a.txt", "copy/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name.startswith("b") else name[-5])
    (tmp_path / "empty.txt").touch()
    found, config = find(str(tmp_path), (".txt",)), TokensConfig(task="text", files="corpus")
    lines = list(preparing._surprises(config, found, found.sums()))
    assert lines == ["data.files=corpus: read more than once: copy/a.txt (equals a.txt)"]


def test_a_name_that_no_terminal_can_print():
    assert listed("left out: ", [f"{i}\udcff" for i in range(10)], 2) == "left out: 0\\udcff, 1\\udcff and 8 more"
