"""What a process does with a unit of a study: train its run, in its folder, on its cores."""

import sys
from pathlib import Path
from typing import Literal

from rich.console import Console

from jaxopt_lm import compilation_cache
from jaxopt_lm.errors import require
from jaxopt_lm.files import lock
from jaxopt_lm.runs.machine import available_cores
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Run
from jaxopt_lm.training.run import run


def work(workdir: str, name: str) -> Literal["done", "interrupted"]:
    """Trains a unit to its end, or until a signal comes; begins where it stopped. What has ended is not repeated.

    Raises:
      InputError: there is no such unit, it was begun on another number of cores, or its run cannot go on.
    """
    store = Store.read(Path(workdir))
    unit, cores = store.unit(name), available_cores()
    require(
        unit.cores in (None, cores),
        f"unit {name}: was begun on {unit.cores} cores, this process may use {cores}; give it as many (taskset)",
    )
    compilation_cache.enable()
    for each in unit.runs:
        if store.result(each) is None and _train(store, each) == "interrupted":
            return "interrupted"
    return "done"


def _train(store: Store, each: Run) -> str:
    """The status of a run that is trained to its end, or until a signal comes."""
    store.folder(each).mkdir(exist_ok=True)
    if leaving := lock(store.folder(each) / ".lock", wait=True):  # a process whose coordinator was killed may yet end
        leaving.close()
    return run(store.config(each), Console(file=sys.stdout, width=120)).status
