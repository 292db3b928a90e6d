"""The folder of a run: `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`, and at the end `result.json`.

`machines.json` lists what it was trained on, the first first, each `after_step` the step from which on it was there.
The source of an optimizer that is the user's own stands beside `config.json`; reading the config executes it.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_lm.config import DistributedConfig, TrainConfig
from jaxopt_lm.dumps import differences, sources, to_json
from jaxopt_lm.errors import require
from jaxopt_lm.files import locked_folder, write_atomically
from jaxopt_lm.runs.read import read_config, read_machines, saved_steps

_LENGTHS = ("num_train_steps", "schedule.warmup_", "schedule.decay_")
"""Fields that may differ where every step so far would have had the same rate."""


def _changed(name: str, old: Any, new: Any, dump: dict[str, Any]) -> str:
    """A field that differs from the run's, in words; `dump` has the new one."""
    *sections, field = name.split(".")
    if field == "source_sha256" and old and new:
        own = functools.reduce(dict.__getitem__, sections, dump)["name"]
        return f"the source of {'.'.join(sections)}={own} (the run keeps the one it began with)"
    return f"{name}={new!r} (the run has {old!r})"


def _first_other_rate(old: TrainConfig, new: TrainConfig, step: int) -> int | None:
    """The first of so many steps to which the schedules of two configs give different rates; None: there is none."""

    def multipliers(config: TrainConfig) -> np.ndarray:
        lead = config.optimizer.calibration_steps
        return np.asarray(config.schedule.multiplier(np.arange(step), config.num_train_steps, lead))

    different = np.flatnonzero(multipliers(old) != multipliers(new))
    return int(different[0]) + 1 if different.size else None


class RunFolder:
    """The folder of a run, locked against a second process; a context manager.

    Raises:
      InputError: the folder cannot be made, another process trains in it, or it holds checkpoints of a run with another
        config; the differing fields are named. What `TrainConfig.identity` leaves out may differ, and the run's length
        and its schedule's, where the steps already made would have had the same rates.
    """

    def __init__(self, config: TrainConfig):
        self.path = Path(config.workdir)
        self._lock = locked_folder(config.workdir, "trains there; wait or give another")
        try:
            self._check_config(config)
        except BaseException:
            self._lock.close()
            raise

    def _check_config(self, config: TrainConfig) -> None:
        checkpoints = self.path / "checkpoints"
        require(
            checkpoints.is_dir() or not checkpoints.exists(), f"{checkpoints}: is a file, must be a folder or not exist"
        )
        saved = saved_steps(checkpoints)
        old = read_config(self.path) if saved or (self.path / "config.json").exists() else config
        if saved:
            self._refuse_changes(old, config, saved[-1])

    def _refuse_changes(self, old: TrainConfig, new: TrainConfig, step: int) -> None:
        """Raises `InputError` unless the run, which is at `step`, would be where it is with the new config too."""
        identity = new.identity()
        refused = differences(old.identity(), identity)
        if not refused:
            return
        listed = ", ".join(_changed(name, *values, identity) for name, values in refused.items())
        mend = "give another --config.workdir"
        lengths_alone = all(name.startswith(_LENGTHS) for name in refused)
        require(lengths_alone, f"{listed}: cannot change in {self.path}; {mend}")
        require(step <= new.num_train_steps, f"{listed}: {self.path} is at step {step} already; {mend}")
        other = _first_other_rate(old, new, step)
        require(
            other is None,
            f"{listed}: in {self.path} step {other}, which is done, would have had another learning rate; {mend}. A "
            "length may change where the schedule so far does not depend on it: constant, inverse_sqrt, "
            "warmup_stable_decay before its decay (and with warmup_steps, not warmup_fraction)",
        )

    def begin(self, config: TrainConfig) -> None:
        """Writes `config.json` and the sources of a user's own classes beside it, and removes an older `result.json`.

        From here on the folder is this run's.
        """
        config = dataclasses.replace(config, distributed=DistributedConfig())  # of these processes, not of the run
        for name, content in sources(config).items():
            write_atomically(self.path / name, content)
        write_atomically(self.path / "config.json", to_json(config).encode())
        (self.path / "result.json").unlink(missing_ok=True)

    def trained_on(self, machine: dict[str, Any], step: int) -> None:
        """Adds what the steps after `step` are trained on to `machines.json`, and removes what trained them before.

        Raises:
          InputError: the file is damaged.
        """
        kept = [each for each in read_machines(self.path) if each["after_step"] < step]
        if not kept or kept[-1] != {"after_step": kept[-1]["after_step"]} | machine:
            kept.append({"after_step": step} | machine)
        write_atomically(self.path / "machines.json", (json.dumps(kept, indent=2) + "\n").encode())

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        self._lock.close()

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes `result.json`, atomically."""
        write_atomically(self.path / "result.json", (json.dumps(result, indent=2, sort_keys=True) + "\n").encode())
