"""What `train`'s loop costs beside its bare step, and what telemetry costs.

    python benchmarks/loop.py --config=configs/quickstart.py --json=loop.json

A round is half of the steps bare, a whole run in a new folder, the other half bare, then steps with telemetry among
usual ones; medians over rounds, with the least and the greatest in brackets.

A bare step takes tokens from the host, eight batches in rotation, and the host waits for the step before. The run is
`train`'s, with the config's own intervals of metrics, telemetry, evaluation and checkpoints, on a terminal that nobody
sees: counted is the time from its first step until its last checkpoint and result are on disk. Evaluations and what
comes before the first step are shown, not counted. Tokens are prepared and programs compiled before.

A step with telemetry is another program. What it costs is what it and the step after it take more than two usual ones;
its compilation is its first call, in a process that finds no compiled programs (cold) and in one that does (warm).
"""

import dataclasses
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from driver import machine, machine_line, spread, write_json

from jaxopt_lm import allocator
from jaxopt_lm.config_io import WithConfig, from_command_line
from jaxopt_lm.errors import quiet_orbax, report_input_errors, require

QUIET_STEPS = 4
"""Usual ones after one with telemetry."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(WithConfig):
    """What to measure."""

    steps: int = 300
    """Of a run, in place of the config's."""
    rounds: int = 5
    """How many."""
    due: int = 10
    """Steps with telemetry in a round."""
    json: str | None = None
    """Where to write all that was found."""

    def __post_init__(self):
        for name, least in (("steps", 2), ("rounds", 1), ("due", 1)):
            require(getattr(self, name) >= least, f"{name}={getattr(self, name)}: must be at least {least}")


class Steps:
    """A run's compiled steps, called without its loop.

    Args:
      setup: of the run.
    """

    def __init__(self, setup: Any):
        import jax

        self._setup, self._host = setup, [setup.windows[step] for step in range(8)]
        self._wait, self._state = jax.block_until_ready, setup.program.init(setup.hparams)

    def _batches(self, steps: int) -> Iterator[Any]:
        import numpy as np

        for i in range(steps):
            tokens = self._host[i % len(self._host)]
            yield self._setup.rows.place((tokens, np.ones(tokens.shape, np.float32)))

    def bare(self, steps: int) -> float:
        """The seconds of usual steps, of which the host is one ahead."""
        begun, before = time.perf_counter(), None
        for batch in self._batches(steps):
            self._state, metrics = self._setup.program.step(self._state, batch, self._setup.hparams)
            self._wait(before)
            before = metrics
        self._wait((self._state, before))
        return time.perf_counter() - begun

    def one(self, step: Callable[..., Any]) -> float:
        """The seconds of one step, to its end."""
        begun = time.perf_counter()
        (batch,) = self._batches(1)
        self._state, _ = self._wait(step(self._state, batch, self._setup.hparams))
        return time.perf_counter() - begun

    def telemetry(self, due: int) -> dict[str, float]:
        """Seconds of a usual step, and how many more telemetry takes."""
        program, usual, more = self._setup.program, [], []
        for _ in range(due):
            first, second, *rest = map(self.one, (program.telemetry_step, *[program.step] * QUIET_STEPS))
            usual += rest
            more.append(first + second)
        middle = statistics.median(usual)
        return {"usual_step_seconds": middle, "telemetry_seconds": statistics.median(more) - 2 * middle}

    def compilations(self) -> dict[str, float]:
        """The seconds by which the first call of each step is longer than a later one."""
        program = self._setup.program
        steps = {"step": program.step, "telemetry_step": program.telemetry_step}
        return {name: self.one(step) - self.one(step) for name, step in steps.items()}


