"""Several processes, one on each host, that train one run: starting them, doing things once, stopping together.

The engine is JAX's own, `jax.distributed`. Every process runs the same program on its share of the devices; what is
done once (files, the terminal) is done by process 0, the *primary*. What processes tell each other goes through JAX's
coordination service, which, unlike a collective, waits for the slow. One that raises, or dies, ends the others within a
minute: JAX aborts them with a message that another task died.
"""

import contextlib
import importlib.metadata
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax._src.clusters import ClusterEnv  # what `jax.distributed.initialize` asks; it has no public name
from jax.experimental import multihost_utils

from jaxopt_lm.config import DistributedConfig, TrainConfig
from jaxopt_lm.dumps import differences, to_dict
from jaxopt_lm.errors import InputError, one_line, require

_HEARTBEAT_SECONDS = 20
_SHUTDOWN_SECONDS = 20
_DAY_MS = 24 * 3600 * 1000

_exchanges = itertools.count()


class EndedTogether(InputError):
    """An `InputError` that every process raises at the same point."""


def start(config: DistributedConfig) -> None:
    """Joins the other processes, where there are any; before anything else touches a device.

    Without flags, Slurm (more than one task in the step) and TPU pods are found by JAX; any other process is alone.
    Where one of several never comes, JAX ends the others after `timeout_seconds` with a message of its own.

    Raises:
      InputError: process 0 cannot be reached, or cannot listen where it should.
    """
    address = config.coordinator
    if jax.distributed.is_initialized() or (address is None and not _in_cluster()):
        return
    local = (address or "").startswith("127.0.0.1:")  # else the coordinator listens on every interface
    if address is not None and config.process_id == 0:
        _check_port(address, local)
        print(
            f"waiting at most {config.timeout_seconds} s for {config.num_processes} processes at {address}",
            file=sys.stderr,
        )
    elif address is not None:
        _wait_for_coordinator(address, config.timeout_seconds)
    try:
        jax.distributed.initialize(
            address,
            config.num_processes,
            config.process_id,
            coordinator_bind_address=address if local else None,
            initialization_timeout=config.timeout_seconds,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
            cluster_detection_method=None if address is None else "deactivate",
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"distributed: cannot join the processes of coordinator {address or 'that the cluster names'}: {reason}; "
            f"start all of them within distributed.timeout_seconds={config.timeout_seconds}"
        ) from None


def _check_port(address: str, local: bool) -> None:
    """Raises `InputError` where process 0's port is taken."""
    host, _, port = address.rpartition(":")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host if local else "", int(port)))
    except OSError as error:
        raise InputError(
            f"distributed.coordinator={address}: process 0 cannot listen there: {error.strerror}; give a free port"
        ) from None


def _wait_for_coordinator(address: str, seconds: float) -> None:
    """Returns when process 0 listens; raises `InputError` where it does not in time."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=5):
                return
        except OSError as error:
            require(
                time.monotonic() < deadline,
                f"distributed.coordinator={address}: no answer within distributed.timeout_seconds={seconds}: "
                f"{error.strerror or error}; start process 0 there, or mend the address",
            )
            time.sleep(0.2)


def _in_cluster() -> bool:
    """Whether this is one of several tasks of a Slurm step, or a host of a TPU pod."""
    env = os.environ
    slurm = "SLURM_PROCID" in env and "SLURM_STEP_NODELIST" in env and int(env.get("SLURM_NTASKS", "1")) > 1
    tpus = [cluster for cluster in ClusterEnv._cluster_types if cluster.name.endswith("tpu")]
    return slurm or any(cluster.is_env_present() for cluster in tpus)


def is_primary() -> bool:
    """Whether this process writes the run's files."""
    return jax.process_index() == 0


def gather(text: str) -> list[str]:
    """What each process gives, by its index; all call it in the same order. A barrier."""
    if jax.process_count() == 1:
        return [text]
    from orbax.checkpoint import multihost  # its import takes long, and one process needs none of it

    client, key = multihost.get_jax_distributed_client(), f"jaxopt_lm/{next(_exchanges)}"
    client.key_value_set(f"{key}/{jax.process_index()}", text)
    client.wait_at_barrier(key, timeout_in_ms=_DAY_MS)
    return [client.blocking_key_value_get(f"{key}/{index}", _DAY_MS) for index in range(jax.process_count())]


