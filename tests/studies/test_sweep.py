"""`python -m jaxopt_lm.sweep` in processes of its own: to the end, through kills and stops, and what it refuses."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import jaxopt_lm.sweep
from jaxopt_lm import studies
from jaxopt_lm.config_io import load_as
from jaxopt_lm.dumps import to_json
from jaxopt_lm.runs.read import read_metrics
from jaxopt_lm.studies import Study, estimate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are pinned and found in /proc on Linux")

ASKED = """
from jaxopt_lm.config_io import load
from jaxopt_lm.optimizers import AdamWConfig, LionConfig
from jaxopt_lm.studies import Arm, Rules, Study

def get_config(arg):
    adamw = Arm(name="adamw", optimizer=AdamWConfig(learning_rate=1e-3), learning_rates=(1e-3, 1e-2))
    lion = Arm(name="lion", optimizer=LionConfig(learning_rate=1e-3), learning_rates=(1e-3, 1e-2, 1e30))
    arms = (adamw, lion)[: int(arg or 2)]
    return Study(base=load("base.json"), arms=arms, rules=Rules(seeds=1, noise_seeds=1, max_extensions=len(arms) - 1))
"""
MINE = """
import os
import optax

def mine(learning_rate):
    if os.environ.get("CRASH"):
        raise RuntimeError("this one crashes")
    return optax.sgd(learning_rate)
"""
MINE_ASKED = """from jaxopt_lm.optimizers import FromOptax
    mine = Arm(name="mine", optimizer=FromOptax("mine.py:mine", {"learning_rate": 0.1}), learning_rates=(0.1,))
