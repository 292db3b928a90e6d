"""Units as jobs: what the engine asks of Slurm and reads in its queue, where its commands are pretended."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import jaxopt_lm.sweep
from jaxopt_lm.config import TrainConfig
from jaxopt_lm.dumps import to_json
from jaxopt_lm.errors import InputError, report_input_errors
from jaxopt_lm.optimizers import AdamWConfig
from jaxopt_lm.runs.read import read_metrics, saved_steps
from jaxopt_lm.studies import Arm, Study, slurm_job
from jaxopt_lm.studies.local import Ended
from jaxopt_lm.studies.slurm import NoResult, Slurm, SlurmConfig
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Run
from tests.studies.test_sweep import ASKED, wait

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are pinned, and Slurm is for Linux")

PRETENDED = {
    "sbatch": """
        [ -e refused ] && cat refused >&2 && exit 1
        number=$(($(ls scripts | wc -l) + 1))
        cp "$1" scripts/$number
        echo $number $(sed -n 's/^#SBATCH --job-name=//p' "$1") >> queue
        echo "$SLURM_JOB_ID$SLURM_CONF" > variables
        echo Submitted batch job $number
    """,
    "squeue": "[ -e away ] && echo no controller >&2 && exit 1; cat queue",
    "scancel": 'echo scancel "$@" >> calls',
    "scontrol": 'echo scontrol "$@" >> calls',
    "srun": "exit 1",
}
FIRST, SECOND = Run("", "adamw", (), 1e-3, 0), Run("", "adamw", (), 1e-2, 0)


@pytest.fixture
def pretended(tmp_path, monkeypatch) -> Path:
    """A folder to be in, with Slurm's commands on PATH: the queue is a file, scripts are kept and run by nobody."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "scripts").mkdir()
    (tmp_path / "queue").touch()
    for name, lines in PRETENDED.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{textwrap.dedent(lines)}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study_in(folder: str, base: TrainConfig | None = None) -> Store:
    """A study of one arm, with its folder made and two units planned, on a core each."""
    arm = Arm(name="adamw", optimizer=AdamWConfig(learning_rate=1e-3), learning_rates=(1e-3, 1e-2))
    base = dataclasses.replace(base or TrainConfig(workdir="x"), workdir=folder)
    store = Store(Path(folder), Study(base=base, arms=(arm,)))
    store.begin().close()
    for run in (FIRST, SECOND):
        store.plan(run, 1)
    return store


def engine_of(store: Store, **fields) -> Slurm:
    return Slurm(store, SlurmConfig(**{"poll_seconds": 1e-6} | fields))


def submit(engine: Slurm, store: Store, *runs: Run) -> None:
    for run in runs:
        engine.submit(store.id(run), store.log(store.id(run)))


