"""The commands of `python -m jaxopt_lm.sweep`. What trains, measures and draws is imported where it is used."""

import collections
import dataclasses
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.console import Console

from jaxopt_lm import terminal
from jaxopt_lm.config import DataConfig, TrainConfig
from jaxopt_lm.config_io import WithConfig, config_flag, load_as, overridden, parse_command_line
from jaxopt_lm.data.tokens import TokenStore
from jaxopt_lm.errors import require
from jaxopt_lm.processes import StopSignals
from jaxopt_lm.studies.coordinate import coordinate, progress
from jaxopt_lm.studies.display import StudyDisplay, named
from jaxopt_lm.studies.local import Local, slots_of_this_machine
from jaxopt_lm.studies.search import Progress, choices, noise_runs
from jaxopt_lm.studies.slurm import Slurm, SlurmConfig, require_commands
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Rules, Run, Study
from jaxopt_lm.studies.table import table
from jaxopt_lm.training.ensure_tokens import ensure_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig(WithConfig):
    """What to run; `config` is what all runs share."""

    study: Rules = Rules()
    workers: int | None = None
    """At most so many processes of the engine local, one a core; None: one for every core this process may use."""
    engine: Literal["local", "slurm"] = "local"
    """What trains: processes of this machine, or jobs of a Slurm cluster."""
    slurm: SlurmConfig = SlurmConfig()
    dry_run: bool = False
    """Print what would be trained, and how long it takes by a measured step; train nothing."""
    measure: bool = True
    """With dry_run, measure that step; False: print counts, rates and numbers of every arm, for runs that this machine
    cannot train."""
    json: bool = False
    """Print that as JSON."""

    def __post_init__(self):
        require(self.workers is None or self.workers >= 1, f"workers={self.workers}: must be at least 1")
        require(self.measure or self.dry_run, "measure=False: is of a dry run; give --dry_run=True too")
        local, usual = self.engine == "local", SlurmConfig()
        for name, value in vars(self.slurm).items():
            same = value == getattr(usual, name)
            require(same or not local, f"engine=local: starts no jobs of slurm.{name}={value!r}; give --engine=slurm")
        require(local or self.workers is None, f"workers={self.workers}: engine=slurm starts jobs; give --slurm.jobs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyFolder:
    """Which study."""

    workdir: str
    """Folder of the study."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitsConfig(StudyFolder):
    """Which study, and how to print."""

    json: bool = False
    """Print JSON: a list of objects with id and runs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkConfig(StudyFolder):
    """Which study, and what of it."""

    unit: str
    """One of those that `sweep units` lists."""


def run(words: Sequence[str], description: str) -> int:
    """Runs a study to its end."""
    spec, flags = config_flag(words)
    study = load_as(Study, spec) if spec else None
    default = SweepConfig(config=study.base, study=study.rules) if study else SweepConfig(config=_NOBODYS)
    asked = overridden(default, description, flags)
    assert study
    same = asked.config.optimizer == study.base.optimizer
    require(same, "--config.optimizer: arms have optimizers of their own; name them in --config=FILE.py:optimizers=…")
    study = dataclasses.replace(study, base=asked.config, rules=asked.study)
    slots = slots_of_this_machine(asked.workers)
    if asked.dry_run:
        from jaxopt_lm.studies import estimate

        if asked.engine == "local" and slots[0] is not None:
            os.sched_setaffinity(0, slots[0])  # as the processes that would train, before JAX counts its cores
        workers = asked.slurm.jobs if asked.engine == "slurm" else len(slots)
        print(estimate.text(study, workers, as_json=asked.json, measure=asked.measure))
        return 0
    store = Store(Path(study.base.workdir), study)
    if asked.engine == "local":
        return _trained(store, lambda: Local(str(store.path), slots), None if slots[0] is None else len(slots[0]))
    require_commands()
    return _trained(store, lambda: Slurm(store, asked.slurm), asked.slurm.cpus_per_task)


_NOBODYS = TrainConfig(workdir="runs/NAME")  # whose fields `--help` shows without a config


def _trained(store: Store, begun_engine: Callable[[], Local | Slurm], cores: int | None) -> int:
    """Trains the study; the exit code.

    Args:
      store: the study.
      begun_engine: gives what trains its units, once the study's lock is held.
      cores: of each process of the engine.
    """
    console, begun = Console(), time.monotonic()
    stop = StopSignals(functools.partial(terminal.say, console))
    with store.begin(), stop.listening("stopping once every run under way has saved its state"):
        for data in _texts(store.study):
            if not ensure_tokens(data, stop):
                return 128 + (stop.received or 0)
            for split in ("train", "validation") if data.verify else ():
                TokenStore(data.tokens_dir, split, verify=True)
        with begun_engine() as engine, StudyDisplay(console, store) as display:
            noise = _Noise(store, display.say)

            def tell(at: Progress) -> None:
                display.show(at, engine.running)
                noise.tell(at)

            status = coordinate(store, engine, cores, tell=tell, say=display.say, stop=stop.poll)
    if status == "interrupted":
        print("stopped; the same command goes on from there")
        return 128 + (stop.received or 0)
    from jaxopt_lm.studies import conclude, page

    report = conclude.collect(store.path)
    for sentence in report.verdicts["sentence"]:
        print(f"{sentence}.")
    print(f"done in {time.monotonic() - begun:.0f} s; {_counts(report.table)}; see {page.write(report, store.path)}")
    return 0


class _Noise:
    """Says once how far apart equal runs of the baseline are, when they have ended."""

    def __init__(self, store: Store, say: Callable[[str], None]):
        self._store, self._say, self._said = store, say, False

    def tell(self, at: Progress) -> None:
        study, rules = self._store.study, self._store.study.rules
        if self._said or rules.noise_seeds < 2 or not all(run in at.losses for run in noise_runs(study)):
            return
        from jaxopt_lm.studies.verdicts import noise

        self._said, arm = True, study.baseline
        rate, seeds = arm.optimizer.learning_rate, rules.seeds
        for found in noise(table(self._store, at.losses), arm.name, rate, seeds, rules.level):
            where = f"{found.setting}: " if found.setting else ""
            self._say(
                f"{where}{found.n} seeds of {arm.name} at {rate:g} deviate by {found.deviation:.4f} nats; "
                f"{seeds} seeds find a difference of {found.detectable:.4f} with 80% power, or less where a seed moves "
                "two optimizers alike"
            )


def _texts(study: Study) -> list[DataConfig]:
    """The data of the study's runs, each once."""
    arm = study.baseline
    runs = [Run(setting, arm.name, (), arm.learning_rates[0], 0) for setting in study.setting_names]
    return list(dict.fromkeys(study.config(each).data for each in runs))


def _counts(runs: pd.DataFrame) -> str:
    """`31 of 40 runs ended, 2 diverged`."""
    found = collections.Counter(runs["status"])
    ended = found["completed"] + found["diverged"]
    rest = ", ".join(f"{found[name]} {name}" for name in ("diverged", "failed") if found[name])
    return f"{ended} of {found.total()} runs ended" + (f", {rest}" if rest else "")


def status(words: Sequence[str], description: str) -> None:
    """Prints what has ended, what is open and what was chosen."""
    store = Store.read(Path(parse_command_line(StudyFolder, description, words).workdir))
    at = progress(store)
    print(_counts(table(store, at.runs)))
    for choice in choices(store.study, at.losses):
        where = " ".join(filter(None, (choice.setting, choice.arm, choice.changed)))
        bound = "" if choice.inside else ", a bound: it has no finished neighbour on one side"
        print(f"{where}: best at {choice.learning_rate:g}, {choice.loss:.4f} nats on the tuning seed{bound}")
    for run in at.open:
        print(f"open: {named(run)} ({store.id(run)})")
    for run in at.runs:
        if lines := store.failure(run):
            print(f"failed: {named(run)} ({store.id(run)}): {lines}")


def retry(words: Sequence[str], description: str) -> None:
    """Forgets which units crashed too often, so that the next run of the study begins them again."""
    store = Store.read(Path(parse_command_line(StudyFolder, description, words).workdir))
    print(f"{store.retry()} units will be begun again")


def prune(words: Sequence[str], description: str) -> None:
    """Removes the checkpoints of runs that have ended; figures and tables need none."""
    store = Store.read(Path(parse_command_line(StudyFolder, description, words).workdir))
    freed = 0
    with store.begin():
        for run in progress(store).losses:
            folder = store.folder(run) / "checkpoints"
            freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{freed / 1e6:,.0f} MB freed")


def units(words: Sequence[str], description: str) -> None:
    """Prints the units that are open."""
    asked = parse_command_line(UnitsConfig, description, words)
    store = Store.read(Path(asked.workdir))
    with store.begin():
        planned = [store.plan(each, None) for each in progress(store).open]
    if asked.json:
        print(json.dumps([{"id": unit.id, "runs": [named(each) for each in unit.runs]} for unit in planned]))
    else:
        print(*(f"{unit.id}  {', '.join(map(named, unit.runs))}" for unit in planned), sep="\n")


def work(words: Sequence[str], description: str) -> int:
    """Trains one unit in this process."""
    asked = parse_command_line(WorkConfig, description, words)
    from jaxopt_lm.studies import worker

    return {"done": 0, "interrupted": 143}[worker.work(asked.workdir, asked.unit)]
