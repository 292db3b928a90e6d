"""The folder of a run: `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`, and at the end `result.json`.

`machines.json` lists what it was trained on, the first first, each `after_step` the step from which on it was there.
The source of an optimizer that is the user's own stands beside `config.json`; reading the config executes it.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxopt_lm.config import DistributedConfig, TrainConfig
from jaxopt_lm.dumps import sources, to_json
from jaxopt_lm.errors import require
from jaxopt_lm.files import locked_folder, write_atomically
from jaxopt_lm.runs import resume
from jaxopt_lm.runs.read import read_config, read_machines, saved_steps


class RunFolder:
    """The folder of a run, locked against a second process; a context manager.

    Raises:
      InputError: the folder cannot be made, another process trains in it, or it holds checkpoints of a run that
        does not go on with this config, see `resume.check_config`.
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
            resume.check_config(old, config, saved[-1])

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