def whole(config: Any) -> dict[str, float]:
    """The seconds of a whole run, in their parts."""
    import importlib

    from rich.console import Console

    module, seconds = importlib.import_module("jaxopt_lm.training.run"), {"evaluation": 0.0}

    def fit(*args: Any, evaluate: Callable[..., Any], **rest: Any) -> Any:
        def timed(*of: Any) -> Any:
            begun = time.perf_counter()
            found = evaluate(*of)
            seconds["evaluation"] += time.perf_counter() - begun
            return found

        seconds["before"] = time.perf_counter() - begun
        return usual(*args, evaluate=timed, **rest)

    usual, begun = module.fit, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(module, "fit", fit):
        terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
        result = module.run(dataclasses.replace(config, workdir=folder), terminal)
        seconds["loop"] = time.perf_counter() - begun - sum(seconds.values())
    require(result.status == "completed", f"the run ended as {result.status}, at step {result.step}")
    return seconds


@report_input_errors
def main() -> None:
    """The command line."""
    allocator.restart()
    arguments = from_command_line(Arguments, __doc__ or "")
    import jax

    from jaxopt_lm import compilation_cache
    from jaxopt_lm.processes import StopSignals
    from jaxopt_lm.training.ensure_tokens import ensure_tokens
    from jaxopt_lm.training.setup import Setup

    quiet_orbax()
    config = dataclasses.replace(arguments.config, num_train_steps=arguments.steps)
    ensure_tokens(config.data, StopSignals(print))
    with tempfile.TemporaryDirectory() as folder:
        for name, value in compilation_cache.settings(folder).items():
            jax.config.update(name, value)
        steps = Steps(Setup.of(config))
        compilations = {"cold": steps.compilations()}
        jax.clear_caches()
        compilations["warm"] = steps.compilations()
        whole(config)
        rounds = []
        for _ in range(arguments.rounds):
            half = arguments.steps // 2
            before, run, after = steps.bare(half), whole(config), steps.bare(arguments.steps - half)
            found = {f"{name}_seconds": value for name, value in run.items()} | steps.telemetry(arguments.due)
            rounds.append(found | {"bare_seconds": before + after})
    record = {"machine": machine(), "jax": jax.__version__, "steps": arguments.steps}
    record |= {"config": arguments.config.workdir, "compilation_seconds": compilations, "rounds": rounds}
    print(machine_line(record["machine"]) + f", jax {jax.__version__}")
    print(report(config, compilations, rounds))
    write_json(arguments.json, record)


def report(config: Any, compilations: dict[str, dict[str, float]], rounds: list[dict[str, float]]) -> str:
    """What was found, in words."""
    steps, every = config.num_train_steps, config.logging.telemetry_every_steps or 100

    def over(value: Callable[[dict[str, float]], float], form: str = ".3g") -> str:
        return spread([value(found) for found in rounds], form)

    lines = {
        "": f"{steps} steps of {config.global_batch_size} x {config.length} tokens, {len(rounds)} rounds",
        "bare step, ms": over(lambda r: 1e3 * r["bare_seconds"] / steps),
        "bare, tokens/s": over(lambda r: config.tokens_per_step * steps / r["bare_seconds"], ",.0f"),
        "loop over bare steps, %": over(lambda r: 100 * (r["loop_seconds"] / r["bare_seconds"] - 1), ".2f"),
        "evaluations, s, not counted": over(lambda r: r["evaluation_seconds"]),
        "before the first step, s, not counted": over(lambda r: r["before_seconds"]),
        "telemetry once, ms": over(lambda r: 1e3 * r["telemetry_seconds"]),
        f"telemetry every {every} steps, %": over(
            lambda r: 100 * r["telemetry_seconds"] / (every * r["usual_step_seconds"]), ".2f"
        ),
    }
    lines |= {
        f"compilation, s, {name}": ", ".join(f"{step} {seconds:.2f}" for step, seconds in found.items())
        for name, found in compilations.items()
    }
    return "\n".join(f"{name:39}{text}".strip() for name, text in lines.items())


if __name__ == "__main__":
    sys.exit(main())
