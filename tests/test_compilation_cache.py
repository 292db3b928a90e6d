"""The persistent compilation cache of the command lines: where it is, when it is not, its bound, and that it works."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxopt_lm import compilation_cache
from tests.write_config_dumps import ROOT

NAMES = list(compilation_cache.settings(""))

PROGRAM = """
import jax
from jaxopt_lm import compilation_cache

compilation_cache.enable()
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
assert int(jax.jit(lambda x: 2 * x + 1)(3.0)) == 7
print(events.count("/jax/compilation_cache/cache_hits"), events.count("/jax/compilation_cache/cache_misses"))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The one that `enable` would choose, where JAX has none yet; JAX's options are put back after the test."""
    before = {name: jax.config.values[name] for name in NAMES}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAXOPT_LM_COMPILATION_CACHE", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "jaxopt_lm" / compilation_cache.machine()
    for name, value in before.items():
        jax.config.update(name, value)


def chosen() -> str | None:
    return jax.config.values["jax_compilation_cache_dir"]


def test_it_is_on(folder):
    compilation_cache.enable()
    assert folder.is_dir()
    assert {name: jax.config.values[name] for name in NAMES} == {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }


def test_without_xdg_it_is_in_the_home(folder, monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    compilation_cache.enable()
    assert chosen() == f"{tmp_path}/.cache/jaxopt_lm/{folder.name}"


@pytest.mark.parametrize("value", ["off", ""])
def test_it_can_be_turned_off(value, folder, monkeypatch):
    monkeypatch.setenv("JAXOPT_LM_COMPILATION_CACHE", value)
    compilation_cache.enable()
    assert chosen() is None
    assert not folder.exists()


@pytest.mark.parametrize("value", ["elsewhere", ""])
def test_jax_may_have_been_told(value, folder):
    jax.config.update("jax_compilation_cache_dir", value)
    compilation_cache.enable()
    assert chosen() == value
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_or_written_is_done_without(folder, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    with monkeypatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        compilation_cache.enable()
        assert chosen() is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    compilation_cache.enable()
    assert chosen() is None


def test_each_machine_has_its_own(monkeypatch):
    here = compilation_cache.machine()
    assert here == compilation_cache.machine()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(77), raising=False)
    many = compilation_cache.machine()
    assert many == f"{here.rpartition('-')[0]}-77"
    monkeypatch.setattr(Path, "read_text", lambda self: "flags\t\t: sse2 avx\n")
    other = compilation_cache.machine()
    monkeypatch.setattr(Path, "read_text", lambda self: "Features\t: fp asimd\n")
    assert len({many, other, compilation_cache.machine()}) == 3
    monkeypatch.setattr(compilation_cache.jaxlib.version, "__version__", "9.9")
    assert compilation_cache.machine().startswith("jaxlib-9.9-")


def test_the_last_used_files_are_kept(tmp_path):
    for number, (name, written, read) in enumerate(
        [("a/old", 1, 2), ("a/read", 1, 9), ("b/new", 8, 3), ("b/mid", 5, 5)]
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10 + number))
        os.utime(path, (read, written))

    def kept(max_bytes: int) -> set[str]:
        compilation_cache.remove_beyond(max_bytes, tmp_path)
        return {path.name for path in tmp_path.glob("*/*")}

    assert kept(46) == {"old", "read", "new", "mid"}
    assert kept(45) == {"read", "new", "mid"}
    assert kept(23) == {"read", "new"}
    assert kept(0) == set()


def test_programs_are_compiled_once(folder):
    """Also where one was half written: it is compiled again, and nothing is said."""

    def run() -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert run() == "0 1\n"
    assert run() == "1 0\n"
    (path,) = folder.glob("*-cache")
    path.write_bytes(path.read_bytes()[:100])
    assert run() == "0 1\n"


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("train", [f"--config={ROOT}/configs/quickstart.py"]),
        ("evaluate", ["--workdir=x"]),
        ("export", ["--workdir=x", "--out=y"]),
    ],
)
def test_these_commands_have_it(module, arguments, monkeypatch):
    class Enabled(Exception):
        pass

    def enable():
        raise Enabled

    command = importlib.import_module(f"jaxopt_lm.{module}")
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    monkeypatch.setattr(compilation_cache, "enable", enable)
    monkeypatch.setattr(command, "quiet_orbax", lambda: None)  # it would change this process
    with pytest.raises(Enabled):
        command.main()
