"""The restart of a command line with mimalloc: what stays as it was, and where there is none."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxopt_lm import allocator
from tests.conftest import command_line, timeless
from tests.write_config_dumps import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")

COMMAND = """
import json, os, signal, subprocess, sys, time
from jaxopt_lm import allocator

def loaded(process):
    return "libmimalloc" in open(f"/proc/{process}/maps").read()

def main():
    print("begun", flush=True)
    allocator.restart()
    begun = "print(flush=True); input()"  # its libraries are loaded by then
    child = subprocess.Popen([sys.executable, "-c", begun], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    said = {"pid": os.getpid(), "argv": sys.argv[1:], "mimalloc": loaded("self"), "child": loaded(child.pid)}
    said |= {"jax": "jax" in sys.modules, "flags": sys.flags.optimize, "environment": os.environ.get("MINE")}
    said |= {"ignores_sigint": signal.getsignal(signal.SIGINT) == signal.SIG_IGN}
    child.communicate(b"x")
    print(json.dumps(said), flush=True)
    time.sleep(60 if "wait" in sys.argv else 0)
    return 7

if __name__ == "__main__":
    sys.exit(main())
"""
ARGUMENTS = ["--a=1", "two words", ""]


@pytest.fixture
def environment(tmp_path, monkeypatch) -> dict[str, str]:
    """Of the processes, in which `mine` is a command line; a computer with accelerators would be left alone."""
    (tmp_path / "mine.py").write_text(COMMAND)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("MINE", "kept")
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    return dict(os.environ)


def start(*words: str, env: dict[str, str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen, code: int = 7) -> tuple[int, dict]:
    """How often the command began, and what it printed."""
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, (output, errors)
    lines = output.splitlines()
    return lines.count("begun"), json.loads(next(line for line in lines if line.startswith("{")))


@pytest.mark.parametrize(
    "words", [["-m", "mine"], ["-mmine"], ["mine.py"], ["-X", "importtime", "-O", "-m", "mine"], ["-u", "./mine.py"]]
)
def test_a_command_line_starts_again_once(words, environment):
    process = start(*words, *ARGUMENTS, env=environment)
    begun, facts = said(process)
    assert begun == 2
    assert facts == {
        "pid": process.pid,
        "argv": ARGUMENTS,
        "mimalloc": True,
        "child": False,
        "jax": False,
        "flags": int("-O" in words),
        "environment": "kept",
        "ignores_sigint": False,
    }


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "cProfile", "-m", "mine"],
        ["-m", "cProfile", "mine.py"],
        ["-m", "trace", "--count", "--coverdir=x", "--module", "mine"],
        ["-m", "pdb", "-c", "continue", "-c", "quit", "-m", "mine"],
        ["-c", "import mine, sys; sys.exit(mine.main())"],
        ["-c", "import runpy; runpy.run_module('mine', run_name='__main__', alter_sys=True)"],
    ],
)
def test_what_another_module_starts_is_left_alone(words, environment):
    code = 0 if words[1] in ("cProfile", "trace", "pdb") else 7
    begun, facts = said(start(*words, env=environment), code)
    assert (begun, facts["mimalloc"]) == (1, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_end_the_process_that_was_started(number, environment):
    with start("-m", "mine", "wait", env=environment) as process:
        assert process.stdout
        while not process.stdout.readline().startswith("{"):
            pass
        process.send_signal(number)
        assert process.wait(60) == -number


def test_ignored_signals_stay_ignored(environment):
    command = "trap '' INT; exec \"$@\"", "sh", sys.executable, "-m", "mine"
    process = subprocess.Popen(["sh", "-c", *command], env=environment, stdout=subprocess.PIPE, text=True)
    begun, facts = said(process)
    assert (begun, facts["ignores_sigint"]) == (2, True)


@pytest.mark.parametrize(
    "changed",
    [
        {"JAXOPT_LM_MALLOC": "off"},
        {"LD_PRELOAD": "libtcmalloc_of_mine.so"},
        {"JAX_PLATFORMS": "cuda"},
        {"JAX_PLATFORMS": "tpu,cpu"},
    ],
)
def test_not_where_it_is_not_wanted(changed, environment):
    begun, facts = said(start("-m", "mine", env=environment | changed))
    assert (begun, facts["mimalloc"]) == (1, False)


@pytest.mark.parametrize("content", [b"", b"\x7fELF of another machine"])
def test_a_library_that_does_not_load_is_done_without(content, environment, tmp_path):
    library = tmp_path / "cmeel.prefix" / "lib" / "libmimalloc.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(content)
    begun, facts = said(start("-m", "mine", env=environment))
    assert (begun, facts["mimalloc"]) == (1, False)


def test_variables(environment, monkeypatch, tmp_path):
    whole = allocator.variables()
    assert whole == {"LD_PRELOAD": whole["LD_PRELOAD"], "MIMALLOC_PURGE_DELAY": "1000"}
    assert Path(whole["LD_PRELOAD"]).is_file()
    monkeypatch.setenv("LD_PRELOAD", "others.so")
    monkeypatch.setenv("MIMALLOC_PURGE_DELAY", "5")
    assert allocator.variables() == {"LD_PRELOAD": f"{whole['LD_PRELOAD']}:others.so", "MIMALLOC_PURGE_DELAY": "5"}
    monkeypatch.delenv("LD_PRELOAD")
    monkeypatch.delenv("JAX_PLATFORMS")
    (tmp_path / "jax_plugins").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert allocator.variables() == {}  # JAX would compute on an accelerator
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert allocator.variables()
    spaced = tmp_path / "a folder"
    spaced.mkdir()
    (spaced / "cmeel.prefix").symlink_to(Path(whole["LD_PRELOAD"]).parents[1])
    monkeypatch.syspath_prepend(spaced)
    assert allocator.variables() == {}  # LD_PRELOAD would divide it
    monkeypatch.setattr(sys, "path", [])
    assert allocator.variables() == {}


def test_the_line_for_notebooks(environment):
    line = "env $(python -m jaxopt_lm.allocator) python mine.py".replace("python", sys.executable, 2)
    process = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=False)
    begun, facts = process.stdout.count("begun"), json.loads(process.stdout.splitlines()[-1])
    assert (begun, facts["mimalloc"], facts["child"]) == (1, True, True)


@pytest.mark.parametrize("module", ["train", "evaluate", "export", "sweep"])
def test_these_commands_start_again_before_jax_and_numpy(module, environment, tmp_path):
    for name in ("jax", "numpy"):
        (tmp_path / f"{name}.py").write_text("import sys; sys.exit('libmimalloc' in open('/proc/self/maps').read())")
    process = start("-m", f"jaxopt_lm.{module}", "--help", env=environment)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors


@pytest.mark.full  # as a killed run in forked processes, which do not start again, has those of one that was not
def test_a_run_has_the_same_numbers(environment, tiny, tmp_path):
    numbers = []
    for name, changed in (("with", {"MIMALLOC_SHOW_STATS": "1"}), ("without", {"JAXOPT_LM_MALLOC": "off"})):
        config = dataclasses.replace(tiny, workdir=str(tmp_path / name), num_train_steps=12)
        command = command_line("train", config, tmp_path)[1:]
        output, errors = (process := start(*command, env=environment | changed)).communicate(timeout=300)
        assert process.returncode == 0, (output, errors)
        assert ("peak commit" in errors) == (name == "with")
        numbers.append(timeless(config.workdir))
    assert numbers[0] == numbers[1]
