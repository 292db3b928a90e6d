"""Several processes, one on each host, that train one run: starting them, doing things once, stopping together.

The engine is JAX's own, `jax.distributed`. Every process runs the same program on its share of the devices; what is
done once (files, the terminal) is done by process 0, the *primary*. One that raises, or dies, ends the others within a
minute: JAX aborts them with a message that another task died.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxopt_lm.config import DistributedConfig
from jaxopt_lm.errors import InputError, require

_HEARTBEAT_SECONDS = 20
_SHUTDOWN_SECONDS = 20


def start(config: DistributedConfig) -> None:
    """Joins the other processes, where there are any; before anything else touches a device.

    Without flags, Slurm (more than one task in the step) and TPU pods are found by JAX; any other process is alone.

    Raises:
      InputError: the others do not come.
    """
    if jax.distributed.is_initialized() or (config.coordinator is None and not _in_cluster()):
        return
    local = (config.coordinator or "").startswith("127.0.0.1:")  # else the coordinator listens on every interface
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.num_processes,
            config.process_id,
            coordinator_bind_address=config.coordinator if local else None,
            initialization_timeout=config.timeout_seconds,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
            cluster_detection_method=None if config.coordinator is None else "deactivate",
        )
    except (RuntimeError, ValueError) as error:
        where = config.coordinator or "the cluster's"
        reason = str(error).splitlines()[0]
        raise InputError(
            f"distributed: cannot join the processes of coordinator {where}: {reason}; start all of them within "
            f"distributed.timeout_seconds={config.timeout_seconds}"
        ) from None


def _in_cluster() -> bool:
    """Whether the environment is that of one of several tasks of a Slurm step, or of one of several hosts of a TPU."""
    env = os.environ
    slurm = "SLURM_PROCID" in env and "SLURM_STEP_NODELIST" in env and int(env.get("SLURM_NTASKS", "1")) > 1
    return slurm or "," in env.get("TPU_WORKER_HOSTNAMES", "") or "MEGASCALE_COORDINATOR_ADDRESS" in env


def is_primary() -> bool:
    """Whether this process writes the run's files."""
    return jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Within it an `InputError` of one process ends all: the others raise one that says so. Leaving it is a barrier."""
    error = None
    try:
        yield
    except InputError as raised:
        error = raised
    if jax.process_count() > 1:
        failed = np.flatnonzero(multihost_utils.process_allgather(np.asarray(error is not None)))
        require(error is not None or not failed.size, f"process {', '.join(map(str, failed))} stopped; see its message")
    if error is not None:
        raise error


class Stop(Protocol):
    """When training is asked to stop.

    Attributes:
      received: the number of the signal that came, or None.
    """

    received: int | None

    def after(self, step: int) -> bool:
        """Whether training stops after this step; asked at every step, in order."""
        ...


class StopSignals:
    """Within this context the first SIGINT or SIGTERM is remembered; a second one ends the process.

    Outside the main thread, where Python delivers no signals, it does nothing.

    Attributes:
      received: the number of the signal that came, or None.
    """

    def __init__(self):
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        main = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGINT, signal.SIGTERM) if main else ():
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: Any) -> None:
        del frame
        self.received = number
        self.__exit__()

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def after(self, step: int) -> bool:
        """Whether a signal has come."""
        del step
        return self.received is not None


class StopTogether:
    """What `StopSignals` is to a single process: a SIGTERM to any one of several stops all of them after the same step.

    JAX's preemption service listens, and no handler of ours may take its place.
    """

    def __init__(self):
        self.received: int | None = None

    def __enter__(self) -> "StopTogether":
        return self

    def __exit__(self, *exception: object) -> None: ...

    def after(self, step: int) -> bool:
        """Whether all processes stop here."""
        if multihost_utils.reached_preemption_sync_point(step):
            self.received = signal.SIGTERM
        return self.received is not None
