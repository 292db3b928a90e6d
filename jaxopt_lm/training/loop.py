"""The training loop: everything that touches files, clocks and signals, around the pure step."""

import dataclasses
import math
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxopt_lm.config import DataConfig, TrainConfig
from jaxopt_lm.data.batches import EvalBatches, TrainBatches
from jaxopt_lm.data.prepare import is_prepared
from jaxopt_lm.data.tokens import TokenStore
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.model.summary import flops_per_token, num_params
from jaxopt_lm.optimizers import eval_params
from jaxopt_lm.training import sharding
from jaxopt_lm.training.checkpoints import Checkpoints
from jaxopt_lm.training.display import Display
from jaxopt_lm.training.loss import Batch
from jaxopt_lm.training.metrics import Diverged, MetricLog, MetricWriter, peak_flops
from jaxopt_lm.training.run import RunFolder, read_metrics
from jaxopt_lm.training.step import HParams, TelemetryOptions, TrainState, init_state, make_eval_step, make_train_step


def ensure_tokens(config: DataConfig) -> None:
    """Prepares the tokens in a child process unless `config.tokens_dir` holds them; TensorFlow stays out of this one.

    Raises:
      InputError: the folder holds other tokens, or they cannot be made.
    """
    if is_prepared(Path(config.tokens_dir), config.task, config.vocab_size):
        return
    command = [sys.executable, "-m", "jaxopt_lm.prepare", f"--task={config.task}", f"--out={config.tokens_dir}"]
    child = subprocess.run(
        [*command, f"--vocab_size={config.vocab_size}"], stderr=subprocess.PIPE, text=True, check=False
    )
    if child.returncode == 2:
        raise InputError(child.stderr.strip().splitlines()[-1].removeprefix("error: "))
    if child.returncode:
        raise RuntimeError(f"preparing tokens ended with exit code {child.returncode}:\n{child.stderr}")


