"""What a Slurm job does with a unit of a study. It imports little: JAX comes once the process has its cores.

A job hears SIGTERM and USR2, as often as they come: either asks the run to save its state at the end of a step. After
USR2, which Slurm sends before a preemption or the end of the job's time, the job puts itself into the queue again;
after SIGTERM, which the coordinator sends, it leaves. Outside a run there is nothing to save, and it does so at once.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from jaxopt_lm import allocator
from jaxopt_lm.errors import InputError, one_line
from jaxopt_lm.files import write_atomically
from jaxopt_lm.studies.local import print_into

_SIGNALS = [number for number in signal.Signals if number.name in ("SIGTERM", "SIGUSR2")]  # Windows has no second

_to_requeue = threading.Event()


def begin(workdir: str, unit: str, log: str, cores: int) -> None:
    """The function that submitit calls: it becomes `main`, pinned, with the allocator, printing into `log`.

    Signals wait meanwhile: those that are blocked stay so, and pending, in the program that takes this one's place.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    print_into(log)
    _pin(cores)
    os.execve(sys.executable, [sys.executable, "-m", __name__, workdir, unit], os.environ | allocator.variables())


def left(workdir: str | os.PathLike, unit: str) -> Path:
    """The file that says that a unit's job has left without a result, and why: `error` is null after a signal."""
    return Path(workdir, "slurm", f"{unit}.left")


def main() -> int:
    """Trains the unit; the exit code, of no matter to the coordinator."""
    workdir, unit = sys.argv[1:]
    left(workdir, unit).unlink(missing_ok=True)  # Slurm began the job again after a SIGTERM of its own
    signal.signal(signal.SIGINT, lambda number, frame: _leave(workdir, unit))  # in a run, its own handler is in place
    threading.Thread(target=_listen, daemon=True).start()
    from jaxopt_lm.studies.worker import work  # jax

    try:
        ended = work(workdir, unit)
    except InputError as error:
        print(one_line(str(error)), file=sys.stderr)
        write_atomically(left(workdir, unit), json.dumps({"error": str(error)}).encode())
        return 2
    if ended == "interrupted":
        _leave(workdir, unit)
    return 0


def _listen() -> None:
    """Turns the first signal into the SIGINT that a run hears; a second would end it, and Slurm sends many."""
    main_thread, asked = threading.main_thread().ident, False
    assert main_thread
    while True:
        if signal.sigwait(_SIGNALS) == signal.SIGUSR2:
            _to_requeue.set()
        if not asked:
            asked = True
            signal.pthread_kill(main_thread, signal.SIGINT)


def _leave(workdir: str, unit: str) -> None:
    """Ends this process: the job is in the queue again, or it has said that it left."""
    job = os.environ["SLURM_JOB_ID"]
    requeued = _to_requeue.is_set() and subprocess.run(["scontrol", "requeue", job], check=False).returncode == 0
    if not requeued:
        write_atomically(left(workdir, unit), json.dumps({"error": None}).encode())
    print(f"job {job} {'is in the queue again' if requeued else 'leaves'}", flush=True)
    os._exit(143)


def _pin(cores: int) -> None:
    """Gives this process as many cores as the job asked for, where Slurm has not: they decide a run's roundings.

    Of a node that confines no job, those that the controller counts as this job's; of the cores that Slurm confines it
    to, which may be more where cores have several threads, the first.
    """
    if not hasattr(os, "sched_setaffinity") or len(may_use := os.sched_getaffinity(0)) <= cores:
        return
    mine = [core for core in _counted() if core in may_use]
    os.sched_setaffinity(0, (mine if len(mine) >= cores else sorted(may_use))[:cores])


def _counted() -> list[int]:
    """The cores of this node that the controller counts as the job's."""
    command = ["scontrol", "--details", "--oneliner", "show", "job", os.environ["SLURM_JOB_ID"]]
    shown = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    found: list[int] = []
    for words in re.findall(r"CPU_IDs=([\d,-]+)", shown)[:1]:
        for word in words.split(","):
            first, _, last = word.partition("-")
            found += range(int(first), int(last or first) + 1)
    return found


if __name__ == "__main__":
    sys.exit(main())
