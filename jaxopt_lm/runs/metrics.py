"""Lines of metrics: written to `metrics.jsonl`, TensorBoard and Weights & Biases."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.dumps import to_dict
from jaxopt_lm.errors import writing
from jaxopt_lm.files import write_atomically
from jaxopt_lm.runs.read import read_metrics
from jaxopt_lm.runs.wandb import WandbLog


class MetricWriter:
    """Writes lines of metrics to `metrics.jsonl` and, where asked, to TensorBoard and wandb; a context manager.

    Args:
      folder: of the run.
      step: the step training goes on from: later lines are of work that was lost, and are removed; at step 0 all are.
      config: of the run; its `logging` says where to.

    Raises:
      InputError: the disk is full, or wandb is asked for and cannot start.
    """

    def __init__(self, folder: Path, step: int, config: TrainConfig):
        project, purge = config.logging.wandb_project, step + 1 if step else 0
        self._folder, self._path, events = folder, folder / "metrics.jsonl", str(folder / "tensorboard")
        self._rewrite([line for line in read_metrics(folder) if step and line["step"] <= step])
        with contextlib.ExitStack() as stack:  # what is open is closed, also where the next cannot be opened
            self._file = stack.enter_context(open(self._path, "a", encoding="utf-8"))
            self._events = SummaryWriter(events, purge_step=purge) if config.logging.tensorboard else None
            if self._events:
                stack.callback(self._events.close)
            self._wandb = WandbLog(folder, project, to_dict(config)) if project else None
            if self._wandb:
                stack.callback(self._wandb.close)
            self._open = stack.pop_all()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        with writing(self._path):
            self._open.close()

    def write(self, line: dict[str, Any]) -> None:
        """Writes one line; `line["step"]` grows from line to line, the rest are finite numbers."""
        with writing(self._path):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        self._send(line)

    def amend(self, line: dict[str, Any]) -> None:
        """Adds to the newest line what it lacks of this one, which is of its step, in one atomic step."""
        *lines, newest = read_metrics(self._folder)
        self._rewrite([*lines, newest | line])
        self._file = self._open.enter_context(open(self._path, "a", encoding="utf-8"))  # noqa: SIM115  ruff sees no stack
        self._send({name: value for name, value in line.items() if name == "step" or name not in newest})

    def _rewrite(self, lines: list[dict[str, Any]]) -> None:
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    def _send(self, line: dict[str, Any]) -> None:
        if self._wandb:
            self._wandb.write(line)
        if self._events:
            for name, value in line.items():
                self._events.add_scalar(name, value, line["step"])

    def flush(self) -> None:
        """Returns when every line is on disk."""
        with writing(self._path):
            os.fsync(self._file.fileno())
        if self._events:
            self._events.flush()


class NoWriter:
    """What a process that is not the primary has in place of a `MetricWriter`: writes nothing."""

    def __enter__(self) -> "NoWriter":
        return self

    def __exit__(self, *exception: object) -> None: ...

    def write(self, line: dict[str, Any]) -> None: ...

    def amend(self, line: dict[str, Any]) -> None: ...

    def flush(self) -> None: ...
