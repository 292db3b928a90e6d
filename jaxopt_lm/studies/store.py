"""The folder of a study: plain files, one writer each, are the only truth about what is done.

study.json     what is asked; beside it the sources of a user's own optimizers, which reading executes
units/ID.json  runs that are trained together, and on how many cores; written before their first step
units/ID.log   what the processes that trained it printed
units/ID.failed.json   its last lines, where it crashed too often
runs/ID/       each a run like any other; ID is that of what decides its numbers, the same in every study
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.dumps import differences, to_dict
from jaxopt_lm.errors import require
from jaxopt_lm.files import locked_folder, read_json, write_atomically
from jaxopt_lm.studies.study import Arm, Run, Study, run_id

VERSION = 1
"""Of what is in `study.json`."""


class Unit(NamedTuple):
    """Runs that one process trains at once.

    Attributes:
      id: of the first of them.
      runs: one on a CPU.
      cores: of the process; a unit goes on with as many, for they decide the roundings.
    """

    id: str
    runs: tuple[Run, ...]
    cores: int | None


class Store:
    """A study and its folder."""

    def __init__(self, path: Path, study: Study):
        self.path, self.study = path, study
        self._configs: dict[Run, TrainConfig] = {}
        self._ids: dict[Run, str] = {}

    @classmethod
    def read(cls, path: Path) -> "Store":
        """The study in a folder; executes the sources of a user's own optimizers that it keeps.

        Raises:
          InputError: the folder holds none.
        """
        dump = read_json(path / "study.json", "give the --workdir of a study")
        version = dump.get("version") if isinstance(dump, dict) else None
        require(version == VERSION, f"{path / 'study.json'}: version={version!r}: must be {VERSION}; use its jaxopt_lm")
        return cls(path, Study.from_dict(dump, path))

    def begin(self) -> IO[str]:
        """Takes the folder's lock, which holds until it is closed or the process ends, and writes what is asked.

        Arms, settings, rates and rules may be others than before: runs that both want are kept, for each is its own.

        Raises:
          InputError: another process has the lock, the folder cannot be written, or it is of another study: of another
            base config, or with another arm of the same name.
        """
        path = self.path
        held = locked_folder(str(path), "runs this study; wait, or give another")
        try:
            if (path / "study.json").exists():
                self._check_same(Store.read(path).study)
            for name, content in self.study.sources().items():
                write_atomically(path / name, content)
            dump = {"version": VERSION} | self.study.to_dict()
            write_atomically(path / "study.json", (json.dumps(dump, indent=2, sort_keys=True) + "\n").encode())
            for name in ("units", "runs"):
                (path / name).mkdir(exist_ok=True)
        except BaseException:
            held.close()
            raise
        return held

    def _check_same(self, old: Study) -> None:
        new, mend = self.study, "give another --config.workdir"
        changed = differences(_without_optimizer(old.base), _without_optimizer(new.base))
        listed = ", ".join(f"{name}={values[1]!r} (the study has {values[0]!r})" for name, values in changed.items())
        require(not changed, f"{listed}: {self.path} is of another study; {mend}")
        both = {arm.name: arm for arm in old.arms}
        for arm in new.arms:
            other = both.get(arm.name)
            changed = differences(_own(other), _own(arm)) if other else {}
            require(not changed, f"arm {arm.name}: {', '.join(changed)} differ from those in {self.path}; {mend}")

    def id(self, run: Run) -> str:
        """The name of a run's folder."""
        if run not in self._ids:
            self._ids[run] = run_id(self._config(run))
        return self._ids[run]

    def folder(self, run: Run) -> Path:
        """The folder of a run."""
        return self.path / "runs" / self.id(run)

    def config(self, run: Run) -> TrainConfig:
        """The config of a run in its folder; the tokens, which all share, are verified once, before the first."""
        config = self._config(run)
        data = dataclasses.replace(config.data, verify=False)
        return dataclasses.replace(config, workdir=str(self.folder(run)), data=data)

    def num_train_tokens(self, run: Run) -> int:
        """Tokens in all batches of a run."""
        return self._config(run).num_train_tokens

    def _config(self, run: Run) -> TrainConfig:
        """A config is checked when it is made, 2 ms, and a coordinator shares its cores with the runs."""
        if run not in self._configs:
            self._configs[run] = self.study.config(run)
        return self._configs[run]

    def result(self, run: Run) -> dict[str, Any] | None:
        """The `result.json` of a run that completed or diverged; None: it has not ended."""
        path = self.folder(run) / "result.json"
        return read_json(path, "remove it") if path.exists() else None

    def loss(self, run: Run) -> float | None:
        """The last `eval/loss` of a run that has ended, NaN where it diverged or failed; None: it has not ended."""
        result = self.result(run)
        if result is None:
            return math.nan if self.failure(run) is not None else None
        return result["eval/loss"] if result["status"] == "completed" else math.nan

    def losses(self, runs: Sequence[Run]) -> dict[Run, float]:
        """Those of them that have ended."""
        found = ((run, self.loss(run)) for run in runs)
        return {run: loss for run, loss in found if loss is not None}

    def failure(self, run: Run) -> str | None:
        """The last lines of a run's unit that crashed too often; None: it has not."""
        path = self._of_unit(self.id(run), "failed.json")
        return read_json(path, "remove it")["lines"] if path.exists() else None

    def fail(self, unit: Unit, lines: str) -> None:
        """Records that a unit has crashed too often."""
        write_atomically(self._of_unit(unit.id, "failed.json"), json.dumps({"lines": lines}).encode())

    def retry(self) -> int:
        """Forgets which units have failed; how many there were."""
        found = list((self.path / "units").glob("*.failed.json"))
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    def plan(self, run: Run, cores: int | None) -> Unit:
        """The unit of a run: as it is stored, or a new one, which is stored."""
        path = self._of_unit(self.id(run), "json")
        if path.exists():
            return self.unit(self.id(run))
        write_atomically(path, json.dumps({"runs": [run], "cores": cores}).encode())
        return Unit(self.id(run), (run,), cores)

    def unit(self, name: str) -> Unit:
        """The unit of this name.

        Raises:
          InputError: there is none.
        """
        dump = read_json(self._of_unit(name, "json"), "see `sweep units`")
        return Unit(name, tuple(map(_run, dump["runs"])), dump["cores"])

    def log(self, unit: str) -> Path:
        """Where the processes that train a unit print."""
        return self._of_unit(unit, "log")

    def _of_unit(self, name: str, suffix: str) -> Path:
        return self.path / "units" / f"{name}.{suffix}"


def _own(arm: Arm) -> dict[str, Any]:
    """What an arm's runs have in common."""
    return to_dict(arm.optimizer) | arm.values | {"rate": arm.rate}


def _without_optimizer(config: TrainConfig) -> dict[str, Any]:
    return {name: value for name, value in config.identity().items() if name != "optimizer"}


def _run(dump: Sequence[Any]) -> Run:
    setting, arm, changed, learning_rate, seed = dump
    return Run(setting, arm, tuple((name, value) for name, value in changed), learning_rate, seed)
