"""Text in files: every document once, whatever the kind, however the corpus is cut, and damage in one clear line."""

import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxopt_lm.data import files
from jaxopt_lm.data.files import Corpus
from jaxopt_lm.errors import InputError
from tests.data.corpora import FINEWEB_FIELDS, write_fineweb

PARAGRAPHS = ["one\ntwo\n", "three ü €\n", "four\n" * 5, "five"]


def texts(address, **options) -> list[str]:
    corpus = Corpus(str(address), **options)
    return [text for piece in corpus.pieces() for text in corpus.texts(piece)]


def test_a_paragraph_is_a_document(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n" + "\n \n\n".join(PARAGRAPHS))
    assert [text.strip() for text in texts(tmp_path)] == [text.strip() for text in PARAGRAPHS]


def test_long_paragraphs_are_cut_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PARAGRAPH_BYTES", 64)
    words = "".join(random.Random(0).choice("aü€\U0001f600 \n") for _ in range(3000)).replace("\n\n", "\n")
    (tmp_path / "a.txt").write_text(words, newline="")
    found = texts(tmp_path)
    assert "".join("".join(found).split()) == "".join(words.split())
    assert max(len(text) for text in found) <= 2 * 64
    assert len(found) > 30


def test_paragraphs_are_bounded_in_bytes_and_cut_nowhere_else(tmp_path):
    (tmp_path / "a.txt").write_text(("\U0001f600" * 19 + "\n") * 3000)
    assert max(len(text.encode()) for text in texts(tmp_path)) <= files.PARAGRAPH_BYTES
    (tmp_path / "a.txt").write_text("a" * files.PARAGRAPH_BYTES + "\n")
    assert len(texts(tmp_path)) == 1


def test_json_lines(tmp_path):
    lines = [json.dumps({"id": i, "text": text}, ensure_ascii=i % 2) for i, text in enumerate(PARAGRAPHS)]
    (tmp_path / "a.jsonl").write_text("\n\n".join(lines))
    assert texts(tmp_path / "a.jsonl") == PARAGRAPHS


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
@pytest.mark.parametrize("piece_bytes", [1, 7, 50, 51, 52, 53, 1000, 10**6])
def test_any_cut_reads_every_document_once(tmp_path, monkeypatch, suffix, piece_bytes):
    rng = random.Random(1)
    documents = [f"{i}:" + "x" * rng.randrange(60) for i in range(100)]
    lines = [json.dumps({"text": text}) for text in documents] if suffix == ".jsonl" else [f"{d}\n" for d in documents]
    for part in range(3):
        (tmp_path / f"{part}{suffix}").write_text("\n".join(lines[part::3]))
    monkeypatch.setattr(files, "PIECE_BYTES", piece_bytes)
    pieces = Corpus(str(tmp_path)).pieces()
    assert [text.strip() for text in texts(tmp_path)] == [d for part in range(3) for d in documents[part::3]]
    assert sum(piece.size for piece in pieces) == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert (len(pieces) == 1) == (piece_bytes == 10**6)


def test_parquet_and_compressed_files(tmp_path):
    folder = write_fineweb(tmp_path / "fineweb", num_files=2, per_file=100)
    rows = [row for path in sorted(folder.iterdir()) for row in pq.read_table(path).to_pylist()]
    assert list(rows[0]) == list(FINEWEB_FIELDS)
    assert texts(folder, suffixes=(".parquet",)) == [row["text"] for row in rows]
    assert texts(folder, max_files=1) == [row["text"] for row in rows[:100]]
    assert texts(f"file://{folder}/*.parquet") == texts(folder)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "packed"}\n'))
    assert texts(tmp_path / "a.jsonl.gz") == ["packed"]


def test_addresses_of_fsspec():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/a.txt", b"one\n\ntwo\n")
    assert [text.strip() for text in texts("memory://corpus/*.txt")] == ["one", "two"]
    memory.rm("/corpus", recursive=True)


def parquet_without_text(path):
    pq.write_table(pa.table({"body": ["x"], "id": [1]}), path)


def parquet_of_numbers(path):
    pq.write_table(pa.table({"text": [1.5]}), path)


def cut_parquet(path):
    pq.write_table(pa.table({"text": ["x" * 1000]}), path)
    path.write_bytes(path.read_bytes()[:-20])


def damaged_parquet(path):
    pq.write_table(pa.table({"text": [f"{i}" * 50 for i in range(1000)]}), path)
    content = bytearray(path.read_bytes())
    content[10:200] = bytes(190)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.txt", b"fine\n\n\xff\xfe broken\n", "a.txt: byte 6, in line 3, is not UTF-8 (invalid start byte)"),
        ("a.txt", b"cut \xe2\x82", "a.txt: byte 4, in line 1, is not UTF-8 (unexpected end of data); save the file as"),
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "a.jsonl: the line at byte 14 is not a JSON object with a string"),
        ("a.jsonl", b'{"tex": "x"}\n', "the line at byte 0 is not"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "the line at byte 0 is not"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "the line at byte 0 is not"),
        ("a.jsonl", b"\x80\x81\n", "the line at byte 0 is not"),
        ("a.jsonl.gz", b"not gzip at all", "a.jsonl.gz: cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 999, mtime=0)[:-9], "a.jsonl.gz: cannot be read"),
        ("a.parquet", parquet_without_text, "has no column text, only body, id"),
        ("a.parquet", parquet_of_numbers, "the column text is of type double, must be string"),
        ("a.parquet", cut_parquet, "a.parquet: not a parquet file that can be read"),
        ("a.parquet", damaged_parquet, "a.parquet: not a parquet file that can be read"),
        ("a.parquet", b"", "a.parquet: not a parquet file that can be read"),
        ("a.csv", b"text\nx\n", "no file there ends in .txt, .jsonl, .parquet"),
    ],
)
def test_damage_is_one_clear_line(tmp_path, name, make, message):
    make(tmp_path / name) if callable(make) else (tmp_path / name).write_bytes(make)
    with pytest.raises(InputError) as error:
        texts(tmp_path)
    assert message in str(error.value)


def test_places_without_text(tmp_path):
    (tmp_path / "a.csv").write_text("")
    for address, message in (
        (tmp_path / "none", "no file there ends in"),
        (tmp_path / "*.txt", "no file there ends in"),
        (tmp_path / "a.csv", "a.csv: must end in .txt, .jsonl, .parquet"),
        ("nosuch://bucket/x", "cannot be read: Protocol not known: nosuch"),
    ):
        with pytest.raises(InputError) as error:
            Corpus(str(address))
        assert message in str(error.value)


def test_empty_files(tmp_path):
    for name in ("a.txt", "b.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"data\.files=.*: its files hold no text; give others"):
        texts(tmp_path)
