"""A train step beside PyTorch's and Flax's of the same model: forward, backward and AdamW, float32, on a CPU.

    make bench-torch
    python benchmarks/train_step.py --torch=.venv-torch/bin/python --json=train_step.json

Peers, each a process: `ours`, the step of `train`; `torch`, eager, and `torch-compile`, where --torch names a Python
that has it; `flax`, the model written plainly in linen with optax. `PEER:ALLOCATOR` is the same with another allocator:
`glibc`, `mimalloc` (the default, as `train` has it) or the path of a library, which is preloaded.

    python benchmarks/train_step.py --peers ours ours:glibc ours:/usr/lib/libtcmalloc.so.4 --sizes small

Each peer's rounds alternate with PyTorch eager's (where there is none, with the first peer's), two processes at a time,
and ratios and shares are of neighbouring rounds: medians, with the least and the greatest in brackets. A step begins
with tokens on the host, eight batches in rotation, and ends when loss and parameters are there. First steps, which
compile, are timed by themselves: cold in a process that finds no compiled programs, warm in one that does. `of peak` is
the share of the fastest float32 product of 2048 x 2048 matrices, by JAX or PyTorch, in the same round. Memory is the
resident set at its peak, the compilation's included.

All have AdamW at a constant rate with b1 .9, b2 .95, eps 1e-8 and weight decay .1 on every parameter, and gradients
clipped to a global norm of 1, `train`'s default; no z-loss. At size tiny all begin with the same weights: where loss or
gradient norm differ by more than 1e-5, or the norm of the parameters after eight steps by more than 1e-6, nothing is
timed. Size least, as alike, is there to try this command.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from driver import HERE, Child, machine, machine_line, spread, table, write_json
from peers import serve

from jaxopt_lm import allocator, compilation_cache
from jaxopt_lm.errors import report_input_errors, require

SCRIPTS = {"ours": "ours.py", "flax": "flax_lm.py", "torch": "torch_lm.py", "torch-compile": "torch_lm.py --compile"}
STEPS = {"tiny": 40, "small": 8, "base": 1, "least": 100}
"""Of a round."""
WARM_UP = {"tiny": 7, "small": 2, "base": 2, "least": 7}
"""Steps after the first that are not timed."""
COMPARED = "tiny", "least"
"""Sizes at which all begin with the same weights."""
PRODUCTS = 4
"""Of matrices, in a round."""

Record = dict[str, Any]


class Spec(NamedTuple):
    """A peer and its allocator."""

    name: str
    peer: str
    malloc: str

    @classmethod
    def of(cls, name: str, preload_torch: str | None) -> "Spec":
        peer, _, malloc = name.partition(":")
        require(peer in SCRIPTS, f"--peers: '{peer}': must be one of {', '.join(SCRIPTS)}")
        default = preload_torch if peer.startswith("torch") and preload_torch else "mimalloc"
        return cls(name, peer, malloc or default)

    def command(self, torch: str | None, *more: str) -> list[str]:
        script, *flags = SCRIPTS[self.peer].split()
        python = torch if self.peer.startswith("torch") else sys.executable
        require(python is not None, f"--peers: '{self.peer}' needs --torch=PYTHON: make bench-torch makes one")
        return [str(python), str(HERE / "peers" / script), *flags, *more]


def environment(malloc: str, compiled: Path) -> dict[str, str]:
    """Of a child with this allocator, that keeps compiled programs in this folder."""
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    env |= {name.upper(): str(value) for name, value in compilation_cache.settings(compiled).items()}
    env["TORCHINDUCTOR_CACHE_DIR"] = str(compiled)
    if malloc == "mimalloc":
        found = allocator.variables()
        require(bool(found), "mimalloc: cannot be loaded here; name other allocators, PEER:glibc, or install it")
        return env | found
    if malloc == "glibc":
        return env
    require(Path(malloc).is_file(), f"allocator '{malloc}': must be mimalloc, glibc or the path of a library")
    # As mimalloc is told: nothing is given back to the kernel.
    return {"TCMALLOC_RELEASE_RATE": "0"} | env | {"LD_PRELOAD": str(Path(malloc).resolve())}


class Check:
    """Compares what peers say of the same steps from the same weights; the first one is compared with."""

    def __init__(self):
        self._first: tuple[str, dict[str, float]] | None = None

    def __call__(self, name: str, first: Record, params_norm: float) -> None:
        """Ends the benchmark where a number differs.

        Args:
          name: of the peer.
          first: its answer to the first step.
          params_norm: after the warm-up.
        """
        mine = {"loss": first["losses"][0], "gradient norm": first["norms"][0], "norm of the parameters": params_norm}
        self._first = self._first or (name, mine)
        other, theirs = self._first
        for (what, value), bound in zip(mine.items(), (1e-5, 1e-5, 1e-6), strict=True):
            if not abs(value / theirs[what] - 1) <= bound:
                difference = f"the {what} of {name} is {value:.9g}, of {other} {theirs[what]:.9g}"
                raise SystemExit(f"not the same model: {difference}")


class Bench:
    """Measures peers, pair by pair.

    Args:
      args: of the command line.
      folder: for compiled programs and weights.
      stack: ends the processes that multiply matrices.
    """

    def __init__(self, args: argparse.Namespace, folder: Path, stack: contextlib.ExitStack):
        self._args, self._folder, self._check = args, folder, Check()
        pythons = {"jax": sys.executable} | ({"torch": args.torch} if args.torch else {})
        env = environment("mimalloc" if allocator.variables() else "glibc", folder / "gemm")
        commands = ([python, str(HERE / "peers" / "gemm.py"), library] for library, python in pythons.items())
        self._gemms = [stack.enter_context(Child(command, env)) for command in commands]
        for name in COMPARED:
            np.savez(self._weights(name), **serve.weights(serve.SIZES[name]))

    def _weights(self, name: str) -> Path:
        return self._folder / f"{name}.npz"

    def _gemm(self) -> float:
        """FLOP/s of the faster library."""
        flops = PRODUCTS * 2 * serve.GEMM_WIDTH**3
        return max(flops / child.ask(PRODUCTS)["seconds"] for child in self._gemms)

    def size(self, name: str, specs: Sequence[Spec], rounds: int) -> Record:
        """What was found of each peer at a size, each beside `specs[0]`; with 0 rounds only compared."""
        reference, *others = specs
        found: Record = {"gemm_flops_per_second": [], "peers": {spec.name: _empty(spec) for spec in specs}}
        for other in others or [None]:
            print(f"{name}: {' and '.join(spec.name for spec in (reference, other) if spec)}", file=sys.stderr)
            self._session(name, [spec for spec in (reference, other) if spec], rounds, found)
        counts = {peer["facts"]["num_params"] for peer in found["peers"].values()}
        if len(counts) > 1:
            raise SystemExit(f"not the same model: at size {name} peers have {sorted(counts)} parameters")
        return found

    def _session(self, name: str, specs: list[Spec], rounds: int, found: Record) -> None:
        """Adds what peers that alternate do to what was found."""
        kept = self._args.compiled
        compiled = {spec.name: Path(kept or tempfile.mkdtemp(dir=self._folder)) for spec in specs}
        with contextlib.ExitStack() as stack:
            children = {spec.name: stack.enter_context(self._start(name, spec, compiled[spec.name])) for spec in specs}
            self._gemm()
            for peer, child in children.items():
                found["peers"][peer]["facts"] = child.facts  # all are ready, then first steps follow
            for peer, child in children.items():
                first, _ = child.ask(1), child.ask(WARM_UP[name])
                if not kept:
                    found["peers"][peer]["cold_seconds"].append(first["seconds"])
                if name in COMPARED:
                    self._check(peer, first, child.ask("params")["params_norm"])
            for _ in range(rounds):
                self._round(name, children, found)
        for spec in specs:
            warm = found["peers"][spec.name]["warm_seconds"]
            if rounds and not kept and not warm and spec.peer != "torch":
                with self._start(name, spec, compiled[spec.name]) as child:
                    warm.append(child.ask(1)["seconds"])

    def _round(self, name: str, children: dict[str, Child], found: Record) -> None:
        size, steps, gemm = serve.SIZES[name], self._args.steps or STEPS[name], self._gemm()
        found["gemm_flops_per_second"].append(gemm)
        answers = {peer: child.ask(steps) for peer, child in children.items()}
        rates = {peer: steps * size.tokens / answer["seconds"] for peer, answer in answers.items()}
        reference = next(iter(rates.values()))
        for peer, answer in answers.items():
            line = {
                "tokens_per_second": rates[peer],
                "ratio": rates[peer] / reference,
                "of_peak": rates[peer] * size.flops_per_token / gemm,
                "faults_per_step": answer["faults"] / steps,
            }
            memory = {key: answer[key] for key in ("peak_bytes", "resident_bytes")}
            found["peers"][peer]["rounds"].append(line | memory)

    def _start(self, name: str, spec: Spec, compiled: Path) -> Child:
        given = [f"--weights={self._weights(name)}"] if name in COMPARED else []
        command = spec.command(self._args.torch, f"--size={name}", *given)
        return Child(command, environment(spec.malloc, compiled))


def _empty(spec: Spec) -> Record:
    return {"allocator": spec.malloc, "facts": {}, "cold_seconds": [], "warm_seconds": [], "rounds": []}


def shown(name: str, found: Record, reference: str) -> str:
    """The table of a size."""
    size, (peer, *_) = serve.SIZES[name], found["peers"].values()
    rows = [["", "allocator", "tokens/s", f"of {reference}", "of peak", "cold s", "warm s", "GB", "page faults a step"]]
    for title, peer in found["peers"].items():
        column = {key: [line[key] for line in peer["rounds"]] for key in peer["rounds"][0]}
        rows.append(
            [
                title.partition(":")[0],
                peer["facts"]["allocator"],
                spread(column["tokens_per_second"], ",.0f"),
                spread(column["ratio"], ".3f") if title != reference else "1",
                spread(column["of_peak"], ".2f"),
                spread(peer["cold_seconds"], ".2f"),
                spread(peer["warm_seconds"], ".2f"),
                f"{max(column['peak_bytes']) / 1e9:.2f}",
                f"{statistics.median(column['faults_per_step']):,.0f}",
            ]
        )
    head = f"{name}: width {size.width}, depth {size.depth}, vocabulary {size.vocabulary:,}, batch {size.batch} x "
    head += f"{size.length}, {peer['facts']['num_params']:,} parameters; "
    return f"{head}product of matrices {spread(found['gemm_flops_per_second'], '.3g')} FLOP/s\n{table(rows)}\n"


@report_input_errors
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="a Python that has PyTorch")
    parser.add_argument("--preload-torch", help="PyTorch's allocator: glibc or the path of a library (mimalloc)")
    parser.add_argument("--peers", nargs="+", help="PEER or PEER:ALLOCATOR; by default each PEER that can be had")
    parser.add_argument("--sizes", nargs="+", choices=serve.SIZES, default=["tiny", "small", "base"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help=f"of a round; by default {STEPS}")
    parser.add_argument("--compiled", help="a folder to keep compiled programs in; then first steps are not shown")
    parser.add_argument("--json", help="where to write all that was found")
    args = parser.parse_args()
    require(args.rounds >= 1, f"--rounds={args.rounds}: must be at least 1")
    os.environ["JAX_PLATFORMS"] = "cpu"
    names = args.peers or [peer for peer in SCRIPTS if args.torch or not peer.startswith("torch")]
    specs = [Spec.of(name, args.preload_torch) for name in dict.fromkeys(names)]
    specs.sort(key=lambda spec: spec.peer != "torch")
    for spec in specs:  # refused now or never
        spec.command(args.torch), environment(spec.malloc, Path())
    record: Record = {"machine": machine(), "arguments": vars(args), "reference": specs[0].name, "sizes": {}}
    print(machine_line(record["machine"]))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(args, folder, stack)
        if set(COMPARED).isdisjoint(args.sizes):
            bench.size("tiny", specs, 0)
        for name in args.sizes:
            found = record["sizes"][name] = bench.size(name, specs, args.rounds)
            if name == args.sizes[0]:
                print(versions(found))
            print(f"\n{shown(name, found, specs[0].name)}", end="", flush=True)
            write_json(args.json, record)


def versions(found: Record) -> str:
    """Of the libraries, and each peer's threads."""
    facts = [peer["facts"] for peer in found["peers"].values()]
    libraries = {name: version for each in facts for name, version in each["versions"].items()}
    threads = sorted({each["threads"] for each in facts})
    names = ", ".join(f"{name} {version}" for name, version in libraries.items())
    return f"{names}; {' or '.join(map(str, threads))} threads"


if __name__ == "__main__":
    sys.exit(main())