class StopSignals:
    """Within this context the first SIGINT or SIGTERM is remembered; a second one ends the process.

    Attributes:
      received: the number of the signal that came, or None.
    """

    def __init__(self):
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: Any) -> None:
        del frame
        self.received = number
        self.__exit__()

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
      status: completed, diverged or interrupted.
      step: the last one; where diverged, the one whose metrics are not finite.
      metrics: the newest value of every metric; of tokens_per_sec, the median.
      exit_code: of the command line: 0, 1, or 128 + the signal's number.
    """

    status: str
    step: int
    metrics: dict[str, float]
    exit_code: int


def train(config: TrainConfig, console: Console | None = None) -> Result:
    """Trains, or goes on training, the run in `config.workdir`; returns when it is done, has diverged or was stopped.

    Raises:
      InputError: the config asks for what is not there (tokens, devices, a folder of its own).
    """
    console = console or Console()
    with RunFolder(config) as folder:
        ensure_tokens(config.data)
        trainer = _Trainer(config, folder, console)
        with StopSignals() as stop:
            return trainer.run(stop)


class _Trainer:
    """One process's work on one run."""

    def __init__(self, config: TrainConfig, folder: RunFolder, console: Console):
        self.config, self.folder, self.console = config, folder, console
        wide = "float64" in (config.model.param_dtype, config.model.compute_dtype)
        require(
            not wide or jax.dtypes.canonicalize_dtype("float64") == "float64",
            "model dtype float64: jax has it switched off; set the environment variable JAX_ENABLE_X64=1",
        )
        self.mesh = sharding.make_mesh(config.mesh)
        config.check_batch_divides(self.mesh.shape["data"])
        self.train_store = TokenStore(config.data.tokens_dir, "train")
        self.eval_store = TokenStore(config.data.tokens_dir, "validation")
        self.batches = TrainBatches(
            self.train_store, seed=config.data.seed, batch_size=config.global_batch_size, length=config.length
        )
        self.eval_batches = EvalBatches(
            self.eval_store,
            batch_size=config.eval.batch_size,
            length=config.length,
            max_batches=config.eval.max_batches,
        )
        self.hparams = HParams.of(config)
        every = config.logging.telemetry_every_steps
        options = TelemetryOptions(every, self.train_store.token_counts()) if every else None
        self.train_step = jax.jit(make_train_step(config.model, config.num_microbatches, options), donate_argnums=0)
        self.eval_step = jax.jit(make_eval_step(config.model))
        self.meta = {"tokens": self.train_store.manifest.digest}

    def run(self, stop: StopSignals) -> Result:
        config, path = self.config, self.folder.path
        with Checkpoints(path / "checkpoints", config.checkpoint) as checkpoints:
            state = self._init_or_restore(checkpoints)
            first = int(state.step)
            require(
                first == 0 or any(line["step"] == first for line in read_metrics(path)),
                f"{path / 'metrics.jsonl'}: has no line of step {first}, which is checkpointed; put the file back or "
                "give another --config.workdir",
            )
            self.folder.begin(config)
            with (
                MetricWriter(path, first, config.logging.tensorboard) as writer,
                Display(self.console, first, config.num_train_steps) as display,
            ):
                try:
                    self._train(state, first, checkpoints, writer, self._log(writer, display), stop)
                except Diverged as error:
                    return self._diverged(error, checkpoints.latest_step)
        if stop.received and checkpoints.latest_step != config.num_train_steps:
            return self._interrupted(stop.received)
        return self._completed()

    def _train(
        self,
        state: TrainState,
        first: int,
        checkpoints: Checkpoints,
        writer: MetricWriter,
        log: MetricLog,
        stop: StopSignals,
    ) -> None:
        """The loop. Before step s is saved, line s is on disk and finite: no checkpoint is ahead of its lines."""
        config = self.config
        if first == 0:
            log.write(0, self._evaluate(state))
        batches = self._batches(first)
        for step in range(first + 1, config.num_train_steps + 1):
            state, metrics = self.train_step(state, next(batches), self.hparams)
            log.push(step, metrics)
            done, stopping = step == config.num_train_steps, stop.received is not None
            evaluate = done or step % config.eval.every_steps == 0
            save = done or stopping or step % config.checkpoint.every_steps == 0
            if evaluate or save:
                values = log.settle()
                log.write(step, values | (self._evaluate(state) if evaluate else {}))
            if save:
                writer.flush()
                checkpoints.save(step, state, self.meta)
            if stopping:
                return

    def _log(self, writer: MetricWriter, display: Display) -> MetricLog:
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
        """The newest checkpoint's state, or a new one; on the mesh either way."""
        everywhere = sharding.replicated(self.mesh)

        def new_state() -> TrainState:
            return init_state(self.config.model, self.hparams, jax.random.key(self.config.seed))

        step = checkpoints.latest_step
        if step is None:
            return jax.jit(new_state, out_shardings=everywhere)()
        state, meta = checkpoints.restore(step, jax.eval_shape(new_state), everywhere)
        require(
            meta == self.meta,
            f"data.tokens_dir={self.config.data.tokens_dir}: not the tokens that the run in {self.folder.path} began "
            "with; put those back or give another --config.workdir",
        )
        self._say(f"resuming {self.folder.path} from step {step}")
        return state

    def _batches(self, step: int) -> Iterator[Batch]:
        is_target = np.ones((self.config.global_batch_size, self.config.length), np.float32)
        for tokens in self.batches.from_step(step):
            yield self._place(tokens, is_target)

    def _place(self, tokens: np.ndarray, is_target: np.ndarray) -> Batch:
        return jax.device_put(Batch(tokens, is_target), sharding.batch_sharding(self.mesh))  # pyright: ignore

    def _evaluate(self, state: TrainState) -> dict[str, float]:
        """Mean cross-entropy in nats over the fixed validation batches, its perplexity, and bits per byte of text.

        Of the parameters that the optimizer says are to be evaluated, see `eval_params`.
        Bytes are those of the whole validation split before the vocabulary's normalisation, which joins white space.
        """
        params = eval_params(state.opt_state, state.params)
        sums = [self.eval_step(params, self._place(*batch)) for batch in self.eval_batches]
        ce, count = (math.fsum(float(x) for x in column) for column in zip(*sums, strict=True))
        loss = ce / count
        bits_per_byte = loss / math.log(2) / self.eval_store.split.bytes_per_token
        perplexity = {"eval/perplexity": math.exp(loss)} if loss < 700 else {}  # beyond, exp overflows
        return {"eval/loss": loss, "eval/bits_per_byte": bits_per_byte} | perplexity

    def _newest_metrics(self) -> dict[str, Any]:
        """The newest value of every metric in `metrics.jsonl`, and the median of the tokens per second."""
        newest: dict[str, Any] = {"step": 0}
        lines = list(read_metrics(self.folder.path))
        for line in lines:
            newest |= line
        rates = [line["tokens_per_sec"] for line in lines if "tokens_per_sec" in line]
        return newest | ({"tokens_per_sec": statistics.median(rates)} if rates else {})

    def _result(self, status: str, exit_code: int, metrics: dict[str, Any]) -> Result:
        extra = {
            "eval/unigram_entropy": self.eval_store.split.unigram_entropy,
            "num_params": num_params(self.config.model),
        }
        self.folder.write_result({"status": status} | metrics | extra)
        return Result(status, metrics.pop("step"), metrics, exit_code)

    def _completed(self) -> Result:
        metrics, entropy = self._newest_metrics(), self.eval_store.split.unigram_entropy
        loss, rate = metrics["eval/loss"], metrics.get("tokens_per_sec")
        side = "below" if loss <= entropy else "above"
        beside = f"{abs(entropy - loss):.3f} {side} the unigram entropy {entropy:.3f}"
        self._say(
            f"done: step {metrics['step']}, eval loss {loss:.3f} nats per token, {beside} of the validation tokens; "
            f"{metrics['eval/bits_per_byte']:.3f} bits per byte"
            + (f"; {rate:,.0f} tokens/s" if rate else "")
            + f"; see {self.folder.path}"
        )
        return self._result("completed", 0, metrics)

    def _diverged(self, error: Diverged, saved: int | None) -> Result:
        kept = f"the last good checkpoint, step {saved}, is kept" if saved else "no checkpoint was saved before"
        self._say(f"{error}; {kept}; try a lower learning rate in another --config.workdir")
        return self._result("diverged", 1, self._newest_metrics() | {"step": error.step})

    def _interrupted(self, number: int) -> Result:
        metrics = self._newest_metrics()
        step = metrics.pop("step")
        self._say(f"stopped at step {step}; the same command goes on from there")
        return Result("interrupted", step, metrics, 128 + number)

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)
