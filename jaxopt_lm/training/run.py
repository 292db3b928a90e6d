"""One run from its config to its result: tokens, folder, checkpoints and signals around the loop."""

import contextlib
import dataclasses
import functools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from jaxopt_lm import processes, terminal
from jaxopt_lm.chips import peak_flops
from jaxopt_lm.config import TrainConfig
from jaxopt_lm.data.tokens import VOCABULARY
from jaxopt_lm.errors import require
from jaxopt_lm.model.huggingface.classes import why_not_exported
from jaxopt_lm.model.summary import flops_per_token, num_params
from jaxopt_lm.processes import StopSignals, StopTogether
from jaxopt_lm.runs import resume
from jaxopt_lm.runs.checkpoints import Checkpoints
from jaxopt_lm.runs.display import Display
from jaxopt_lm.runs.folder import RunFolder
from jaxopt_lm.runs.machine import machine
from jaxopt_lm.runs.metrics import MetricWriter, NoWriter
from jaxopt_lm.runs.read import Series, read_history, read_metrics, saved_steps
from jaxopt_lm.training import sharding
from jaxopt_lm.training.ensure_tokens import ensure_tokens
from jaxopt_lm.training.loop import Divergence, Due, Fitted, Observer, Values, fit
from jaxopt_lm.training.setup import Setup
from jaxopt_lm.training.step import TrainState

Say = Callable[[str], None]


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

    Two runs, one after the other, are as two processes; but what the first has compiled serves the second, if they
    differ in numbers alone (see `Program`).

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
    say: Say = functools.partial(terminal.say, console)
    stop = (StopSignals if jax.process_count() == 1 else StopTogether)(say)
    with processes.ending_the_others(), contextlib.ExitStack() as stack:
        with processes.together():
            processes.check_agreement(config)
            folder = stack.enter_context(RunFolder(config)) if primary else None
            if reason := why_not_exported(config.model):
                say(f"not exportable: {reason}")
            begun = bool(saved_steps(Path(config.workdir, "checkpoints")))
            with stop.listening("ending the preparation of the tokens"):
                prepared = ensure_tokens(config.data, stop, begun)
            ready = Setup.of(config) if prepared else None
        if ready is None:
            return Result("interrupted", 0, {}, stop.received)
        return _trained(ready, folder, console, say, stop)


def _trained(ready: Setup, folder: RunFolder | None, console: Console, say: Say, stop: StopSignals) -> Result:
    """One process's work on one run; `folder` is the primary's."""
    config, path = ready.config, Path(ready.config.workdir)
    with contextlib.ExitStack() as stack, Checkpoints(path / "checkpoints", config.checkpoint) as checkpoints:
        for line in checkpoints.moved:
            say(f"warning: {line}")
        if checkpoints.moved and checkpoints.latest_step is None:
            say("warning: no sound checkpoint is left; starting from step 0")
        with processes.together():
            _check_agreement(ready, checkpoints.latest_step)
        if checkpoints.latest_step is None:
            state = _first_state(ready, say, stop)
        else:
            state = _restored(ready, checkpoints, checkpoints.latest_step)
            say(f"resuming {path} from step {checkpoints.latest_step}")
        first = int(state.step)
        resume.check_metrics(path, first)
        with processes.together():
            if folder:
                folder.begin(config)
                if first < config.num_train_steps:
                    folder.trained_on(machine(ready.program.mesh), first)
            writer = MetricWriter(path, first, config) if folder else NoWriter()
        # Until the last save is on disk, which leaving `checkpoints` waits for.
        stack.enter_context(stop.listening("stopping after this step or batch of an evaluation, with the state saved"))
        with writer, Display(console, first, config.num_train_steps) as display:
            fitted = fit(
                ready.program,
                state,
                ready.hparams,
                ready.batches(first),
                due=Due.of(config),
                observer=_Record(ready, writer, checkpoints, display, first),
                evaluate=ready.evaluate,
                owes_evaluation=_lacks_evaluation(path, first),
                stop=stop.poll,
            )
        saved = checkpoints.latest_step
    return _result(ready, fitted, saved, folder, say, stop.received)


class _Record(Observer):
    """Puts a run into its folder, and shows it."""

    def __init__(
        self, ready: Setup, writer: MetricWriter | NoWriter, checkpoints: Checkpoints, display: Display, first: int
    ):
        self._writer, self._checkpoints, self._display, self._first = writer, checkpoints, display, first
        config, devices = ready.config, ready.program.mesh.devices
        self._meta, self._tokens_per_step = _meta(ready), config.tokens_per_step
        peak = peak_flops(devices.flat[0].device_kind)
        self._mfu_per_rate = flops_per_token(config.model, config.length) / (peak * devices.size) if peak else None

    def metrics(self, step: int, values: Values) -> None:
        line: dict[str, Any] = {"step": step, "tokens_seen": step * self._tokens_per_step}
        line |= {name: float(value) for name, value in values.items()}
        if self._mfu_per_rate and "tokens_per_sec" in line:
            line["mfu"] = line["tokens_per_sec"] * self._mfu_per_rate
        (self._writer.amend if 0 < step == self._first else self._writer.write)(line)
        self._display.show(line)

    def save(self, step: int, state: TrainState) -> None:
        self._writer.flush()  # no checkpoint is ahead of its lines
        self._checkpoints.save(step, state, self._meta)


