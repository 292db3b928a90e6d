"""Does a test notice when a formula is wrong? Applies wrong formulas to the package, one at a time.

    python -m tests.mutations [--jobs=2] [--only=SUBSTRING]

A mutation changes a few pieces of one place in `jaxopt_lm`, in a copy of the package and its tests. A line says which
test failed, and how long its tests took. SURVIVED: none did. INVALID: the run broke, or failed by something other than
an assertion, which shows nothing. Either makes the exit code 1. First the same tests run on a copy that nothing was
done to, and must pass. All that runs is in a temporary folder, in processes that a server forks which has imported
what tests import, but nothing of ours.
"""

import argparse
import ast
import collections
import functools
import itertools
import multiprocessing
import os
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from tests.mutations.pieces import Mutation, in_folder
from tests.mutations.rows import MUTATIONS

ROOT = Path(__file__).parents[2]
IMPORTS = "pytest hypothesis chex equinox flax.nnx optax.contrib orbax.checkpoint grain rich.progress"
SETTINGS = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


class Outcome(NamedTuple):
    """What a run of pytest said.

    Attributes:
      code: its exit code: 0 all passed, 1 some failed; others: it did not come that far.
      failed: the first test that failed; empty for none.
      message: why.
      output: all it printed.
    """

    code: int | None
    failed: str
    message: str
    output: str

    @property
    def caught(self) -> bool:
        """Whether an assertion failed: not an import, a fixture or an operation on shapes that do not fit."""
        return self.code == 1 and self.message.startswith(("AssertionError", "assert "))


def misfits(folder: Path) -> list[str]:
    """A line for every mutation that does not make another program of the package in `folder`, and why."""
    found = []
    for mutation in MUTATIONS:
        try:
            source = (folder / mutation.file).read_text()
            changed = mutation.applied(source)
            ast.parse(changed)
        except (OSError, ValueError, SyntaxError) as error:
            found.append(f"{mutation.what}: {error}")
        else:
            if changed == source:
                found.append(f"{mutation.what}: {mutation.place} stays as it is")
    return found


def copy_of_the_project(folder: Path) -> None:
    """The package, its tests and pytest's settings; recorded trajectories by a link."""
    for name in ("jaxopt_lm", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("golden", "__pycache__"))
    (folder / "tests" / "golden").symlink_to(ROOT / "tests" / "golden")
    shutil.copy(ROOT / "pyproject.toml", folder)


@functools.cache
def server() -> multiprocessing.context.ForkServerContext:
    """Forks processes that have imported what tests import; it starts no backend, which would not outlive a fork."""
    os.environ |= SETTINGS
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS.split())
    return context


def pytest_alone(folder: Path, cache: Path, output: Path, arguments: list[str]) -> None:
    """What a forked process does: pytest in a copy of the project, of which nothing is imported yet."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ["JAXOPT_LM_TEST_CACHE"] = str(cache)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = False  # that of the control serves the copies
    sys.exit(pytest.main(arguments))


def run_tests(folder: Path, selection: tuple[str, str]) -> Outcome:
    """pytest -x in a copy. A thread has its own compilation cache: JAX reads what another process half wrote."""
    cache = folder.parent / threading.current_thread().name
    file, expression = selection
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        report, output = Path(scratch, "report.xml"), Path(scratch, "output.txt")
        arguments = ["-x", "--full", in_folder("tests", file), "-k", expression]
        arguments += [f"--junitxml={report}", f"--basetemp={scratch}/tests", "-p", "no:cacheprovider"]
        arguments += ["-W", "ignore:Module already imported so cannot be rewritten"]  # plugins, by the server
        process = server().Process(target=pytest_alone, args=(folder, cache, output, arguments))
        process.start()
        process.join()
        failed, message = first_failure(report) if report.exists() else ("", "")
        return Outcome(process.exitcode, failed, message, output.read_text())


def first_failure(report: Path) -> tuple[str, str]:
    """(test, message) of the first failure in a report in JUnit's format, or empty strings."""
    for case in ElementTree.parse(report).iter("testcase"):
        for failure in (*case.iter("failure"), *case.iter("error")):
            name = f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}"
            return name, failure.get("message", "")
    return "", ""


