"""Finding text: what a person would expect is read once, what is left out is named, whatever stands in the folder."""

import bz2
import gzip
import json
import lzma
import os
import socket

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxopt_lm.data import files
from jaxopt_lm.data.files import Corpus
from jaxopt_lm.errors import InputError


def read(address, **options) -> str:
    corpus = Corpus(str(address), **options)
    return " ".join(text.strip() for piece in corpus.pieces() for text in corpus.texts(piece))


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def parquet(*values, kind=None) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": pa.array(values, kind)}), sink)
    return sink.getvalue().to_pybytes()


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("suffix", PACKED)
def test_packed_files_are_read_beside_plain_ones(tmp_path, suffix):
    pack = PACKED[suffix]
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / f"b.jsonl{suffix}").write_bytes(pack(b'{"text": "two"}\n') + pack(b'{"text": "three"}\n'))
    (tmp_path / f"c.txt{suffix}").write_bytes(pack(b"four"))
    (tmp_path / f"D.TXT{suffix.upper()}").write_bytes(pack(b"zero"))
    (tmp_path / f"e.parquet{suffix}").write_bytes(pack(parquet("five")))
    assert read(tmp_path) == "zero one two three four five"
    assert Corpus(str(tmp_path)).files.left_out == ()


@pytest.mark.parametrize("suffix", PACKED)
def test_packed_files_that_are_cut_short_are_refused(tmp_path, suffix):
    whole = PACKED[suffix](b"".join(json.dumps({"text": f"{i * i}"}).encode() + b"\n" for i in range(999)))
    (tmp_path / f"a.jsonl{suffix}").write_bytes(whole[:-9])
    with pytest.raises(InputError, match=rf"a.jsonl{suffix}: cannot be read: .*; mend or remove the file"):
        read(tmp_path)


def test_what_is_left_out_is_named_and_what_is_hidden_is_left_out(tmp_path):
    for name in ("a.txt", ".ipynb_checkpoints/a.txt", "sub/.git/b.txt", "sub/._c.txt", "sub/c.txt", "notes.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    assert read(tmp_path) == "a.txt sub/c.txt"
    assert list(Corpus(str(tmp_path)).files.left_out) == [
        ".ipynb_checkpoints (hidden)",
        "notes.pdf",
        "sub/._c.txt (hidden)",
        "sub/.git (hidden)",
    ]
    assert read(tmp_path / ".ipynb_checkpoints") == ".ipynb_checkpoints/a.txt"  # asked for by name


def test_hidden_names_of_fsspec_are_left_out():
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("a.txt", ".h/b.txt", "c/d.txt", "e.csv"):
        memory.pipe(f"/found/{name}", name.encode())
    for address in ("memory://found", "memory://found/*", "memory://found/**"):
        assert read(address) == "a.txt c/d.txt", address
    assert list(Corpus("memory://found").files.left_out) == [".h/b.txt (hidden)", "e.csv"]
    memory.rm("/found", recursive=True)


def test_entries_of_every_kind(tmp_path):
    corpus, outside = tmp_path / "corpus", tmp_path / "outside"
    for folder in (corpus / "d.jsonl", outside):
        folder.mkdir(parents=True)
    (corpus / "d.jsonl" / "part.txt").write_text("in a folder named as a file")
    (corpus / "empty.txt").touch()
    (outside / "x.txt").write_text("behind a link to a folder")
    (corpus / "link").symlink_to(outside)
    (corpus / "other.txt").symlink_to(outside / "y.md")
    (outside / "y.md").write_text("behind a link to a file")
    (corpus / "z_again").symlink_to(outside)
    (corpus / "z_loop").symlink_to(corpus)
    (corpus / "z_part.txt").symlink_to(corpus / "d.jsonl" / "part.txt")
    os.mkfifo(corpus / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(corpus / "socket.txt"))  # a longer path is refused
    assert read(corpus) == "in a folder named as a file behind a link to a folder behind a link to a file"
    assert list(Corpus(str(corpus)).files.left_out) == [
        "link/y.md",
        "pipe.txt (neither a file nor a folder)",
        "socket.txt (neither a file nor a folder)",
        "z_again (the same as link)",
        "z_loop (the same as corpus)",
        "z_part.txt (the same as part.txt)",
    ]


def test_a_broken_link_and_a_closed_folder_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").symlink_to(tmp_path / "not_fetched")
    with pytest.raises(InputError, match=r"b.txt: cannot be read: .*No such file"):
        read(tmp_path)
    (tmp_path / "b.txt").unlink()

    def closed(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "listdir", closed)
    with pytest.raises(InputError, match=r"data.files=.*: cannot be read: .*Permission denied"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["vol [1].txt", "what?.txt", "a*b.txt", "a::b.txt", "~x.txt", "file:x.txt", "data:,.txt"]
)
def test_what_is_there_is_a_name_before_it_is_a_pattern(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("this one")
    (tmp_path / "vol 1.txt").write_text("another")
    (tmp_path / "whatX.txt").write_text("another")
    assert read(name) == read(tmp_path / name) == "this one"


def test_patterns_reach_folders_and_begin_with_names(tmp_path, monkeypatch):
    """Also where the working directory has brackets in its name, and for a folder that has."""
    home = tmp_path / "my [work]"
    for name in ("vol [1]/a.txt", "vol [1]/deep/b.txt", "vol [2]/c.txt", "vol 1/d.txt"):
        (home / name).parent.mkdir(exist_ok=True, parents=True)
        (home / name).write_text(name[-5])
    monkeypatch.chdir(home)
    assert read("vol [1]/*.txt") == "a"
    assert read("vol [1]/**") == read("vol [1]") == "a b"
    assert read("vol*") == read(".") == "d a b c"
    assert read("vol [[][12]]") == "a b c"
    assert read("v?l*/[ac].txt") == "a c"


def test_a_single_file_of_another_kind_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "a.csv").touch()
    for name in ("pipe.txt", "a.csv"):
        with pytest.raises(
            InputError, match=rf"data.files: .*{name}: must end in .txt, .jsonl, .parquet, and be a file"
        ):
            read(tmp_path / name)
    with pytest.raises(InputError, match=r"no file there ends in .txt, .jsonl, .parquet; left out: a.csv, pipe.txt \("):
        read(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        *(pa.dictionary(pa.int32(), t()) for t in (pa.string, pa.large_string)),
    ],
    ids=str,
)
def test_parquet_columns_that_hold_strings(tmp_path, kind):
    (tmp_path / "a.parquet").write_bytes(parquet("one", None, "two", "one", kind=kind))
    assert read(tmp_path) == "one two one"


@pytest.mark.parametrize("piece_bytes", [10**6, 30])
def test_the_place_in_the_file_of_what_is_not_utf8(tmp_path, monkeypatch, piece_bytes):
    """Wherever the file is cut, and where a character is cut between two reads."""
    monkeypatch.setattr(files, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(files, "PARAGRAPH_BYTES", 16)
    before = "ü fine\n\nlong " + "ä" * 20 + "\n"
    for wrong, reason in ((b"caf\xe9 au lait\n", "invalid continuation byte"), (b"caf\xe9", "unexpected end of data")):
        (tmp_path / "a.txt").write_bytes(before.encode() + wrong)
        at = len(before.encode()) + 3
        with pytest.raises(InputError) as error:
            read(tmp_path)
        assert f"a.txt: byte {at}, in line 4, is not UTF-8 ({reason})" in str(error.value)