def finish(store: Store, run: Run) -> None:
    store.folder(run).mkdir()
    (store.folder(run) / "result.json").write_text(json.dumps({"status": "completed", "eval/loss": 3.0}))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--slurm.partition=low"], "engine=local: starts no jobs of slurm.partition='low'; give --engine=slurm"),
        (["--engine=slurm", "--workers=2"], "workers=2: engine=slurm starts jobs; give --slurm.jobs"),
        (["--engine=slurm", "--slurm.minutes=4"], "slurm.minutes=4: must be at least 5"),
        (["--engine=slurm", "--slurm.jobs=0"], "slurm.jobs=0: must be at least 1"),
        (["--engine=slurm", "--slurm.poll_seconds=0"], "slurm.poll_seconds=0.0: must be in (0, 3600)"),
        (
            ["--engine=slurm", "--slurm.extra=qos=low"],
            "slurm.extra='qos=low': 'qos=low' must be --NAME or --NAME=VALUE",
        ),
        (
            ["--engine=slurm", "--slurm.extra=--mem=1G --nodes=2"],
            "slurm.extra='--mem=1G --nodes=2': leave out nodes; a job is one process of one unit",
        ),
        (["--engine=slurm", "--slurm.extra='"], 'slurm.extra="\'": No closing quotation; mend the quotes'),
        (["--engine=slurm"], "engine=slurm: squeue is not on PATH; run this where Slurm's commands are"),
    ],
)
def test_bad_input_is_one_line(flags, message, pretended, tiny, monkeypatch, capsys):
    Path("base.json").write_text(to_json(tiny))
    Path("asked.py").write_text(ASKED)
    Path("bin/squeue").unlink()
    monkeypatch.setenv("PATH", str(pretended / "bin"))
    monkeypatch.setattr(sys, "argv", ["sweep", "--config=asked.py", *flags])
    monkeypatch.setattr(jaxopt_lm.sweep, "quiet_orbax", lambda: None)  # it would change this process
    assert jaxopt_lm.sweep.main() == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_what_a_job_asks_for(pretended, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # the coordinator is in a job itself
    monkeypatch.setenv("SLURM_CONF", "/slurm.conf")
    store = study_in("x")
    fields = {"partition": "low", "minutes": 90, "cpus_per_task": 8, "extra": "--mem=8G --exclusive --comment='a b'"}
    submit(engine_of(store, **fields), store, FIRST)
    script = Path("scripts/1").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    wanted = {"partition": "low", "time": "90", "cpus-per-task": "1", "signal": "USR2@90", "requeue": ""}
    assert wanted.items() <= options.items()  # on one core, as the unit was begun
    assert {"mem": "8G", "exclusive": "", "comment": "'a b'"}.items() <= options.items()
    assert "gpus-per-node" not in options
    assert "srun --unbuffered" in script
    assert "--cpus-per-task=1" in script.partition("# command")[2]
    assert Path("variables").read_text() == "/slurm.conf\n"
    assert os.environ["SLURM_JOB_ID"] == "7"
    (store.path / "units" / f"{store.id(SECOND)}.json").write_text(json.dumps({"runs": [SECOND], "cores": None}))
    submit(engine_of(store, **fields, gpus_per_node=2), store, SECOND)
    assert re.search(r"cpus-per-task=8\n.*gpus-per-node=2\n", Path("scripts/2").read_text(), re.DOTALL)


def test_how_jobs_end(pretended):
    store = study_in("x")
    first, second = store.id(FIRST), store.id(SECOND)
    engine = engine_of(store, jobs=2)
    assert (engine.free, engine.running, engine.poll(0)) == (2, [], [])
    submit(engine, store, FIRST, SECOND)
    assert (engine.free, engine.running, engine.poll(0)) == (0, [first, second], [])
    finish(store, FIRST)
    assert engine.poll(0) == []  # it has ended when it has left the queue
    Path("queue").write_text("")
    done, lost = engine.poll(0)
    assert done == Ended(first, None)
    assert (lost.unit, type(lost.error)) == (second, NoResult)
    assert re.fullmatch(r"job 2 has left the queue without one; see x/slurm/2_0_log.out", str(lost.error))
    assert (engine.free, engine.running) == (2, [])
    left = slurm_job.left(store.path, second)
    for message in (None, "x: cannot be written"):
        submit(engine, store, SECOND)
        left.write_text(json.dumps({"error": message}))
        Path("queue").write_text("")
        ((_, error),) = engine.poll(0)
        assert (type(error), str(error)) == ((type(None), "None") if message is None else (InputError, message))
        assert not left.exists()
    left.write_text("of a coordinator that was killed")
    submit(engine, store, SECOND)
    assert not left.exists()


def test_a_new_coordinator_finds_the_jobs_of_the_one_before(pretended):
    store, other = study_in("x"), study_in("y")
    submit(engine_of(store), store, FIRST)
    assert store.id(FIRST) == other.id(FIRST)
    assert engine_of(other).running == []
    for workdir in ("x", str(pretended / "x")):
        engine = engine_of(study_in(workdir))
        assert engine.running == [store.id(FIRST)]
    Path("queue").write_text("")
    finish(store, FIRST)
    assert engine.poll(0) == [Ended(store.id(FIRST), None)]


def test_a_slurm_that_refuses_or_does_not_answer(pretended):
    store = study_in("x")
    Path("away").touch()
    with pytest.raises(InputError, match="squeue fails: no controller; run the same command when Slurm answers"):
        engine_of(store)
    Path("away").unlink()
    engine = engine_of(store)
    Path("refused").write_text("sbatch: error: invalid partition\n")
    with pytest.raises(InputError, match="sbatch refuses a job: sbatch: error: invalid partition; mend --slurm"):
        submit(engine, store, FIRST)
    Path("refused").unlink()
    submit(engine, store, FIRST)
    Path("away").touch()
    assert (engine.poll(0), engine.running) == ([], [store.id(FIRST)])
    Path("refused").write_text("sbatch: error: QOSMaxSubmitJobPerUserLimit\n")
    submit(engine, store, SECOND)  # it waits
    assert (engine.free, engine.running) == (0, [store.id(FIRST)])


def test_without_submitit(pretended, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert report_input_errors(lambda: engine_of(study_in("x")))() == 2
    line = "error: submitit is not installed, which this command needs: pip install 'jaxopt_lm[study]'\n"
    assert capsys.readouterr().err == line


def test_jobs_that_wait_leave_and_others_are_told_to(pretended):
    store = study_in("x")
    engine = engine_of(store, poll_seconds=3000)
    engine.cancel()
    assert not Path("calls").exists()
    submit(engine, store, FIRST, SECOND)
    for _ in range(2):  # again only when the queue is asked for again
        engine.cancel()
        assert Path("calls").read_text() == "scancel --state=PENDING 1 2\nscancel --signal=TERM 1 2\n"


@pytest.mark.parametrize(
    ("may_use", "counted", "cores", "pinned"),
    [
        ({4}, "4", 1, None),  # Slurm has pinned it
        (set(range(8)), "2,5-6", 3, {2, 5, 6}),  # Slurm pins nothing
        ({3, 19}, "6-7", 1, {3}),  # a core of two threads; the controller numbers them otherwise
        (set(range(8)), "", 2, {0, 1}),
        ({0}, "0", 2, None),  # too few: `work` refuses
    ],
)
def test_a_job_has_the_cores_it_asked_for(may_use, counted, cores, pinned, pretended, monkeypatch):
    Path("bin/scontrol").write_text(f"#!/bin/sh\necho JobId=1 Nodes=n CPU_IDs={counted} Mem=0\n")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    given = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: may_use)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: given.append(set(cores)))
    slurm_job._pin(cores)
    assert given == ([] if pinned is None else [pinned])


