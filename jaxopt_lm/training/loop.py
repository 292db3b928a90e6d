"""The training loop of a run or of a population: pure steps and evaluations, one after another. Knows no files.

What it finds it tells an `Observer`; a run's folder is one. That a run diverges is data, not an exception: of several
members one may, and the others go on.
"""

import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import numpy as np

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.training.loss import Batch
from jaxopt_lm.training.program import Program
from jaxopt_lm.training.step import HParams, TrainState

Values = dict[str, np.ndarray]
"""Metrics by name: of one run scalars, of a population [members], NaN where a member has diverged."""

Evaluate = Callable[[TrainState, Callable[[], bool]], Values | None]
"""The metrics of a state; None where the function that is asked before every batch said to stop."""


class Due(NamedTuple):
    """What is due after which step.

    Attributes:
      num_train_steps: of the whole run; after the last all is due but telemetry.
      log_every_steps: metrics are told at its multiples, and wherever one of the following is due.
      eval_every_steps: evaluation; None: never.
      save_every_steps: saving; None: never.
      telemetry_every_steps: metrics under `telemetry/`; None: never.
    """

    num_train_steps: int
    log_every_steps: int = 1
    eval_every_steps: int | None = None
    save_every_steps: int | None = None
    telemetry_every_steps: int | None = None

    @classmethod
    def of(cls, config: TrainConfig) -> "Due":
        """The intervals of a run's config: of its sections logging, eval and checkpoint."""
        logging = config.logging
        intervals = logging.every_steps, config.eval.every_steps, config.checkpoint.every_steps
        return cls(config.num_train_steps, *intervals, logging.telemetry_every_steps)

    def evaluation(self, step: int) -> bool:
        return self.eval_every_steps is not None and self._last_or(step, self.eval_every_steps)

    def save(self, step: int) -> bool:
        return self.save_every_steps is not None and self._last_or(step, self.save_every_steps)

    def telemetry(self, step: int) -> bool:
        return self.telemetry_every_steps is not None and step % self.telemetry_every_steps == 0

    def metrics(self, step: int) -> bool:
        return self._last_or(step, self.log_every_steps) or self.telemetry(step)

    def _last_or(self, step: int, every: int) -> bool:
        return step == self.num_train_steps or step % every == 0


class Observer:
    """What `fit` tells, as it goes. Override what is wanted."""

    def metrics(self, step: int, values: Values) -> None:
        """The metrics of a step, and of the evaluation after it where one is due; of step 0 the evaluation alone."""

    def save(self, step: int, state: TrainState) -> None:
        """A state to keep, whose metrics have been told and are finite, of one member at least."""


class Divergence:
    """Which members have diverged: a metric stopped being finite. Arrays are scalars of one run, else [members].

    Attributes:
      alive: bool; those that have not.
      step: int64; the step whose metrics are not finite, 0 where alive.
      metric: object; the first of them, by name, "" where alive.
      value: float64; what it was, 0 where alive.
    """

    def __init__(self, members: int | None):
        shape = () if members is None else (members,)
        self.alive, self.step = np.ones(shape, bool), np.zeros(shape, np.int64)
        self.metric, self.value = np.full(shape, "", object), np.zeros(shape)

    def watch(self, step: int, values: Values) -> Values:
        """Takes the metrics of a step; returns them with NaN for the members that have diverged, then or before."""
        for name, value in values.items():
            broken = self.alive & ~np.isfinite(value)
            if broken.any():
                self.alive = self.alive & ~broken
                self.step, self.metric = np.where(broken, step, self.step), np.where(broken, name, self.metric)
                self.value = np.where(broken, value, self.value)
        return values if self.alive.all() else {name: np.where(self.alive, x, np.nan) for name, x in values.items()}


class Fitted(NamedTuple):
    """How a loop ended.

    Attributes:
      status: completed, interrupted or, where no member is alive, diverged.
      step: the last one that was made.
      state: after it.
      divergence: of its members.
    """

    status: Literal["completed", "interrupted", "diverged"]
    step: int
    state: TrainState
    divergence: Divergence


