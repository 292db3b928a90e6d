"""The training loop: everything that touches files, clocks and signals, around the pure step."""

import contextlib
import dataclasses
import functools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxopt_lm import processes
from jaxopt_lm.chips import peak_flops
from jaxopt_lm.config import TrainConfig
from jaxopt_lm.data.batches import TrainBatches
from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.data.identity import check_text
from jaxopt_lm.data.prepare import is_prepared
from jaxopt_lm.data.tokens import VOCABULARY, Manifest, TokenStore
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.model import Params
from jaxopt_lm.model.huggingface.classes import why_not_exported
from jaxopt_lm.model.summary import flops_per_token, num_params
from jaxopt_lm.processes import StopSignals, StopTogether
from jaxopt_lm.runs.checkpoints import Checkpoints
from jaxopt_lm.runs.display import Display
from jaxopt_lm.runs.folder import RunFolder
from jaxopt_lm.runs.metrics import Diverged, MetricLog, MetricWriter, NoWriter
from jaxopt_lm.runs.read import Series, read_history, read_metrics, saved_steps
from jaxopt_lm.training import sharding
from jaxopt_lm.training.evaluation import Evaluator
from jaxopt_lm.training.loss import Batch
from jaxopt_lm.training.step import HParams, TelemetryOptions, TrainState