def run_mutation(original: Path, number: int, mutation: Mutation) -> tuple[Outcome, float]:
    """(What the tests said, seconds) of a copy of the original with one formula wrong."""
    start = time.monotonic()
    folder = original.parent / str(number)
    shutil.copytree(original, folder, symlinks=True)
    path = folder / mutation.file
    path.write_text(mutation.applied(path.read_text()))  # newer than its bytecode, so that is not read
    outcome = run_tests(folder, selection_of(mutation))
    shutil.rmtree(folder)
    return outcome, time.monotonic() - start


def selection_of(mutation: Mutation) -> tuple[str, str]:
    """(File, expression) of the tests of a mutation."""
    file, _, expression = shlex.split(mutation.tests)
    return file, expression


def union(mutations: Iterable[Mutation]) -> list[tuple[str, str]]:
    """One selection a file that selects what any of the mutations does."""
    expressions = collections.defaultdict(dict)
    for file, expression in map(selection_of, mutations):
        expressions[file][expression] = None
    return [(file, " or ".join(f"({each})" for each in found)) for file, found in expressions.items()]


def verdict(outcome: Outcome) -> str:
    """The failing test, SURVIVED, or INVALID and why."""
    if outcome.caught:
        return outcome.failed
    if outcome.code == 0:
        return "SURVIVED"
    lines = (outcome.message or outcome.output).strip().splitlines() or ["no output"]
    return f"INVALID (pytest's exit code {outcome.code}, {outcome.failed or 'no test'}: {lines[0]})"


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tests.mutations", description=__doc__, formatter_class=form)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--only", default="", help="mutations whose place, description or tests contain this")
    args = parser.parse_args()
    chosen = {
        number: mutation
        for number, mutation in enumerate(MUTATIONS, 1)
        if args.only in f"{mutation.place} {mutation.what} {mutation.tests}"
    }
    if not chosen:
        parser.error(f"--only={args.only}: no mutation has it")
    if wrong := misfits(ROOT):
        sys.exit("\n".join(wrong))
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(args.jobs, "compiled") as pool:
        original = Path(root, "original")
        copy_of_the_project(original)
        start = time.monotonic()
        if not control_passes(original, pool, chosen.values()):
            return 1
        share_compilations(original.parent)
        print(f"control: passed, {time.monotonic() - start:.0f} s", flush=True)
        caught = sum(outcomes(original, pool, chosen))
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"{len(chosen)} wrong formulas, {caught} caught, {minutes} min {seconds} s")
    return 0 if caught == len(chosen) else 1


def control_passes(original: Path, pool: ThreadPoolExecutor, mutations: Iterable[Mutation]) -> bool:
    """Whether all that the mutations select passes where nothing was done; without it no failure means anything."""
    selections = union(mutations)
    for (file, _), outcome in zip(selections, pool.map(partial(run_tests, original), selections), strict=True):
        if outcome.code != 0:
            print(outcome.output, f"control: {file} fails without a mutation, so nothing can be said", sep="\n")
            return False
    return True


def share_compilations(folder: Path) -> None:
    """Every thread has what the others compiled for the control."""
    for ours, theirs in itertools.permutations(folder.glob("compiled_*"), 2):
        shutil.copytree(theirs, ours, dirs_exist_ok=True)


def outcomes(original: Path, pool: ThreadPoolExecutor, chosen: dict[int, Mutation]) -> Iterator[bool]:
    """Runs the mutations and prints a line for each; whether it was caught."""
    results = pool.map(partial(run_mutation, original), chosen.keys(), chosen.values())
    for (number, mutation), (outcome, seconds) in zip(chosen.items(), results, strict=True):
        print(f"{number:3d}  {mutation.place}  {mutation.what}  {verdict(outcome)}  {seconds:.0f} s", flush=True)
        yield outcome.caught