"""
GRID_AND_B1 = 'learning_rates=(1e-3, 1e-2), nuisance=(("b1", (0.5,)), ("b1=b2", (0.8,))))'
TIMES = ["seconds", "tokens_per_sec"]


@pytest.fixture
def place(tmp_path, tiny, monkeypatch) -> Path:
    """Where commands run: a study of two arms; its processes have one core, and so do the programs they share."""
    short = dataclasses.replace(tiny, num_train_steps=20)
    (tmp_path / "base.json").write_text(to_json(short))
    (tmp_path / "asked.py").write_text(ASKED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", os.environ["JAX_COMPILATION_CACHE_DIR"] + "-1")
    return tmp_path


def start(*words: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "jaxopt_lm.sweep", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def sweep(*words: str, code: int = 0, **options) -> str:
    """What a command prints."""
    process = start(*words, **options)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == code, (output, errors)
    assert "Traceback" not in errors
    return output + errors


def trained(workdir: str, *flags: str, arms: int = 2, **options) -> pd.DataFrame:
    """The table of the study, run to its end."""
    sweep(f"--config=asked.py:{arms}", f"--config.workdir={workdir}", *flags, **options)
    return studies.load(workdir)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def wait(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def lines(workdir: str) -> int:
    """How many lines of metrics all runs of a study have."""
    return sum(len(list(read_metrics(path))) for path in Path(workdir, "runs").glob("*"))


def killed(workdir: str, whom: str, at: int, arms: int = 2) -> None:
    """Begins the study and kills its coordinator, or one of its workers, once so many lines are written."""
    process = start(f"--config=asked.py:{arms}", f"--config.workdir={workdir}")
    wait(lambda: lines(workdir) >= at or process.poll() is not None)
    workers = children(process.pid)
    if whom == "worker" and workers:
        os.kill(max(workers), signal.SIGKILL)
        process.communicate(timeout=300)
        assert process.returncode == 0
    process.kill()
    process.communicate()
    wait(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers), 20)


def assert_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one.drop(columns=TIMES), other.drop(columns=TIMES), check_exact=True)


@pytest.mark.parametrize("arms", [1, pytest.param(2, marks=pytest.mark.full)])
def test_a_study_to_its_end_and_through_kills(arms, place):
    whole = trained("whole", arms=arms)
    rates = [1e-3, 1e-2, 1e-1, 1.0] if arms == 2 else [1e-3, 1e-2]
    assert sorted(whole[whole["arm"] == "adamw"]["learning_rate"].unique()) == rates
    assert whole["loss"].isna().equals(whole["status"] != "completed")
    assert min(whole["loss_at_init"]) > 4
    assert {len(json.loads(path.read_text())["runs"]) for path in Path("whole/units").glob("*.json")} == {1}
    assert {json.loads(path.read_text())["cores"] for path in Path("whole/units").glob("*.json")} == {1}
    killed("cut", "coordinator", 40, arms)
    killed("cut", "worker", 60, arms)  # and the study goes on to its end
    assert_same(studies.load("cut"), whole)
    output = sweep("status", "--workdir=cut")
    assert "adamw: best at" in output
    assert "open:" not in output
    if arms == 2:
        check_the_second_arm(whole)


def check_the_second_arm(whole: pd.DataFrame) -> None:
    """One of whose rates diverges; and that a study which is done is not trained again, nor changed by `prune`."""
    assert set(whole["arm"][whole["seed"] == 1]) == {"adamw", "lion"}
    lion = whole[(whole["arm"] == "lion") & (whole["learning_rate"] == 1e30)].iloc[0]
    assert (lion["status"], lion["diverged_step"] > 0, lion["diverged_metric"] != "") == ("diverged", True, True)
    before = lines("whole")
    counts = f"{len(whole)} of {len(whole)} runs ended, {sum(whole['status'] == 'diverged')} diverged"
    assert counts in sweep("--config=asked.py:2", "--config.workdir=whole")
    assert lines("whole") == before
    assert "MB freed" in sweep("prune", "--workdir=whole")
    assert not list(Path("whole/runs").glob("*/checkpoints"))
    assert_same(studies.load("whole"), whole)


@pytest.mark.full
def test_ten_kills_at_random_moments(place):
    whole, moments = trained("whole"), random.Random(0)
    for _ in range(10):
        written = lines("cut") if Path("cut").exists() else 0
        killed("cut", moments.choice(["coordinator", "worker"]), written + moments.randrange(40))
    assert_same(trained("cut"), whole)


@pytest.mark.full
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_saves_every_run_and_the_same_command_goes_on(number, code, place):
    flags = "--config=asked.py:1", "--config.workdir=x", "--config.num_train_steps=500"
    process = start(*flags)
    wait(lambda: lines("x") >= 10)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "stopping once every run under way has saved its state" in output
    (path,) = Path("x/runs").glob("*")  # the noise of one seed comes first
    last = [line["step"] for line in read_metrics(path)][-1]
    assert 0 < last < 500
    assert max(int(saved.name) for saved in (path / "checkpoints").glob("[0-9]*")) == last
    assert "runs ended; see x" in sweep(*flags)


@pytest.mark.full
def test_a_second_ctrl_c_ends_all_at_once(place):
    process = start("--config=asked.py:1", "--config.workdir=x", "--config.num_train_steps=100000")
    wait(lambda: lines("x") >= 10)
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "")
    wait(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers), 20)
    shorter = "--config=asked.py:1", "--config.workdir=x"
    assert "num_train_steps=20 (the study has 100000)" in sweep(*shorter, code=2)


@pytest.mark.full
def test_one_coordinator_and_the_commands_of_other_schedulers(place):
    process = start("--config=asked.py", "--config.workdir=x")
    wait(lambda: Path("x/units").exists())
    output = sweep("--config=asked.py", "--config.workdir=x", code=2)
    assert output == "error: workdir=x: another process runs this study; wait, or give another\n"
    process.kill()
    process.communicate()
    unit = json.loads(sweep("units", "--workdir=x", "--json=True"))[0]
    assert unit["runs"][0].startswith("adamw 0.0")
    cores = json.loads(Path(f"x/units/{unit['id']}.json").read_text())["cores"]
    work = "work", "--workdir=x", f"--unit={unit['id']}"
    pinned = {}
    if cores == 1:
        assert "was begun on 1 cores, this process may use" in sweep(*work, code=2)
        pinned = {"preexec_fn": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})}
    assert "done: step 20" in sweep(*work, **pinned)
    assert unit["id"] not in sweep("units", "--workdir=x")
    assert Path(f"x/runs/{unit['id']}/result.json").exists()
    assert sweep("work", "--workdir=x", "--unit=abc", code=2).startswith("error: x/units/abc.json: no such file")


@pytest.mark.full
def test_a_unit_that_crashes_is_left_out_and_the_others_end(place):
    Path("mine.py").write_text(MINE)
    Path("asked.py").write_text(
        ASKED.replace("(adamw, lion)[: int(arg or 2)]", "(adamw, mine)").replace("lion =", MINE_ASKED + "    lion =")
    )
    flags = "--config=asked.py", "--config.workdir=x", "--study.max_extensions=0"
    output = sweep(*flags, env=os.environ | {"CRASH": "1"})
    assert output.count("it is begun again") == 2
    assert "ended early 3 times and is left out" in output
    assert "RuntimeError: this one crashes" in output
    table = studies.load("x")
    assert set(table[table["arm"] == "mine"]["status"]) == {"failed"}
    assert set(table[table["arm"] == "adamw"]["status"]) == {"completed"}
    assert "failed: mine 0.1 seed 0" in sweep("status", "--workdir=x")
    assert sweep("retry", "--workdir=x") == "1 units will be begun again\n"
    assert set(trained("x", "--study.max_extensions=0")["status"]) == {"completed"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=asked.py", "--config.optimizer.b2=0.5"], "--config.optimizer: arms have optimizers of their own"),
        (["--config=asked.py", "--study.seeds=-1"], "study.seeds=-1: must be at least 0"),
        (["--config=asked.py", "--workers=0"], "workers=0: must be at least 1"),
        (["--config=base.json"], "--config=base.json: must be FILE.py[:key=value,…] here"),
        (["--config=asked.py", "--config.workdir=base.json"], "workdir=base.json: cannot be made"),
        (["frobnicate"], "sweep frobnicate: must be one of run, status"),
        (["status", "--workdir=nowhere"], "nowhere/study.json: no such file; give the --workdir of a study"),
    ],
)
def test_bad_input_is_one_line(flags, message, place, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sweep", *flags])
    monkeypatch.setattr(jaxopt_lm.sweep, "quiet_orbax", lambda: None)  # it would change this process
    assert jaxopt_lm.sweep.main() == 2
    output = capsys.readouterr().err
    assert output.startswith(f"error: {message}")
    assert output.count("\n") == 1


def test_a_dry_run(place):
    study = load_as(Study, "asked.py")
    found = json.loads(estimate.text(study, 2, as_json=True))
    noise, adamw, lion = 1, (2 + 2) + (3 - 1), 3 + 3  # of two rates neither is inside; one run is noise too
    assert (found["runs"], found["groups"]) == (noise + adamw + lion, 2)
    assert found["tokens"] == found["runs"] * 20 * 8 * 16
    assert found["hours"] > 0
    assert "h on 2 processes" in estimate.text(study, 2, as_json=False)


def test_a_dry_run_without_a_measurement_has_what_every_arm_trains(place):
    nuisance = Path("asked.py").read_text().replace("learning_rates=(1e-3, 1e-2))", GRID_AND_B1)
    Path("asked.py").write_text(nuisance)
    study = load_as(Study, "asked.py:1")
    first, *lines = estimate.text(study, 2, as_json=False, measure=False).splitlines()
    assert first.startswith("6 runs (more where an optimum is not inside its grid), 15,360 tokens, ")
    assert lines == [
        "adamw: 6 runs of 20 steps of 8 x 16 tokens at 0.001 0.01; name=adamw weight_decay=0.0 "
        "decay_roles=['embedding', 'attention', 'mlp', 'norm', 'head'] b1=0.9 b2=0.95 eps=1e-15; also b1=0.5 b1=b2=0.8",
    ]
    (contest,) = json.loads(estimate.text(study, 2, as_json=True, measure=False))["contests"]
    assert (contest["learning_rates"], contest["optimizer"]["b2"]) == ([0.001, 0.01], "0.95")


def test_runs_of_equal_configs_are_counted_once(place):
    study = load_as(Study, "asked.py:1")
    twin = dataclasses.replace(study.arms[0], name="twin")
    both = dataclasses.replace(study, arms=(study.arms[0], twin))
    assert estimate.counted(both)["runs"] == estimate.counted(study)["runs"]
