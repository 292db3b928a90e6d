"""What the peers of train_step.py share: sizes, tokens, weights, and how a driver asks for steps.

A peer is a child process. It prints a line of JSON about itself; then for every line it reads, a number of steps, it
takes them and prints another: seconds, page faults, losses, gradient norms, memory. At the end of its input it ends.

Needs numpy alone: the environment of PyTorch has nothing of ours.
"""

import argparse
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HEAD = 64
LEARNING_RATE, B1, B2, EPS, WEIGHT_DECAY, MAX_NORM = 3e-3, 0.9, 0.95, 1e-8, 0.1, 1.0
"""AdamW's, every parameter decays; gradients are clipped to a global norm of MAX_NORM."""


GEMM_WIDTH = 2048
"""Of the square matrices whose product a step of gemm.py is."""


class Size(NamedTuple):
    """The shape of a model and of its batches."""

    width: int
    depth: int
    vocabulary: int
    batch: int
    length: int

    @property
    def tokens(self) -> int:
        """In a batch."""
        return self.batch * self.length

    @property
    def flops_per_token(self) -> int:
        """6 for each entry of a matrix that multiplies, 12 * depth * width * length for attention, as in PaLM."""
        d, n, v = self.width, self.depth, self.vocabulary
        return 6 * (12 * n * d * d + d * v) + 12 * n * d * self.length


SIZES = {
    "tiny": Size(128, 2, 512, 16, 128),
    "small": Size(256, 4, 8192, 8, 256),
    "base": Size(1024, 12, 32128, 2, 512),
    "least": Size(128, 1, 64, 2, 16),  # to try the benchmark
}


def weights(size: Size) -> dict[str, np.ndarray]:
    """Random parameters by the names and in the shapes of jaxopt_lm.

    Norms' scales too, and matrices so large that gradients are clipped: what differs shows.
    """
    d, h = size.width, size.width // HEAD
    shapes: dict[str, tuple[int, ...]] = {"embed": (size.vocabulary, d), "head": (d, size.vocabulary)}
    for layer in (f"layer_{i:02d}" for i in range(size.depth)):
        shapes |= {f"{layer}/attention/{name}": (d, h, HEAD) for name in ("query", "key", "value")}
        shapes |= {
            f"{layer}/attention/out": (h, HEAD, d),
            f"{layer}/mlp/up": (d, 4 * d),
            f"{layer}/mlp/down": (4 * d, d),
        }
        norms = "attention_norm", "attention/q_norm", "attention/k_norm", "mlp_norm"
        shapes |= {f"{layer}/{name}/scale": (d,) for name in norms}
    shapes["final_norm/scale"] = (d,)
    rng = np.random.default_rng(1)
    spread = {name: (1.0, 0.2) if len(shape) == 1 else (0.0, 1.5 * d**-0.5) for name, shape in shapes.items()}
    return {name: rng.normal(*spread[name], shape).astype(np.float32) for name, shape in shapes.items()}


def as_matrices(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same as (inputs, outputs), heads joined, without the parts `attention/` and `mlp/` of their names."""

    def matrix(name: str, x: np.ndarray) -> np.ndarray:
        if x.ndim < 3:
            return x
        return x.reshape(-1, x.shape[-1]) if name.endswith("out") else x.reshape(x.shape[0], -1)

    return {re.sub("/(attention|mlp)/", "/", name): matrix(name, x) for name, x in named.items()}


def batches(size: Size) -> np.ndarray:
    """Eight batches of tokens, int32 (8, batch, length)."""
    return np.random.default_rng(0).integers(0, size.vocabulary, (8, size.batch, size.length), np.int32)


def cores() -> int:
    return len(os.sched_getaffinity(0))


class Peer:
    """A model and its optimizer in some library.

    Attributes:
      facts: for the record: `versions`, `threads`, `num_params`.
    """

    facts: dict[str, Any]

    def step(self, tokens: np.ndarray) -> tuple[float, float]:
        """A step from tokens on the host, int32 (batch, length), to its end: (loss, norm of gradients unclipped)."""
        raise NotImplementedError

    def params_norm(self) -> float:
        """Euclidean norm of all parameters."""
        raise NotImplementedError


def norm(arrays: Iterable[np.ndarray]) -> float:
    """Euclidean, over all entries."""
    return float(np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in arrays)))


def main(make: Callable[[Size, dict[str, np.ndarray] | None], Peer]) -> None:
    """A peer's process; `make` takes a size and the weights to begin with, None: its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--weights", help="an .npz of parameters by jaxopt_lm's names")
    args, _ = parser.parse_known_args()
    size, given = SIZES[args.size], None
    if args.weights:
        with np.load(args.weights) as file:
            given = dict(file)
    with Answers() as answers:
        peer, tokens = make(size, given), batches(size)
        serve(answers, peer.facts, lambda i: peer.step(tokens[i % len(tokens)]), peer.params_norm)


class Answers:
    """Standard output for lines of JSON alone: what libraries print goes to standard error."""

    def __enter__(self) -> "Answers":
        self._file = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, **values: Any) -> None:
        print(json.dumps(values), file=self._file, flush=True)


def serve(
    answers: Answers,
    facts: dict[str, Any],
    step: Callable[[int], tuple[float, float]],
    params_norm: Callable[[], float] | None = None,
) -> None:
    """Answers until its input ends; `step(i)` takes step i, and comes back when it is done."""
    answers.write(**facts, allocator=allocator())
    made = 0
    for line in sys.stdin:
        if line.startswith("params") and params_norm:
            answers.write(params_norm=params_norm())
            continue
        steps = range(made, made + int(line))
        made = steps.stop
        faults, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        found = [step(i) for i in steps]
        seconds = time.perf_counter() - begun
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        losses, norms = zip(*found, strict=True)
        answers.write(seconds=seconds, faults=faults, losses=losses, norms=norms, **memory())


def memory() -> dict[str, int]:
    """Bytes of this process in memory: at its peak, and now."""
    status = Path("/proc/self/status").read_text()
    kibibytes = {name: int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1]) for name in ("VmHWM", "VmRSS")}
    return {"peak_bytes": 1024 * kibibytes["VmHWM"], "resident_bytes": 1024 * kibibytes["VmRSS"]}


def allocator() -> str:
    """The one that this process has: mimalloc, tcmalloc or jemalloc where it is loaded, else glibc's."""
    found = re.search(r"lib(\w\wmalloc)\w*\.so", Path("/proc/self/maps").read_text())
    return found[1] if found else "glibc"