def fit(
    program: Program,
    state: TrainState,
    hparams: HParams,
    batches: Iterator[Batch],
    *,
    due: Due,
    observer: Observer,
    evaluate: Evaluate | None = None,
    owes_evaluation: bool = True,
    divergence: Divergence | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Fitted:
    """Trains from a state to the last step.

    A stop takes effect after the step, or the batch of an evaluation, under way: the state is told to be saved at once,
    and what is due of an evaluation is left out; the run that goes on makes it first.

    Args:
      program: of the run or the population.
      state: where to begin; donated.
      hparams: the numbers of the run or the population.
      batches: of the steps that follow, in order.
      due: what is due when.
      observer: is told.
      evaluate: makes the evaluations, see `Evaluator`; None: there are none.
      owes_evaluation: whether an evaluation that is due at the state given is still to be made.
      divergence: of a population that goes on, see `Fitted`; what is found is added to it. None: all are alive.
      stop: whether to stop, asked after every step.
    """
    step, readings = int(state.step), _Readings(due, observer, divergence or Divergence(program.members))

    def ended(status: Literal["completed", "interrupted"]) -> Fitted:
        return Fitted(status if readings.alive else "diverged", step, state, readings.divergence)

    if stop():
        return ended("interrupted")
    if evaluate and owes_evaluation and due.evaluation(step):
        found = evaluate(state, stop)
        if found is None or not readings.tell(step, found):
            return ended("interrupted")
    while step < due.num_train_steps:
        step += 1
        batch = next(batches)
        if due.telemetry(step):
            state, metrics = program.telemetry_step(state, batch, hparams)
            readings.pause_once()  # it has been compiled
        else:
            state, metrics = program.step(state, batch, hparams)
        if not readings.push(step, metrics, batch.tokens.size):
            return ended("completed")
        stopping, evaluating = stop(), evaluate is not None and due.evaluation(step)
        saving = stopping or due.save(step)
        if saving or evaluating:
            values = readings.settle()
            if values is None:
                return ended("completed")
            found = evaluate(state, stop) if evaluate and evaluating else {}
            stopping = stopping or found is None
            if not readings.tell(step, values | (found or {})):
                return ended("completed")
        if saving or stopping:
            observer.save(step, state)
        if stopping:
            return ended("interrupted")
    readings.finish()
    return ended("completed")


class _Readings:
    """Metrics, read from the device one step late, so that it never waits for the host."""

    def __init__(self, due: Due, observer: Observer, divergence: Divergence):
        self.divergence = divergence
        self._due, self._observer, self._throughput = due, observer, Throughput()
        self._pending: tuple[int, dict[str, jax.Array], int] | None = None
        self._paused = False

    @property
    def alive(self) -> bool:
        """Whether any member is."""
        return bool(self.divergence.alive.any())

    def push(self, step: int, metrics: dict[str, jax.Array], tokens: int) -> bool:
        """Takes a step's metrics, not yet computed, and reads those of the step before; whether any member is alive."""
        if self._pending:
            before, *_ = self._pending
            values = self._read()
            self._throughput.tick(before)
            if self.alive and self._due.metrics(before):
                self.tell(before, values | self._rate(before))
        self._pending = step, metrics, tokens
        return self.alive

    def pause_once(self) -> None:
        """The first time, what came before the next reading is not training."""
        if not self._paused:
            self._throughput.pause()
        self._paused = True

    def settle(self) -> Values | None:
        """Waits for the metrics taken last and returns them, for the caller to tell; None where no member is alive."""
        if not self._pending:
            return {}
        step, *_ = self._pending
        values = self._read()
        values |= self._rate(step)
        self._pending = None
        self._throughput.pause()
        return values if self.alive else None

    def finish(self) -> None:
        """Tells the metrics taken last."""
        if self._pending:
            step, *_ = self._pending
            values = self.settle()
            if values is not None:
                self.tell(step, values)

    def tell(self, step: int, values: Values) -> bool:
        """Tells the metrics of a step unless no member is alive after it; whether any is."""
        watched = self.divergence.watch(step, values)
        if self.alive:
            self._observer.metrics(step, watched)
        return self.alive

    def _read(self) -> Values:
        assert self._pending
        step, metrics, _ = self._pending
        values = {name: np.asarray(value, np.float64) for name, value in jax.device_get(metrics).items()}
        return self.divergence.watch(step, values)

    def _rate(self, step: int) -> Values:
        assert self._pending
        steps_per_second = self._throughput.read(step)
        if steps_per_second is None:
            return {}
        return {"tokens_per_sec": np.full(self.divergence.alive.shape, steps_per_second * self._pending[2])}


class Throughput:
    """Steps per second of training, with the compilation, evaluations and saves left out."""

    def __init__(self):
        self._since: tuple[int, float] | None = None

    def pause(self) -> None:
        """What follows, until the next tick, is not training."""
        self._since = None

    def tick(self, step: int) -> None:
        """Step `step` is done; after a pause, measuring starts here."""
        self._since = self._since or (step, time.perf_counter())

    def read(self, step: int) -> float | None:
        """Steps per second since the last reading or pause, as step `step` is done; None if no step is between."""
        first, then = self._since or (step, 0.0)
        self._since = (step, time.perf_counter())
        return (step - first) / (self._since[1] - then) if step > first else None
