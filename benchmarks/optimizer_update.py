"""Time and state of every optimizer's update over a model's parameters, beside optax.adamw in the same run.

    python benchmarks/optimizer_update.py --preset=150m

An update is `tx.update` and `apply_updates`, jitted, with parameters and state donated; gradients are fixed normal
draws, parameters and state float32. Every optimizer's updates alternate with optax.adamw's, one by one; the ratio is of
the two medians. State is bytes a parameter. Curvature estimates of Sophia are given, not computed: they cost a
gradient, every `interval` updates. 150m needs about 9 GB.
"""

import argparse
import statistics
import time
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
    print(f"{'optimizer':24}{'ms':>10}{'adamw ms':>10}{'ratio':>8}{'bytes a parameter':>20}")
    for name in args.only:
        tx = OPTIMIZERS[name](weight_decay=0.1).make(1.0, labels)
        mine, adamw = times([tx, optax.adamw(1e-3, weight_decay=0.1)], shapes, args.repeats)
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(tx.init, shapes)))
        print(f"{name:24}{mine:10.0f}{adamw:10.0f}{mine / adamw:8.2f}{size / count:20.3f}", flush=True)


def times(transforms: list[Any], shapes: Any, repeats: int) -> list[float]:
    """Median milliseconds of an update of each transformation, their updates alternating."""
    grads = draw(shapes, 0)
    runs = [stepper(tx, shapes) for tx in transforms]
    found: list[list[float]] = [[] for _ in transforms]
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


def stepper(tx: Any, shapes: Any) -> Any:
    """A function of gradients that makes one update in place and waits for it."""
    tx = optax.with_extra_args_support(tx)

    def step(params, state, grads):
        curvature = {"sampled_grads": lambda: grads, "batch_tokens": 1024, "hutchinson": lambda: grads}
        updates, state = tx.update(grads, state, params, **curvature)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(step, donate_argnums=(0, 1))
    params = draw(shapes, 1)
    held = [params, jax.jit(tx.init)(params)]

    def run(grads):
        held[:] = jax.block_until_ready(jitted(*held, grads))

    return run


if __name__ == "__main__":
    main()
