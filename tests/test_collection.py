"""pytest-xdist runs nothing where two processes collect other tests; at other times they may collect others yet."""

import os
import subprocess
import sys

import pytest


@pytest.mark.full
def test_another_process_collects_the_same_tests(request, full):
    """The files of this session, later, with another order of sets: the same ids in the same order."""
    here = [item.nodeid for item in request.session.items]
    files = sorted({str(item.path) for item in request.session.items})
    command = [sys.executable, "-m", "pytest", "--override-ini=addopts=-q", "--collect-only", *["--full"] * full]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout
    wanted, there = set(here), done.stdout.splitlines()
    assert [line for line in there if line in wanted] == here
