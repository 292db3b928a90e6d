"""What the coordinator does with units that end, crash, refuse, or are stopped: an engine that trains nothing."""

import json
import math
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.errors import InputError
from jaxopt_lm.optimizers import AdamWConfig, LionConfig
from jaxopt_lm.studies import Arm, Rules, Study, over
from jaxopt_lm.studies.coordinate import ATTEMPTS, coordinate, progress
from jaxopt_lm.studies.local import Ended
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Run

Outcome = Callable[[Run], float | BaseException]


class Pretender:
    """Two slots, on which each unit ends at the next poll as `outcome` says: with a loss, or an error."""

    free_slots = 2

    def __init__(self, store: Store, outcome: Outcome):
        self._store, self._outcome = store, outcome
        self.running: list[str] = []
        self.submitted: list[str] = []
        self.cancelled = self.closed = False

    @property
    def free(self) -> int:
        return self.free_slots - len(self.running)

    def submit(self, unit: str, log: Path) -> None:
        assert self.free
        log.write_text("one\ntwo\n")
        self.running.append(unit)
        self.submitted.append(unit)

    def poll(self, seconds: float) -> list[Ended]:
        return [] if not self.running else [self._end(self.running.pop(0))]

    def _end(self, unit: str) -> Ended:
        (run,) = self._store.unit(unit).runs
        found = self._outcome(run)
        if isinstance(found, BaseException):
            return Ended(unit, found)
        if not self.cancelled:
            finish(self._store, run, found)
        return Ended(unit, None)

    def cancel(self) -> None:
        self.cancelled = True

    def close(self) -> None:
        self.closed = True


def finish(store: Store, run: Run, loss: float) -> None:
    folder = store.folder(run)
    folder.mkdir()
    status = "diverged" if math.isnan(loss) else "completed"
    result = {"status": status, "step": 3, "eval/loss": 0 if math.isnan(loss) else loss}
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def store(tmp_path) -> Store:
    adamw = Arm(name="adamw", optimizer=AdamWConfig(learning_rate=1e-3), learning_rates=(1e-4, 1e-3, 1e-2))
    lion = Arm(name="lion", optimizer=LionConfig(learning_rate=1e-3), learning_rates=(1e-4, 1e-3, 1e-2))
    base = TrainConfig(workdir=str(tmp_path / "x"))
    return Store(tmp_path / "x", Study(base=base, arms=(adamw, lion), rules=Rules(seeds=1, noise_seeds=1)))


def bowl(run: Run) -> float:
    return abs(math.log10(run.learning_rate) + 3)


def run_study(
    store: Store, outcome: Outcome, stop: Callable[[], bool] = lambda: False
) -> tuple[str, Pretender, list[str]]:
    said: list[str] = []
    engine = Pretender(store, outcome)
    with store.begin():
        status = coordinate(store, engine, 1, tell=lambda at: None, say=said.append, stop=stop)
    assert engine.closed
    return status, engine, said


def test_every_run_is_trained_once(store):
    status, engine, said = run_study(store, bowl)
    assert (status, said) == ("done", [])
    at = progress(store)
    assert at.open == []
    assert len(at.runs) == 12
    assert sorted(engine.submitted) == sorted(store.id(run) for run in at.runs)
    assert {store.unit(store.id(run)).cores for run in at.runs} == {1}
    assert at.losses == {run: bowl(run) for run in at.runs}
    _, engine, _ = run_study(store, bowl)
    assert engine.submitted == []


def test_a_unit_that_crashes_is_begun_again_and_then_left_out(store):
    def outcome(run: Run) -> float | BaseException:
        return BrokenProcessPool("killed") if run.arm == "lion" and run.learning_rate == 1e-2 else bowl(run)

    status, engine, said = run_study(store, outcome)
    failed = Run("", "lion", (), 1e-2, 0)
    assert status == "done"
    assert engine.submitted.count(store.id(failed)) == ATTEMPTS == 3
    assert [f"unit {store.id(failed)} ended early" in line for line in said] == [True] * 3
    assert "it is begun again" in said[0]
    assert "is left out: one | two | BrokenProcessPool: killed" in said[2]
    assert store.failure(failed) == "one | two | BrokenProcessPool: killed"
    losses = progress(store).losses
    assert math.isnan(losses[failed])
    assert {run.learning_rate for run in losses if run.arm == "lion" and run.seed == 0} > {1e-4, 1e-3, 2.15e-3, 4.64e-3}
    assert store.retry() == 1
    assert failed in progress(store).open


def test_bad_input_of_a_unit_stops_the_others_and_is_raised(store):
    full = InputError("x: cannot be written: No space left on device; make room there")
    count = iter(range(100))
    with pytest.raises(InputError, match="No space left"):
        run_study(store, lambda run: full if next(count) == 3 else bowl(run))
    before = len(progress(store).losses)
    assert before == 3
    assert run_study(store, bowl)[0] == "done"


def test_a_stop_lets_what_is_under_way_leave(store):
    count = iter(range(100))
    status, engine, _ = run_study(store, bowl, stop=lambda: next(count) >= 2)
    assert (status, engine.cancelled, engine.running) == ("interrupted", True, [])
    assert progress(store).open
    assert run_study(store, bowl)[0] == "done"


def test_one_process_runs_a_study(store):
    with store.begin(), pytest.raises(InputError, match="another process runs this study; wait, or give another"):
        store.begin()
    store.begin().close()


def test_what_may_change_of_a_study(store, tmp_path):
    study = store.study
    run_study(store, bowl)

    def again(**fields) -> Store:
        asked = {"base": study.base, "arms": study.arms, "settings": study.settings, "rules": study.rules} | fields
        return Store(store.path, Study(**asked))

    more = again(rules=Rules(seeds=2, noise_seeds=1))
    _, engine, _ = run_study(more, bowl)
    assert len(engine.submitted) == 2 * 3
    wider = again(arms=(study.arms[0],), settings=tuple(over("model.mlp_dim", 16, 32)))
    assert not set(run_study(wider, bowl)[1].submitted) & set(engine.submitted)
    shorter = Study(base=TrainConfig(workdir=study.base.workdir, length=8), arms=study.arms)
    with pytest.raises(InputError, match=r"length=8 \(the study has 512\): .* is of another study; give another"):
        Store(store.path, shorter).begin()
    other = Arm(name="adamw", optimizer=AdamWConfig(b2=0.5), learning_rates=(1e-3,))
    with pytest.raises(InputError, match="arm adamw: b2, learning_rate differ from those in"):
        again(arms=(other,)).begin()
    (tmp_path / "x" / "study.json").write_text("{}")
    with pytest.raises(InputError, match="version=None: must be 1"):
        store.begin()