@pytest.mark.full
def test_signals_to_a_job(pretended, tiny, monkeypatch):
    """SIGTERM, more than once, saves and leaves; USR2 saves and puts the job into the queue again."""
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", os.environ["JAX_COMPILATION_CACHE_DIR"] + "-1")  # of one core
    store = study_in("x", dataclasses.replace(tiny, num_train_steps=100_000))
    (store.path / "slurm").mkdir()  # submitit's
    unit, folder = store.id(FIRST), store.folder(FIRST)
    code = f"from jaxopt_lm.studies.slurm_job import begin; begin('x', '{unit}', '{store.log(unit)}', 1)"

    def newest() -> int:
        return max((line["step"] for line in read_metrics(folder)), default=-1)

    def signalled(*numbers: int) -> None:
        before = newest()
        process = subprocess.Popen([sys.executable, "-c", code])
        wait(lambda: newest() > before + 5 or process.poll() is not None)
        for number in numbers:
            process.send_signal(number)
        assert process.wait(60) == 143
        assert saved_steps(folder / "checkpoints")[-1] == newest() > before

    signalled(signal.SIGTERM, signal.SIGTERM, signal.SIGCONT)
    left = slurm_job.left(store.path, unit)
    assert json.loads(left.read_text()) == {"error": None}
    assert "scontrol requeue" not in (Path("calls").read_text() if Path("calls").exists() else "")
    left.unlink()
    signalled(signal.SIGTERM, signal.SIGUSR2)
    assert Path("calls").read_text().splitlines()[-1] == "scontrol requeue 5"
    assert not left.exists()
    assert "job 5 is in the queue again" in store.log(unit).read_text()
