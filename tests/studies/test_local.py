"""Processes of this machine, each pinned to its core, with units that train nothing."""

import json
import os
import signal
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from jaxopt_lm.errors import InputError
from jaxopt_lm.studies import local
from jaxopt_lm.studies.local import Ended, Local

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux pins processes")

CORE = frozenset({min(os.sched_getaffinity(0))}) if hasattr(os, "sched_getaffinity") else None


def pretended(workdir: str, unit: str, log: str) -> None:
    """What a process does with a unit here: its name says it."""
    facts = {"pid": os.getpid(), "cores": sorted(os.sched_getaffinity(0)), "session": os.getsid(0)}
    facts |= {"preloaded": os.environ.get("LD_PRELOAD", ""), "jax": "jax" in sys.modules}
    Path(workdir, unit).write_text(json.dumps(facts))
    if unit.startswith("bad"):
        raise InputError("x=1: must be 2")
    if unit.startswith("long"):
        time.sleep(60)


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_work", pretended)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    with Local(str(tmp_path), [CORE]) as engine:
        yield engine
        engine.close()


def begun(folder: Path, unit: str) -> dict:
    """What the process of a unit said, once it has begun."""
    end = time.monotonic() + 60
    while not (folder / unit).exists() or not (folder / unit).read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    return json.loads((folder / unit).read_text())


def ended(engine: Local) -> Ended:
    end = time.monotonic() + 60
    while not (found := engine.poll(1)):
        assert time.monotonic() < end
    (one,) = found
    return one


def test_a_process_is_pinned_alone_and_goes_on_to_the_next_unit(engine, tmp_path):
    assert engine.free == 1
    engine.submit("one", tmp_path / "log")
    assert (engine.free, engine.running) == (0, ["one"])
    assert ended(engine) == Ended("one", None)
    one = begun(tmp_path, "one")
    assert CORE is not None
    assert (one["cores"], one["session"]) == (sorted(CORE), one["pid"])
    assert ("libmimalloc" in one["preloaded"]) == bool(local.allocator.variables())
    assert os.environ.get("LD_PRELOAD") is None
    assert (engine.free, engine.running) == (1, [])
    engine.submit("two", tmp_path / "log")
    ended(engine)
    assert begun(tmp_path, "two")["pid"] == one["pid"]


def test_a_process_that_is_killed_costs_its_unit_alone(engine, tmp_path):
    engine.submit("long", tmp_path / "log")
    pid = begun(tmp_path, "long")["pid"]
    os.kill(pid, signal.SIGKILL)
    unit, error = ended(engine)
    assert unit == "long"
    assert isinstance(error, BrokenProcessPool)
    engine.submit("one", tmp_path / "log")
    assert ended(engine) == Ended("one", None)
    os.kill(begun(tmp_path, "one")["pid"], signal.SIGKILL)  # while it is idle
    for unit in ("two", "three"):
        engine.submit(unit, tmp_path / "log")
        ended(engine)
    assert begun(tmp_path, "three")["pid"] != begun(tmp_path, "one")["pid"]


def test_bad_input_comes_back_as_such(engine, tmp_path):
    engine.submit("bad", tmp_path / "log")
    unit, error = ended(engine)
    assert (unit, type(error), str(error)) == ("bad", InputError, "x=1: must be 2")


def test_what_is_under_way_is_asked_to_stop_and_killed_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_work", pretended)
    with Local(str(tmp_path), [CORE, None]) as engine:
        engine.submit("long1", tmp_path / "log")
        engine.submit("long2", tmp_path / "log")
        pids = [begun(tmp_path, name)["pid"] for name in ("long1", "long2")]
        assert begun(tmp_path, "long2")["cores"] == sorted(os.sched_getaffinity(0))
        slot = next(slot for unit, slot in engine._running.values() if unit == "long1")
        engine._signal(slot, signal.SIGTERM)  # which a run hears, and this one does not
        assert ended(engine).unit == "long1"
        assert engine.running == ["long2"]
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() and "Z" not in stat(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)


def stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_the_slots_of_this_machine(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    cores = sorted(os.sched_getaffinity(0))
    assert local.slots_of_this_machine() == [frozenset({core}) for core in cores]
    assert local.slots_of_this_machine(1) == [CORE]
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert local.slots_of_this_machine() == [None]
