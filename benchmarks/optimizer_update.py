"""Time and state of every optimizer's update over a model's parameters, beside optax.adamw in the same run.

    python benchmarks/optimizer_update.py --preset=150m

An update is `tx.update` and `apply_updates`, jitted, with parameters and state donated; gradients are fixed normal
draws, parameters and state float32. Every optimizer's updates alternate with optax.adamw's, one by one; the ratio is of
the two medians. Curvature estimates of Sophia are given, not computed: they cost a gradient, every `interval` updates.
150m needs about 9 GB.

State, the memory that the compiled program counts as read and written, and its temporary memory are in bytes a
parameter. Above 1.5 a line says where the time goes, over all threads: operations of XLA's profile, fusions by what
they hold; `copy` saves an old value that is read after its buffer is reused.
"""

import argparse
import collections
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import optax

from jaxopt_lm import model
from jaxopt_lm.optimizers import OPTIMIZERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="150m")
    parser.add_argument("--layers", type=int, help="fewer layers than the preset's")
    parser.add_argument("--only", nargs="*", default=list(OPTIMIZERS))
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    config = model.preset(args.preset, **({"num_layers": args.layers} if args.layers else {}))
    labels, shapes = model.labels(config), model.shapes(config)
    count = sum(x.size for x in jax.tree.leaves(shapes))
    print(f"{args.preset}: {count:,} parameters, {jax.devices()[0].device_kind}, median of {args.repeats}")
    print(f"{'optimizer':24}{'ms':>8}{'adamw ms':>10}{'ratio':>7}{'state':>9}{'traffic':>9}{'temporary':>11}")
    for name in args.only:
        tx = OPTIMIZERS[name](weight_decay=0.1).make(1.0, labels)
        grads, steppers = draw(shapes, 0), [Stepper(tx, shapes) for tx in (tx, optax.adamw(1e-3, weight_decay=0.1))]
        mine, adamw = times(steppers, grads, args.repeats)
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(tx.init, shapes)))
        traffic, temporary = steppers[0].bytes()
        print(
            f"{name:24}{mine:8.0f}{adamw:10.0f}{mine / adamw:7.2f}"
            f"{size / count:9.3f}{traffic / count:9.1f}{temporary / count:11.1f}",
            flush=True,
        )
        if mine > 1.5 * adamw:
            print("  ms in " + ", ".join(f"{op} {ms:.0f}" for op, ms in profile(steppers[0], grads)), flush=True)


def times(runs: list["Stepper"], grads: Any, repeats: int) -> list[float]:
    """Median milliseconds of an update of each, their updates alternating."""
    found: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 2):
        for run, column in zip(runs, found, strict=True):
            start = time.perf_counter()
            run(grads)
            if repeat >= 2:
                column.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(column) for column in found]


def draw(shapes: Any, seed: int) -> Any:
    key = jax.random.key(seed)
    return jax.jit(lambda: jax.tree.map(lambda x: 1e-3 * jax.random.normal(key, x.shape), shapes))()


class Stepper:
    """Called with gradients it makes one update in place, and waits for it."""

    def __init__(self, tx: Any, shapes: Any):
        tx = optax.with_extra_args_support(tx)

        def step(params, state, grads):
            curvature = {"sampled_grads": lambda: grads, "batch_tokens": 1024, "hutchinson": lambda: grads}
            updates, state = tx.update(grads, state, params, **curvature)
            return optax.apply_updates(params, updates), state

        params = draw(shapes, 1)
        self.held = params, jax.jit(tx.init)(params)
        self.compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*self.held, params).compile()

    def __call__(self, grads: Any) -> None:
        self.held = jax.block_until_ready(self.compiled(*self.held, grads))

    def bytes(self) -> tuple[float, float]:
        """(Read and written, of temporary memory)."""
        costs, memory = self.compiled.cost_analysis(), self.compiled.memory_analysis()
        assert costs is not None
        assert memory is not None
        return costs["bytes accessed"], memory.temp_size_in_bytes


def profile(run: Stepper, grads: Any) -> list[tuple[str, float]]:
    """Milliseconds of the six dearest kinds of operation in one update, as XLA's profiler has them."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run(grads)
        (file,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(file)).planes
        events = [event for plane in planes for line in plane.lines for event in line.events]
    spent: collections.defaultdict[str, float] = collections.defaultdict(float)
    for event in events:
        if "hlo_op" in dict(event.stats):
            spent[event.name.partition(".")[0]] += event.duration_ns / 1e6
    return sorted(spent.items(), key=lambda item: -item[1])[:6]


if __name__ == "__main__":
    main()
