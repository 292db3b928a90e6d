"""What a run was trained on, and how it is kept while the run stops, goes on elsewhere and loses steps."""

import dataclasses
import importlib.metadata
import os
import sys

import jax
import pytest

from jaxopt_lm.config import MeshConfig
from jaxopt_lm.errors import InputError
from jaxopt_lm.runs.folder import RunFolder
from jaxopt_lm.runs.machine import available_cores, machine, versions
from jaxopt_lm.runs.read import read_machines
from jaxopt_lm.training.sharding import make_mesh

HERE, THERE = {"device": "cpu", "cores": 2}, {"device": "NVIDIA H100", "cores": 16}


def test_what_is_recorded():
    found = machine(make_mesh(MeshConfig()))
    assert (found["device"], found["devices"]) == (jax.devices()[0].device_kind, len(jax.devices()))
    assert found["jax"] == jax.__version__
    for name in ("jaxlib", "optax"):
        assert found[name] == importlib.metadata.version(name)
    assert list(found) == ["device", "devices", "processor", "cores", "jaxopt_lm", "jax", "jaxlib", "optax"]
    assert versions("no_such_package") == {"no_such_package": "not installed"}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and affinity are Linux's")
def test_cores_are_those_of_the_process_and_the_processor_is_the_systems():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine(make_mesh(MeshConfig()))["cores"] == available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    with open("/proc/cpuinfo") as file:
        lines = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    assert machine(make_mesh(MeshConfig()))["processor"] in lines or not lines


def test_a_run_that_goes_on(tiny, tmp_path):
    with RunFolder(dataclasses.replace(tiny, workdir=str(tmp_path))) as folder:
        assert read_machines(tmp_path) == []
        folder.trained_on(HERE, 0)
        folder.trained_on(HERE, 10)  # the same machine
        assert read_machines(tmp_path) == [{"after_step": 0} | HERE]
        folder.trained_on(THERE, 20)
        folder.trained_on(HERE, 30)
        assert [each["after_step"] for each in read_machines(tmp_path)] == [0, 20, 30]
        folder.trained_on(THERE, 25)  # what came after step 25 was lost
        assert read_machines(tmp_path) == [{"after_step": 0} | HERE, {"after_step": 20} | THERE]
        folder.trained_on(THERE, 0)
        assert read_machines(tmp_path) == [{"after_step": 0} | THERE]


def test_a_damaged_file_is_one_line(tiny, tmp_path):
    (tmp_path / "machines.json").write_text('[{"device": "cpu"}]')
    with (
        RunFolder(dataclasses.replace(tiny, workdir=str(tmp_path))) as folder,
        pytest.raises(InputError, match=r"machines\.json: is not a list of machines; remove it"),
    ):
        folder.trained_on(HERE, 10)