def ensure_tokens(config: TokensConfig, stop: StopSignals, begun: bool = False) -> bool:
    """Prepares the tokens in a child process unless `config.tokens_dir` holds them; TensorFlow stays out of this one.

    Args:
      config: of the tokens.
      stop: whether a signal has come.
      begun: whether a run has begun with them, whose checkpoints tell them apart: their text may change under it.

    Returns:
      Whether they are there; False where a signal came first, and ended the child too.

    Raises:
      InputError: the folder holds other tokens, or of a text that has changed, or they cannot be made.
    """
    if is_prepared(config):
        manifest = Manifest.read(Path(config.tokens_dir))
        if not begun or manifest.source.get("files") != config.files:
            check_text(config, manifest, sums=False)
        return True
    default = TokensConfig()
    fields = config.identity() | {"tokens_dir": config.tokens_dir}
    flags = [f"--{name}={value}" for name, value in fields.items() if value != getattr(default, name)]
    command = [sys.executable, "-m", "jaxopt_lm.prepare", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, errors = child.communicate(timeout=0.2)
                break
            if stop.received:
                child.terminate()
    if child.returncode == 2:
        raise InputError(errors.strip().splitlines()[-1].removeprefix("error: "))
    if stop.received:
        return False
    number = 2 if child.returncode == 130 else -child.returncode  # 130: a Ctrl-C that this process has not heard
    where = f"data.tokens_dir={config.tokens_dir}"
    require(number <= 0, f"{where}: preparing tokens was ended by signal {number}; run the same command again")
    if child.returncode:
        raise RuntimeError(f"preparing tokens ended with exit code {child.returncode}:\n{errors}")
    return True


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
      status: completed, diverged or interrupted.
      step: the last one; where diverged, the one whose metrics are not finite.
      metrics: the newest value of every metric; of tokens_per_sec, the median.
      signal: the number of the one that came, or None; it may have come too late to interrupt anything.
      history: by metric, the steps at which it was written and its values: `plt.plot(*history["eval/loss"])`.
      state: after the last step; None where the run diverged or a signal came while its tokens were prepared.
    """

    status: str
    step: int
    metrics: dict[str, float]
    signal: int | None = None
    history: dict[str, Series] = dataclasses.field(repr=False, compare=False, default_factory=dict)
    state: TrainState | None = dataclasses.field(repr=False, compare=False, default=None)

    @property
    def exit_code(self) -> int:
        """Of the command line: 0, 1, or 128 + the signal's number."""
        return {"completed": 0, "diverged": 1}.get(self.status, 128 + (self.signal or 0))


def train(config: TrainConfig, console: Console | None = None) -> Result:
    """Trains, or goes on training, the run in `config.workdir`; returns when it is done or has diverged.

    Leaves nothing behind in the process: two runs, one after the other, are as two processes.

    The first Ctrl-C or SIGTERM is said to be heard, and takes effect once the state is saved, after the step or batch
    of an evaluation under way. Ctrl-C raises KeyboardInterrupt, which ends a loop over runs, or a notebook's cell;
    SIGTERM raises SystemExit(143): a script's `finally` blocks are run, and it ends with that code. A handler that the
    caller had set is called instead; if it returns, so does `train`, with the status "interrupted". In several
    processes either signal, to any one, is a SIGTERM to all. The same call again goes on from the saved state. A second
    signal takes effect at once, as does one that comes where there is nothing to save (tokens are verified, a
    checkpoint is restored).

    Args:
      config: of the run.
      console: where progress is shown; the terminal, or the notebook's cell, by default.

    Raises:
      InputError: the config asks for what is not there (tokens, devices, a folder of its own).
      KeyboardInterrupt: Ctrl-C.
      SystemExit: SIGTERM.
    """
    result = run(config, console)
    if result.signal is not None:
        processes.pass_on(result.signal)
    return result


def run(config: TrainConfig, console: Console | None = None) -> Result:
    """`train` for a command line: a signal that came is in the result, and raises nothing."""
    processes.start(config.distributed)
    primary = processes.is_primary()
    console = (console or Console()) if primary else Console(quiet=True)
    stop = (StopSignals if jax.process_count() == 1 else StopTogether)(functools.partial(_say, console))
    with processes.ending_the_others(), contextlib.ExitStack() as stack:
        with processes.together():
            processes.check_agreement(config)
            folder = stack.enter_context(RunFolder(config)) if primary else None
            if reason := why_not_exported(config.model):
                _say(console, f"not exportable: {reason}")
            begun = bool(saved_steps(Path(config.workdir, "checkpoints")))
            with stop.listening("ending the preparation of the tokens"):
                prepared = ensure_tokens(config.data, stop, begun)
            trainer = _Trainer(config, folder, console, stop) if prepared else None
        if trainer is None:
            return Result("interrupted", 0, {}, stop.received)
        return trainer.run()


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


class _Trainer:
    """One process's work on one run."""

    def __init__(self, config: TrainConfig, folder: RunFolder | None, console: Console, stop: StopSignals):
        self.config, self.folder, self.console, self.stop = config, folder, console, stop
        self.path = Path(config.workdir)
        self.mesh = sharding.make_mesh(config.mesh)
        config.check_batch_divides(self.mesh.shape["data"], self.mesh.shape["fsdp"])
        self.train_store, self.eval_store = (
            TokenStore(config.data.tokens_dir, split, verify=config.data.verify) for split in ("train", "validation")
        )
        self.rows = sharding.Rows(self.mesh, config.global_batch_size)
        self.batches = TrainBatches(
            self.train_store,
            seed=config.data.seed,
            batch_size=config.global_batch_size,
            length=config.length,
            rows=self.rows.local,
        )
        self.evaluate = Evaluator(config, self.eval_store, self.mesh)
        self.hparams = HParams.of(config)
        every = config.logging.telemetry_every_steps
        options = TelemetryOptions(every, self.train_store.token_counts()) if every else None
        self.layout = sharding.abstract_state(config, self.mesh)
        self.train_step = sharding.jit_train_step(config, self.mesh, self.layout, options)
        self.meta = {"tokens": self.train_store.manifest.digest}

    def run(self) -> Result:
        config, path = self.config, self.path
        with contextlib.ExitStack() as stack, Checkpoints(path / "checkpoints", config.checkpoint) as checkpoints:
            for line in checkpoints.moved:
                self._say(f"warning: {line}")
            if checkpoints.moved and checkpoints.latest_step is None:
                self._say("warning: no sound checkpoint is left; starting from step 0")
            with processes.together():
                self._check_agreement(checkpoints.latest_step)
            state = self._init_or_restore(checkpoints)
            first = int(state.step)
            require(
                first == 0 or any(line["step"] == first for line in read_metrics(path)),
                f"{path / 'metrics.jsonl'}: has no line of step {first}, which is checkpointed; put the file back or "
                "give another --config.workdir",
            )
            with processes.together():
                if self.folder:
                    self.folder.begin(config)
                writer = MetricWriter(path, first, config) if self.folder else NoWriter()
            # Until the last save is on disk, which leaving `checkpoints` waits for.
            stack.enter_context(
                self.stop.listening("stopping after this step or batch of an evaluation, with the state saved")
            )
            with (
                writer,
                Display(self.console, first, config.num_train_steps) as display,
            ):
                try:
                    state, done = self._train(state, first, checkpoints, writer, self._log(writer, display))
                except Diverged as error:
                    return self._diverged(error, checkpoints.latest_step)
        return self._completed(state) if done else self._interrupted(state)

    def _train(
        self,
        state: TrainState,
        first: int,
        checkpoints: Checkpoints,
        writer: MetricWriter | NoWriter,
        log: MetricLog,
    ) -> tuple[TrainState, bool]:
        """The loop; the last state, and whether all is done.

        Before step s is saved, line s is on disk and finite: no checkpoint is ahead of its lines. A stop saves its step
        at once, and leaves out what is due there of an evaluation; whoever goes on makes it first, and amends line s.
        """
        config, poll = self.config, self.stop.poll
        if poll():
            return state, False
        if self._owes_evaluation(first):
            evaluation = self.evaluate(state, poll)
            if evaluation is None:
                return state, False
            log.write(first, evaluation, amend=first > 0)
        batches = self._batches(first)
        for step in range(first + 1, config.num_train_steps + 1):
            state, metrics = self.train_step(state, next(batches), self.hparams)
            log.push(step, metrics)
            stopping, evaluate = poll(), self._evaluates_at(step)
            save = stopping or step == config.num_train_steps or step % config.checkpoint.every_steps == 0
            if evaluate or save:
                values = log.settle()
                evaluation = self.evaluate(state, poll) if evaluate else {}
                stopping = stopping or evaluation is None
                log.write(step, values | (evaluation or {}))
            if save or stopping:
                writer.flush()
                checkpoints.save(step, state, self.meta)
            if stopping:
                return state, False
        return state, True

    def _evaluates_at(self, step: int) -> bool:
        return step == self.config.num_train_steps or step % self.config.eval.every_steps == 0

    def _owes_evaluation(self, step: int) -> bool:
        """Whether the newest line lacks an evaluation, as every process finds it in the primary's view of the file."""
        made = any(line["step"] == step and "eval/loss" in line for line in read_metrics(self.path))
        return processes.gather(str(self._evaluates_at(step) and not made))[0] == "True"

    def _log(self, writer: MetricWriter | NoWriter, display: Display) -> MetricLog:
        config, peak = self.config, peak_flops(self.mesh.devices.flat[0].device_kind)
        return MetricLog(
            writer,
            display,
            every_steps=config.logging.every_steps,
            telemetry_every_steps=config.logging.telemetry_every_steps,
            tokens_per_step=config.global_batch_size * config.length,
            flops_per_token=flops_per_token(config.model, config.length),
            peak=peak and peak * self.mesh.size,
        )

    def _init_or_restore(self, checkpoints: Checkpoints) -> TrainState:
        """The newest checkpoint's state, or a new one; on the mesh either way, never whole on one device of many."""

        step = checkpoints.latest_step
        if step is None:
            given = self._given_params()
            with self.stop.listening("stopping before the first step"):  # an exception amid compiling would crash
                return sharding.jit_init(self.config, self.layout)(*given)
        state, meta = checkpoints.restore(step, self.layout)
        require(
            self.train_store.manifest.has_digest(meta["tokens"]),
            f"data.tokens_dir={self.config.data.tokens_dir}: not the tokens that the run in {self.path} began "
            "with; put those back or give another --config.workdir",
        )
        self._say(f"resuming {self.path} from step {step}")
        return state

    def _given_params(self) -> list[Params]:
        """The parameters to start from; none where they are drawn."""
        if self.config.init_from is None:
            return []
        from jaxopt_lm.model import huggingface  # safetensors, for the runs that need it

        folder = self.config.init_from
        if not huggingface.check_vocabulary(folder, Path(self.config.data.tokens_dir, VOCABULARY)):
            self._say(f"init_from={folder}: holds no vocabulary; its rows are taken as those of the tokens' vocabulary")
        params = huggingface.read_params(folder, self.config.model)
        return [jax.device_put(params, sharding.shardings(self.layout.params))]

    def _check_agreement(self, latest_step: int | None) -> None:
        """Raises `InputError` unless every process has read these tokens and sees these checkpoints."""
        config, mine = self.config, [self.meta["tokens"], latest_step]
        for index, theirs in enumerate(map(json.loads, processes.gather(json.dumps(mine)))):
            require(
                theirs[0] == mine[0],
                f"data.tokens_dir={config.data.tokens_dir}: holds other tokens here than in process {index}; "
                "give every process the same",
            )
            require(
                theirs[1] == mine[1],
                f"workdir={config.workdir}: its newest checkpoint is {latest_step} here, {theirs[1]} in process "
                f"{index}; give a folder that all processes share",
            )

    def _batches(self, step: int) -> Iterator[Batch]:
        for tokens in self.batches.from_step(step):
            yield self.rows.place((tokens, np.ones(tokens.shape, np.float32)))

    def _newest_metrics(self) -> dict[str, Any]:
        """The newest value of every metric in `metrics.jsonl`, and the median of the tokens per second."""
        newest: dict[str, Any] = {"step": 0}
        lines = list(read_metrics(self.path))
        for line in lines:
            newest |= line
        rates = [line["tokens_per_sec"] for line in lines if "tokens_per_sec" in line]
        return newest | ({"tokens_per_sec": statistics.median(rates)} if rates else {})

    def _result(self, status: str, metrics: dict[str, Any], state: TrainState | None) -> Result:
        extra = {
            "eval/unigram_entropy": self.eval_store.split.unigram_entropy,
            "num_params": num_params(self.config.model),
        }
        if self.folder:
            self.folder.write_result({"status": status} | metrics | extra)
        return Result(status, metrics.pop("step"), metrics, self.stop.received, read_history(self.path), state)

    def _completed(self, state: TrainState) -> Result:
        metrics, entropy = self._newest_metrics(), self.eval_store.split.unigram_entropy
        loss, rate = metrics["eval/loss"], metrics.get("tokens_per_sec")
        side = "below" if loss <= entropy else "above"
        beside = f"{abs(entropy - loss):.3f} {side} the unigram entropy {entropy:.3f}"
        self._say(
            f"done: step {metrics['step']}, eval loss {loss:.3f} nats per token, {beside} of the validation tokens; "
            f"{metrics['eval/bits_per_byte']:.3f} bits per byte"
            + (f"; {rate:,.0f} tokens/s" if rate else "")
            + f"; see {self.path}"
        )
        return self._result("completed", metrics, state)

    def _diverged(self, error: Diverged, saved: int | None) -> Result:
        kept = f"the last good checkpoint, step {saved}, is kept" if saved else "no checkpoint was saved before"
        self._say(f"{error}; {kept}; try a lower learning rate in another --config.workdir")
        return self._result("diverged", self._newest_metrics() | {"step": error.step}, None)

    def _interrupted(self, state: TrainState) -> Result:
        metrics = self._newest_metrics()
        step = metrics.pop("step")
        self._say(f"stopped at step {step}; the same command goes on from there")
        return Result("interrupted", step, metrics, self.stop.received, read_history(self.path), state)

    def _say(self, text: str) -> None:
        _say(self.console, text)
