"""Metrics: read from the device one step late, checked, written, and shown."""

import contextlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import jax
from tensorboardX import SummaryWriter

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.data.tokens import write_atomically
from jaxopt_lm.dumps import to_dict
from jaxopt_lm.errors import writing
from jaxopt_lm.runs.display import Display
from jaxopt_lm.runs.read import read_metrics
from jaxopt_lm.runs.wandb import WandbLog


class Diverged(RuntimeError):
    """A metric stopped being finite.

    Attributes:
      step: at which.
      metric: its name.
      value: nan or an infinity.
    """

    def __init__(self, step: int, metric: str, value: float):
        super().__init__(f"training diverged at step {step}: {metric} is {value}")
        self.step, self.metric, self.value = step, metric, value


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


class Throughput:
    """Tokens per second of training, with the compilation, evaluations and saves left out."""

    def __init__(self, tokens_per_step: int):
        self._tokens_per_step = tokens_per_step
        self._since: tuple[int, float] | None = None

    def pause(self) -> None:
        """What follows, until the next tick, is not training."""
        self._since = None

    def tick(self, step: int) -> None:
        """Step `step` is done; after a pause, measuring starts here."""
        self._since = self._since or (step, time.perf_counter())

    def read(self, step: int) -> float | None:
        """Tokens per second since the last reading or pause, as step `step` is done; None if no step lies between."""
        first, then = self._since or (step, 0.0)
        self._since = (step, time.perf_counter())
        return (step - first) * self._tokens_per_step / (self._since[1] - then) if step > first else None


class MetricLog:
    """Turns the device's metrics into lines, one step late, so that the device never waits for the host.

    Args:
      writer: of the lines that are due.
      display: of the same.
      every_steps: a line is due at its multiples.
      telemetry_every_steps: metrics under `telemetry/` are written at its multiples, None: never; the others with them.
      tokens_per_step: in a global batch.
      flops_per_token: of forward and backward.
      peak: FLOP/s of all devices together, or None where it is not known.
    """

    def __init__(
        self,
        writer: MetricWriter | NoWriter,
        display: Display,
        *,
        every_steps: int,
        telemetry_every_steps: int | None,
        tokens_per_step: int,
        flops_per_token: int,
        peak: float | None,
    ):
        self._writer, self._display, self._every_steps = writer, display, every_steps
        self._telemetry_every_steps = telemetry_every_steps or math.inf
        self._tokens_per_step, self._flops_per_token, self._peak = tokens_per_step, flops_per_token, peak
        self._throughput = Throughput(tokens_per_step)
        self._pending: tuple[int, dict[str, jax.Array]] | None = None

    def push(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes step `step`'s metrics, not yet computed; reads the step's before, and writes them if they are due.

        Raises:
          Diverged: those of the step before are not finite.
        """
        if self._pending:
            before, _ = self._pending
            values = self._read()
            self._throughput.tick(before)
            if 0 in (before % self._every_steps, before % self._telemetry_every_steps):
                self.write(before, values | self._rate(before))
        self._pending = (step, metrics)

    def settle(self) -> dict[str, float]:
        """Waits for the metrics taken last and returns them, for the caller to write.

        Raises:
          Diverged: one is not finite.
        """
        if not self._pending:
            return {}
        step, _ = self._pending
        values = self._read() | self._rate(step)
        self._pending = None
        self._throughput.pause()
        return values

    def write(self, step: int, values: dict[str, float], *, amend: bool = False) -> None:
        """Writes and shows the line of step `step`; with `amend`, adds to it: it is the newest.

        Raises:
          Diverged: a value is not finite.
        """
        _check_finite(step, values)
        line = {"step": step, "tokens_seen": step * self._tokens_per_step} | values
        (self._writer.amend if amend else self._writer.write)(line)
        self._display.show(line)

    def _read(self) -> dict[str, float]:
        assert self._pending
        step, metrics = self._pending
        due = step % self._telemetry_every_steps == 0
        wanted = {name: value for name, value in metrics.items() if due or not name.startswith("telemetry/")}
        values = {name: float(value) for name, value in jax.device_get(wanted).items()}
        _check_finite(step, values)
        return values

    def _rate(self, step: int) -> dict[str, float]:
        rate = self._throughput.read(step)
        if rate is None:
            return {}
        utilisation = {"mfu": rate * self._flops_per_token / self._peak} if self._peak else {}
        return {"tokens_per_sec": rate} | utilisation


def _check_finite(step: int, values: dict[str, float]) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise Diverged(step, name, value)
