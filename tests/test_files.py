"""Files that are whole after a crash, checksums, locks and JSON."""

import hashlib
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxopt_lm.errors import InputError
from jaxopt_lm.files import lock, new_file, read_json, sha256_of, sha256_of_file, write_atomically, write_together


@pytest.fixture
def small_files():
    """Files beyond 1000 bytes cannot be written, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def done(monkeypatch):
    """What was asked of the disk, in order: an fsync of a file or folder, or the new name of a file."""
    done, fsync = [], os.fsync

    def record_fsync(descriptor):
        done.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    for name in ("rename", "replace"):
        rename = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda path, to, rename=rename: done.append(to.name) or rename(path, to))
    return done


def test_a_file_gets_its_name_when_its_content_is_on_disk(tmp_path, done):
    write_atomically(tmp_path / "a", b"old")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert done == ["fsync a.tmp", "a"] * 2
    assert os.listdir(tmp_path) == ["a"]


def test_the_last_of_several_files_gets_its_name_when_the_other_names_are_on_disk(tmp_path, done):
    files = {name: lambda file, name=name: file.write(name.encode()) for name in ("x", "y", "z")}
    write_together(tmp_path / "deep" / "new", files)
    assert {path.name: path.read_text() for path in (tmp_path / "deep" / "new").iterdir()} == {x: x for x in "xyz"}
    assert done == ["fsync x.tmp", "fsync y.tmp", "fsync z.tmp", "x", "y", "fsync new", "z", "fsync new"]


def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path, small_files):
    (tmp_path / "a").write_text("old")
    with pytest.raises(InputError, match=r"a: cannot be written: File too large; make room there"):
        write_atomically(tmp_path / "a", bytes(2000))
    with pytest.raises(ValueError, match="half"), new_file(tmp_path / "a") as file:
        raise ValueError(f"{file.write(b'half')} bytes are half of it")
    with pytest.raises(InputError, match=r"none/a: cannot be written: No such file"):
        write_atomically(tmp_path / "none" / "a", b"")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


@pytest.mark.parametrize("made", [False, True])
def test_what_cannot_be_written_together_leaves_nothing(tmp_path, small_files, made):
    folder = tmp_path / "folder"
    if not made:
        folder.mkdir()
    files = {"x": lambda file: file.write(b"small"), "y": lambda file: file.write(bytes(2000))}
    with pytest.raises(InputError, match=r"folder: cannot be written: File too large; make room there"):
        write_together(folder, files)
    assert folder.exists() != made
    assert made or not os.listdir(folder)


def test_checksums(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(b"abc") == sha256_of_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_one_has_a_lock_until_it_is_closed(tmp_path):
    (tmp_path / "a").write_text("kept")
    held = lock(tmp_path / "a", wait=False)
    assert held is not None
    assert lock(tmp_path / "a", wait=False) is None
    elsewhere = "import sys; from pathlib import Path; from jaxopt_lm.files import lock; print(lock(Path(sys.argv[1]), "
    command = [sys.executable, "-c", elsewhere + "wait=False))", str(tmp_path / "a")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "None\n"
    with held:
        pass
    assert (tmp_path / "a").read_text() == "kept"
    again = lock(tmp_path / "a", wait=False)
    assert again is not None
    again.close()


def test_one_may_wait_for_a_lock(tmp_path):
    held, got = lock(tmp_path / "a", wait=True), threading.Event()
    assert held is not None

    def take():
        file = lock(tmp_path / "a", wait=True)
        assert file is not None
        file.close()
        got.set()

    waiting = threading.Thread(target=take, daemon=True)
    waiting.start()
    assert not got.wait(0.2)
    held.close()
    assert got.wait(60)
    waiting.join()


def test_no_lock_where_there_is_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        lock(tmp_path / "none" / "a", wait=False)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_not_json_is_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=r"a.json: no such file; fetch it$"):
        read_json(path, "fetch it")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a.json: not JSON: .*; fetch it$"):
        read_json(path, "fetch it")
    path.write_bytes('{"é": [1]}'.encode())
    assert read_json(path, "fetch it") == {"é": [1]}
