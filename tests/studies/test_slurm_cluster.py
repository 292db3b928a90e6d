"""A study on a real cluster of one node: jobs that are ended from outside, that move, coordinators that end."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from jaxopt_lm import studies
from jaxopt_lm.dumps import to_json
from jaxopt_lm.runs.read import read_metrics, saved_steps
from tests.studies import slurm_cluster
from tests.studies.test_sweep import ASKED, assert_same, start, sweep, trained, wait

pytestmark = pytest.mark.slurm


def running() -> dict[str, str]:
    """The jobs that run, by unit."""
    command = ["squeue", "--noheader", "--states=RUNNING", "--partition=low", "--format=%i %j"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name.rpartition("-")[2]: job for job, name in (line.split() for line in lines)}


def amid(*, but: tuple[str, ...] = ()) -> tuple[str, str]:
    """A unit, and its job, that is some steps on and has more to do."""
    found: list[tuple[str, str]] = []

    def look() -> bool:
        for unit, job in running().items():
            folder = Path("x/runs", unit)
            begun = folder.exists() and len(list(read_metrics(folder))) > 10
            if unit not in but and begun and not (folder / "result.json").exists():
                found.append((unit, job))
        return bool(found)

    wait(look)
    return found[0]


def process_of(unit: str) -> int:
    """The number of the process that trains a unit."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            words = path.read_bytes().split(b"\0")
            found += [int(path.parent.name)] * ({b"jaxopt_lm.studies.slurm_job", unit.encode()} <= set(words))
    (number,) = found
    return number


def submissions() -> list[str]:
    """The units of all jobs that were submitted."""
    scripts = (path.read_text() for path in Path("x/slurm").glob("[0-9]*_submission.sh"))
    return [re.findall(r"--job-name=jaxopt_lm-\w+-(\w+)", script)[0] for script in scripts]


def log(unit: str) -> str:
    return Path(f"x/units/{unit}.log").read_text()


@pytest.fixture
def cluster(tmp_path, tiny, monkeypatch):
    """A cluster, and a folder to be in, with a study in `asked.py` whose runs take some seconds."""
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    (tmp_path / "base.json").write_text(to_json(dataclasses.replace(tiny, num_train_steps=200)))
    (tmp_path / "asked.py").write_text(ASKED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", os.environ["JAX_COMPILATION_CACHE_DIR"] + "-1")  # of one core
    with slurm_cluster.started() as conf:
        monkeypatch.setenv("SLURM_CONF", str(conf))
        yield


ON_SLURM = (
    "--config=asked.py", "--config.workdir=x", "--engine=slurm", "--slurm.partition=low", "--slurm.jobs=3",
    "--slurm.poll_seconds=1",
)  # fmt: skip


@pytest.mark.usefixtures("cluster")
def test_jobs_that_are_ended_from_outside():
    """One is cancelled, which its user may begin again; one killed, as for memory; one is requeued by an operator."""
    process = start(*ON_SLURM, "--config=asked.py:1")
    cancelled, job = amid()
    subprocess.run(["scancel", job], check=True)
    wait(lambda: submissions().count(cancelled) == 2)
    assert f"job {job} leaves" in log(cancelled)
    killed, job_killed = amid(but=(cancelled,))
    os.kill(process_of(killed), signal.SIGKILL)
    requeued, job = amid(but=(cancelled, killed))
    subprocess.run(["scontrol", "requeue", job], check=True)
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert output.count("ended early") == 1
    assert f"unit {killed} ended early" in output
    assert f"NoResult: job {job_killed} has left the queue without one; see x/slurm/{job_killed}_0_log.out" in output
    begun = {unit: submissions().count(unit) for unit in submissions()}
    assert {unit for unit, number in begun.items() if number == 2} == {cancelled, killed}
    assert set(begun.values()) == {1, 2}
    for unit in (cancelled, requeued):
        assert f"resuming x/runs/{unit} from step" in log(unit)
    assert not list(Path("x/slurm").glob("*.left"))
    assert_same(studies.load("x"), trained("local", "--config=asked.py:1"))


@pytest.mark.usefixtures("cluster")
def test_jobs_that_move_and_coordinators_that_end():
    """A job is told to move, the coordinator is killed, jobs are preempted, the next coordinator is stopped."""
    first = start(*ON_SLURM)
    moved, job = amid()
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    wait(lambda: f"job {job} is in the queue again" in log(moved))
    amid(but=(moved,))
    first.kill()
    first.communicate()
    kept = running()
    assert kept
    second = start(*ON_SLURM)
    preempted, job = amid(but=(moved,))
    cores = len(os.sched_getaffinity(0))
    subprocess.run(["sbatch", "--partition=first", f"--cpus-per-task={cores}", "--wrap=sleep 1"], check=True)
    wait(lambda: f"job {job} is in the queue again" in log(preempted))
    wait(lambda: Path("x/runs", preempted, "result.json").exists())
    assert f"resuming x/runs/{preempted} from step" in log(preempted)
    stopped, _ = amid(but=(moved, preempted))
    second.send_signal(signal.SIGINT)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 130, output
    assert "ended early" not in output
    assert running() == {}
    folder = Path("x/runs", stopped)
    assert saved_steps(folder / "checkpoints")[-1] == list(read_metrics(folder))[-1]["step"]
    assert set(submissions()) >= {moved, preempted, stopped, *kept}
    assert len(submissions()) == len(set(submissions()))
    sweep(*ON_SLURM)
    assert_same(studies.load("x"), trained("local"))