def check_agreement(config: TrainConfig) -> None:
    """Raises `InputError` in every process unless all have this config and these versions; `tokens_dir` may differ.

    Each would build a program of its own, and their collectives would mix numbers, or wait for ever.
    """
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    first, *others = map(json.loads, gather(json.dumps(to_dict(config) | versions)))
    for index, other in enumerate(others, 1):
        changed = differences(first, other)
        names = [name for name in changed if not name.startswith(("distributed.", "data.tokens_dir"))]
        listed = ", ".join(f"{name}={changed[name][1]!r} (process 0 has {changed[name][0]!r})" for name in names)
        require(not names, f"process {index}: {listed}; give every process the same")


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within it an `InputError` of one process ends all: the others raise one that says so. Leaving it is a barrier."""
    error = None
    try:
        yield
    except InputError as raised:
        if jax.process_count() == 1:
            raise
        error = raised
    failed = [str(index) for index, said in enumerate(gather("failed" if error else "")) if said]
    if failed:
        raise EndedTogether(str(error or f"process {', '.join(failed)} stopped; see its message"))


@contextlib.contextmanager
def ending_the_others() -> Iterator[None]:
    """Within it an error of one of several processes ends that one at once, so that JAX soon ends the others.

    They wait for it in a collective, and it would wait for them before it left. The error is printed as a command line
    prints it; the exit code is 2 for an `InputError`, else 1. It may be the end of another process, noticed in Python
    before JAX aborts this one.
    """
    try:
        yield
    except EndedTogether:
        raise
    except Exception as error:
        if jax.process_count() == 1:
            raise
        known = isinstance(error, InputError)
        unknown = f"{traceback.format_exc()}\nIf another process ended first, this is why: look for its error."
        print(one_line(str(error)) if known else unknown, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(2 if known else 1)


class StopSignals:
    """Within `listening`, the first SIGINT or SIGTERM is remembered and said; a second has its usual effect.

    Outside the main thread, where Python delivers no signals, nothing is heard.

    Args:
      say: shows a line.

    Attributes:
      received: the number of the signal that came, or None.
    """

    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, say: Callable[[str], None]):
        self.received: int | None = None
        self._say = say
        self._previous: dict[int, Any] = {}

    @contextlib.contextmanager
    def listening(self, consequence: str) -> Iterator[None]:
        """Within it signals are heard; `consequence` says what will come of the first."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def say(number: int) -> None:
            self._say(f"{signal.Signals(number).name} heard: {consequence}; a second ends at once")

        with _telling(say, self.numbers):
            for number in self.numbers:
                self._previous[number] = signal.signal(number, self._receive)
            try:
                yield
            finally:
                self._restore()

    def poll(self) -> bool:
        """Whether to stop here; of several processes, each asks at the same places."""
        return self.received is not None

    def _receive(self, number: int, frame: Any) -> None:
        del frame
        self._restore()
        self.received = number

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())


_polls = itertools.count(1)


class StopTogether(StopSignals):
    """The same of several processes: a SIGTERM to any one stops all of them at the same poll.

    JAX's preemption service hears it, and no handler of ours may take its place. The first SIGINT is passed to it. It
    wants every poll of a process counted, from 1, over all runs, and stops a process once in its life.
    """

    numbers = (signal.SIGINT,)

    def poll(self) -> bool:
        """Whether all processes stop here."""
        if self.received is None and multihost_utils.reached_preemption_sync_point(next(_polls)):
            self.received = signal.SIGTERM
            self._say("SIGTERM heard by one of the processes: all stop here, with the state saved")
        return self.received is not None

    def _receive(self, number: int, frame: Any) -> None:
        del number, frame
        self._restore()
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _telling(say: Callable[[int], None], numbers: tuple[int, ...]) -> Iterator[None]:
    """Within it the first of these signals is told at once, by a thread: a handler waits while JAX computes."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while (number := os.read(reading, 1)[0]) not in (0, *numbers):
            pass
        if number:
            say(number)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writing, b"\0")
        thread.join()
        os.close(reading)
        os.close(writing)


def pass_on(number: int) -> None:
    """Does what a signal that was remembered does outside `StopSignals.listening`.

    A handler is called: the usual one of SIGINT raises KeyboardInterrupt. SIGTERM, which would kill the process at
    once, raises SystemExit.
    """
    if callable(signal.getsignal(number)):
        signal.raise_signal(number)
    else:
        raise SystemExit(128 + number)