def _meta(ready: Setup) -> dict[str, Any]:
    """What is kept beside a state: what it was trained on."""
    return {"tokens": ready.train.manifest.digest}


def _check_agreement(ready: Setup, latest_step: int | None) -> None:
    """Raises `InputError` unless every process has read these tokens and sees these checkpoints."""
    config, mine = ready.config, [_meta(ready)["tokens"], latest_step]
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


def _lacks_evaluation(path: Path, step: int) -> bool:
    """Whether the newest line does, as every process finds it in the primary's view of the file."""
    made = any(line["step"] == step and "eval/loss" in line for line in read_metrics(path))
    return processes.gather(str(not made))[0] == "True"


def _restored(ready: Setup, checkpoints: Checkpoints, step: int) -> TrainState:
    """The state of a checkpoint, on the mesh."""
    state, meta = checkpoints.restore(step, ready.program.layout)
    resume.check_tokens(ready.config, ready.train.manifest, meta["tokens"])
    return state


def _first_state(ready: Setup, say: Say, stop: StopSignals) -> TrainState:
    """The state before the first step, of drawn parameters or given ones."""
    folder, params = ready.config.init_from, None
    if folder is not None:
        from jaxopt_lm.model import huggingface  # safetensors, for the runs that need it

        if not huggingface.check_vocabulary(folder, Path(ready.config.data.tokens_dir, VOCABULARY)):
            say(f"init_from={folder}: holds no vocabulary; its rows are taken as those of the tokens' vocabulary")
        params = huggingface.read_params(folder, ready.config.model)
        params = jax.device_put(params, sharding.shardings(ready.program.layout.params))
    with stop.listening("stopping before the first step"):  # an exception amid compiling would crash
        return ready.program.init(ready.hparams, params)


def _result(
    ready: Setup, fitted: Fitted, saved: int | None, folder: RunFolder | None, say: Say, signal: int | None
) -> Result:
    """How the run ended, said and, but for an interruption, written."""
    path, metrics = Path(ready.config.workdir), _newest_metrics(Path(ready.config.workdir))
    state = None if fitted.status == "diverged" else fitted.state
    if fitted.status == "diverged":
        metrics["step"] = int(fitted.divergence.step)
        say(_diverged(fitted.divergence, saved))
    elif fitted.status == "interrupted":
        say(f"stopped at step {metrics['step']}; the same command goes on from there")
    else:
        say(_completed(metrics, ready.validation.split.unigram_entropy, path))
    if folder and fitted.status != "interrupted":
        of_the_run: dict[str, Any] = {
            "status": fitted.status,
            "eval/unigram_entropy": ready.validation.split.unigram_entropy,
            "num_params": num_params(ready.config.model),
        }
        if fitted.status == "diverged":
            of_the_run["diverged_metric"] = str(fitted.divergence.metric)
        folder.write_result(of_the_run | metrics)
    step = metrics.pop("step")
    return Result(fitted.status, step, metrics, signal, read_history(path), state)


def _newest_metrics(path: Path) -> dict[str, Any]:
    """The newest value of every metric in `metrics.jsonl`, and the median of the tokens per second."""
    newest: dict[str, Any] = {"step": 0}
    lines = list(read_metrics(path))
    for line in lines:
        newest |= line
    rates = [line["tokens_per_sec"] for line in lines if "tokens_per_sec" in line]
    return newest | ({"tokens_per_sec": statistics.median(rates)} if rates else {})


def _completed(metrics: dict[str, Any], entropy: float, path: Path) -> str:
    loss, rate = metrics["eval/loss"], metrics.get("tokens_per_sec")
    side = "below" if loss <= entropy else "above"
    return (
        f"done: step {metrics['step']}, eval loss {loss:.3f} nats per token, {abs(entropy - loss):.3f} {side} the "
        f"unigram entropy {entropy:.3f} of the validation tokens; {metrics['eval/bits_per_byte']:.3f} bits per byte"
        + (f"; {rate:,.0f} tokens/s" if rate else "")
        + f"; see {path}"
    )


def _diverged(divergence: Divergence, saved: int | None) -> str:
    what = f"training diverged at step {divergence.step}: {divergence.metric} is {divergence.value}"
    kept = f"the last good checkpoint, step {saved}, is kept" if saved else "no checkpoint was saved before"
    return f"{what}; {kept}; try a lower learning rate in another --config.workdir"
