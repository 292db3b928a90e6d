"""A small study that is really trained, in this process: two optimizers, two fresh seeds."""

import dataclasses
from pathlib import Path

from jaxopt_lm.config import EvalConfig, TrainConfig
from jaxopt_lm.optimizers import AdamWConfig, LionConfig
from jaxopt_lm.runs.machine import available_cores
from jaxopt_lm.studies import Arm, Rules, Study
from jaxopt_lm.studies.coordinate import coordinate
from jaxopt_lm.studies.local import Ended
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.worker import work


class ThisProcess:
    """An engine with one slot: a unit is trained when it is submitted."""

    def __init__(self, workdir: Path):
        self._workdir = str(workdir)
        self.running: list[str] = []

    @property
    def free(self) -> int:
        return 1 - len(self.running)

    def submit(self, unit: str, log: Path) -> None:
        del log
        work(self._workdir, unit)
        self.running.append(unit)

    def poll(self, seconds: float) -> list[Ended]:
        del seconds
        ended, self.running = [Ended(unit, None) for unit in self.running], []
        return ended

    def cancel(self) -> None: ...

    def close(self) -> None: ...


def train_study(folder: Path, tokens_dir: Path, tiny: TrainConfig) -> None:
    """Trains it into a folder; `tiny` says what is not said here."""
    base = dataclasses.replace(
        tiny,
        workdir=str(folder),
        data=dataclasses.replace(tiny.data, tokens_dir=str(tokens_dir)),
        eval=EvalConfig(every_steps=10, batch_size=4, max_batches=2),
        num_train_steps=20,
    )
    adamw = Arm(name="adamw", optimizer=AdamWConfig(learning_rate=1e-2), learning_rates=(1e-3, 1e-2, 1e-1))
    lion = Arm(name="lion", optimizer=LionConfig(), learning_rates=(1e-3, 1e-2))
    rules = Rules(seeds=2, noise_seeds=2, max_extensions=1)
    store = Store(folder, Study(base=base, arms=(adamw, lion), rules=rules))
    with store.begin():
        engine = ThisProcess(folder)
        tell = say = lambda _: None
        coordinate(store, engine, available_cores(), tell=tell, say=say, stop=lambda: False)
