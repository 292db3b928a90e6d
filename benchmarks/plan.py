"""A train step as planned and as it runs: memory, tokens per second, MFU. Tokens are drawn at random, nothing is saved.

    python benchmarks/plan.py --config=configs/c4.py --config.global_batch_size=4

Prints the plan (`python -m jaxopt_lm.plan` of the same config), then what the compiled step asks for and what was used:
on an accelerator the device's peak, on a CPU by how much resident memory grew at its peak from after compilation to
after the last step.
"""

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_lm.chips import GIB, peak_flops
from jaxopt_lm.config_io import from_command_line
from jaxopt_lm.dumps import to_json
from jaxopt_lm.errors import report_input_errors, require
from jaxopt_lm.model.summary import flops_per_token
from jaxopt_lm.plan import PlanArguments
from jaxopt_lm.planning.plan import stand_in_counts
from jaxopt_lm.training import sharding
from jaxopt_lm.training.program import Program
from jaxopt_lm.training.step import HParams


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(PlanArguments):
    """What to measure."""

    devices: int = 1
    """How many devices the mesh has."""
    steps: int = 4
    """How many steps; the first is not timed."""


def status(name: str) -> int:
    """A line of this process's status that is in kB, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


@report_input_errors
def main() -> None:
    """The command line."""
    arguments = from_command_line(Arguments, __doc__ or "")
    config = arguments.config
    print_plan(arguments)
    mesh = sharding.make_mesh(config.mesh)
    require(
        mesh.size == arguments.devices,
        f"devices={arguments.devices}: the mesh has {mesh.size} here; give --devices={mesh.size}",
    )
    built = Program.of(config, mesh, token_counts=stand_in_counts(config))
    hparams = jax.tree.map(jnp.asarray, HParams.of(config))
    step = built.step.lower(built.layout, sharding.abstract_batch(config, mesh), hparams).compile()
    init = built.init.lower(hparams).compile()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory begins anew
    before = status("VmRSS")

    state, rows, rng, seconds = (
        init(hparams),
        sharding.Rows(mesh, config.global_batch_size),
        np.random.default_rng(0),
        [],
    )
    for _ in range(arguments.steps):
        tokens = rng.integers(0, config.model.vocab_size, (len(rows.local), config.length), np.int32)
        start = time.perf_counter()
        state, metrics = step(state, rows.place((tokens, np.ones(tokens.shape, np.float32))), hparams)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - start)

    device, analysis = jax.devices()[0], step.memory_analysis()
    asked = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    used = (device.memory_stats() or {}).get("peak_bytes_in_use", status("VmHWM") - before)
    rate = config.tokens_per_step / statistics.median(seconds[1:])
    peak = peak_flops(device.device_kind)
    print(
        f"\n{device.device_kind}, {mesh.size} of them, {arguments.steps} steps, loss {float(metrics['train/loss']):.3f}"
    )
    print(f"compiled here: arguments {analysis.argument_size_in_bytes / GIB:.3f} GiB", end=", ")
    print(f"temporaries {analysis.temp_size_in_bytes / GIB:.3f} GiB, together {asked / GIB:.3f} GiB")
    print(f"used at the peak: {used / GIB:.3f} GiB, {used / asked:.3f} of the former")
    print(f"{rate:,.0f} tokens/s")
    if peak:
        print(f"MFU {rate * flops_per_token(config.model, config.length) / (mesh.size * peak):.3f}")


def print_plan(arguments: Arguments) -> None:
    """In a process of its own, for it takes fake devices."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(to_json(arguments.config))
        flags = [f"--config={path}", f"--devices={arguments.devices}", f"--chip={arguments.chip}"]
        if code := subprocess.run([sys.executable, "-m", "jaxopt_lm.plan", *flags], check=False).returncode:
            sys.exit(code)  # it has said why


if __name__ == "__main__":
    sys.exit(main())
