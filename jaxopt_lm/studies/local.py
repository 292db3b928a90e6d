"""Trains units on this machine: a process for each core, pinned to it before JAX is imported.

Two processes on a core each train faster than one on two, and a run has the same bits whichever core it is on. This
module is what the processes import first, so it imports little.
"""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from jaxopt_lm import allocator

Slot = frozenset[int] | None
"""The cores of a process; None: it is not pinned."""


class Ended(NamedTuple):
    """How a unit's process left it.

    Attributes:
      unit: its name.
      error: None where the unit is done or was interrupted.
    """

    unit: str
    error: BaseException | None


class Local:
    """Processes of this machine, on slots; a context manager.

    Args:
      workdir: of the study.
      slots: of its processes.
    """

    def __init__(self, workdir: str, slots: list[Slot]):
        self._workdir = workdir
        self._idle = list(slots)
        self._pools: dict[Slot, concurrent.futures.ProcessPoolExecutor] = {}
        self._pids: dict[Slot, concurrent.futures.Future[int]] = {}
        self._running: dict[concurrent.futures.Future[None], tuple[str, Slot]] = {}
        self._asked: set[concurrent.futures.Future[None]] = set()

    @property
    def free(self) -> int:
        """How many units more can begin at once."""
        return len(self._idle)

    def submit(self, unit: str, log: Path) -> None:
        """Begins a unit on a free slot."""
        slot = self._idle.pop(0)
        with contextlib.suppress(BrokenProcessPool):  # its process was killed while it was idle
            return self._begin(slot, unit, log)
        self._pools.pop(slot).shutdown(wait=False)
        self._begin(slot, unit, log)

    def _begin(self, slot: Slot, unit: str, log: Path) -> None:
        if slot not in self._pools:
            self._pools[slot], self._pids[slot] = _started(slot)
        future = self._pools[slot].submit(_work, self._workdir, unit, str(log))
        self._running[future] = unit, slot

    def poll(self, seconds: float) -> list[Ended]:
        """The units that have ended, once one has, or after so long."""
        done, _ = concurrent.futures.wait(self._running, seconds, concurrent.futures.FIRST_COMPLETED)
        ended = []
        for future in done:
            unit, slot = self._running.pop(future)
            error = future.exception()
            if isinstance(error, BrokenProcessPool):  # killed: the slot alone is broken, and gets a new process
                self._pools.pop(slot).shutdown(wait=False)
            self._idle.append(slot)
            ended.append(Ended(unit, error))
        return ended

    @property
    def running(self) -> list[str]:
        """The units under way."""
        return [unit for unit, _ in self._running.values()]

    def cancel(self) -> None:
        """Asks every process to save its state and leave its unit, which `poll` then returns; once each."""
        for future, (_, slot) in self._running.items():
            if future not in self._asked and self._signal(slot, signal.SIGTERM):
                self._asked.add(future)

    def _signal(self, slot: Slot, number: int) -> bool:
        """Sends a slot's process a signal; whether it has begun, so that it could be sent."""
        pid = self._pids[slot]
        if not pid.done() or pid.exception():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid.result(), number)
        return True

    def close(self) -> None:
        """Ends the processes, which have left their units."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)
        self._pools.clear()

    def __enter__(self) -> "Local":
        return self

    def __exit__(self, *exception: object) -> None:
        """Kills the processes that `close` has not ended: Python would wait for their units. Each goes on from disk."""
        for slot in self._pools:
            self._signal(slot, signal.SIGKILL)


def slots_of_this_machine(limit: int | None = None) -> list[Slot]:
    """A core each; one slot, not pinned, where JAX computes on an accelerator or the system cannot pin.

    Args:
      limit: at most so many; None: all.
    """
    if not hasattr(os, "sched_setaffinity") or not allocator.computes_on_cpu():
        return [None]
    slots: list[Slot] = [frozenset({core}) for core in sorted(os.sched_getaffinity(0))]
    return slots[:limit]


def _started(slot: Slot):
    """A process for a slot, and its number to come."""
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=context, initializer=_pinned, initargs=(slot,))
    with environment(allocator.variables()):
        return pool, pool.submit(os.getpid)  # the process is started here


@contextlib.contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Within it this process has these environment variables, not those that are None, for processes that it starts."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _pinned(slot: Slot) -> None:
    """The first thing that a process does: it is pinned, and ends when the one that started it does."""
    os.setsid()  # a terminal's Ctrl-C is for the coordinator alone, which says what to do
    if slot is not None:
        os.sched_setaffinity(0, slot)
    parent = multiprocessing.parent_process()
    assert parent

    def leave() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)  # nothing is lost: the run goes on from its last checkpoint

    threading.Thread(target=leave, daemon=True).start()


def print_into(log: str) -> None:
    """From here on this process prints at the end of the file `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _work(workdir: str, unit: str, log: str) -> None:
    """A unit in this process, which prints into `log`."""
    print_into(log)
    from jaxopt_lm.studies.worker import work  # jax

    work(workdir, unit)
