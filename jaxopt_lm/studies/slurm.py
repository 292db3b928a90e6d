"""Trains units as jobs of a Slurm cluster, which submitit submits: one job a unit, called by the study and the unit.

What a unit did is in the study's files, and which jobs there are is in Slurm's queue; the coordinator keeps neither. So
one that was killed leaves jobs that the next one finds by their names and waits for. Every node needs the study's
folder, the texts' tokens and this Python at the same paths.
"""

import contextlib
import dataclasses
import io
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.files import read_json, sha256_of
from jaxopt_lm.studies import slurm_job
from jaxopt_lm.studies.local import Ended, environment
from jaxopt_lm.studies.store import Store

_COMMANDS = ("sbatch", "squeue", "scancel", "srun")

_SIGNAL_SECONDS = 90
"""So long before the end of a job's time its run is told to save its state."""

_MIN_MINUTES = 5

_OURS = ("array", "chdir", "cpus-per-task", "job-name", "nodes", "ntasks", "ntasks-per-node", "signal")
"""Options by which jobs are one process each, in this folder, found by their names and told to save their states."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What the jobs of a study ask for."""

    partition: str | None = None
    """Of all jobs; None: the cluster's default."""
    minutes: int = 60
    """Of a job. A run that needs more is saved before the end, and its job put into the queue again."""
    cpus_per_task: int = 1
    """Cores of a job. A unit that was begun on another number goes on with that."""
    gpus_per_node: int = 0
    """GPUs of a job."""
    jobs: int = 16
    """At most so many in the queue, running or not."""
    extra: str = ""
    """More options of sbatch: '--account=NAME --mem=8G --qos=low'."""
    poll_seconds: float = 10.0
    """The queue is asked for once in so many seconds."""

    def __post_init__(self):
        for name, bound in (("minutes", _MIN_MINUTES), ("cpus_per_task", 1), ("gpus_per_node", 0), ("jobs", 1)):
            value = getattr(self, name)
            require(value >= bound, f"slurm.{name}={value}: must be at least {bound}")
        require(0 < self.poll_seconds < 3600, f"slurm.poll_seconds={self.poll_seconds}: must be in (0, 3600)")
        self.options()

    def options(self) -> dict[str, Any]:
        """Those of `extra`, by name; True where one has no value.

        Raises:
          InputError: a word is no option.
        """
        try:
            words = shlex.split(self.extra)
        except ValueError as error:
            raise InputError(f"slurm.extra={self.extra!r}: {error}; mend the quotes") from None
        for word in words:
            option = word.startswith("--") and word[2:3].isalpha()
            require(option, f"slurm.extra={self.extra!r}: {word!r} must be --NAME or --NAME=VALUE")
        parts = [word[2:].partition("=") for word in words]
        given = {name: value if equals else True for name, equals, value in parts}
        ours = ", ".join(name for name in given if name in _OURS)
        require(not ours, f"slurm.extra={self.extra!r}: leave out {ours}; a job is one process of one unit")
        return given


def require_commands() -> None:
    """Raises `InputError` where Slurm's commands are not there."""
    for name in _COMMANDS:
        found = shutil.which(name) is not None
        require(found, f"engine=slurm: {name} is not on PATH; run this where Slurm's commands are")


class NoResult(RuntimeError):
    """A job has left the queue, and its unit has neither a result nor been told to stop."""


class Slurm:
    """Jobs of a Slurm cluster, those of an earlier coordinator of the study among them; a context manager.

    Args:
      store: the study, whose lock is held.
      config: what jobs ask for.

    Raises:
      InputError: Slurm's commands are not there, or its controller does not answer.
    """

    def __init__(self, store: Store, config: SlurmConfig):
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        require_commands()
        self._store, self._config = store, config
        self._prefix = f"jaxopt_lm-{sha256_of(str(store.path.resolve()).encode())[:8]}-"
        self._executor = submitit.SlurmExecutor(store.path / "slurm")
        self._refused = FailedJobError, FailedSubmissionError  # what sbatch says, and what it says unintelligibly
        self._next_look = self._next_cancel = self._next_submit = 0.0
        found, message = self._queued()
        if found is None:
            raise InputError(f"engine=slurm: squeue fails: {message}; run the same command when Slurm answers")
        self._jobs = found

    @property
    def free(self) -> int:
        """How many units more can be submitted now."""
        return 0 if time.monotonic() < self._next_submit else max(0, self._config.jobs - len(self._jobs))

    @property
    def running(self) -> list[str]:
        """The units whose jobs are in the queue: waiting, running, or put there again."""
        return list(self._jobs)

    def submit(self, unit: str, log: Path) -> None:
        """Submits a job for a unit; a limit of the cluster's on one's jobs makes it wait until some have ended.

        Raises:
          InputError: sbatch refuses the first.
        """
        cores = self._store.unit(unit).cores or self._config.cpus_per_task
        slurm_job.left(self._store.path, unit).unlink(missing_ok=True)
        try:
            with _outside_jobs(), contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
                self._executor.update_parameters(**self._parameters(unit, cores))
                job = self._executor.submit(slurm_job.begin, str(self._store.path), unit, str(log), cores)
        except self._refused as error:
            lines = str(error).strip().splitlines() or ["no message"]
            if not self._jobs:
                raise InputError(f"sbatch refuses a job: {lines[-1]}; mend --slurm.*") from None
            self._next_submit = time.monotonic() + max(60, self._config.poll_seconds)
        else:
            self._jobs[unit] = job.job_id

    def _parameters(self, unit: str, cores: int) -> dict[str, Any]:
        """Submitit's, for the job of a unit."""
        config = self._config
        return {
            "job_name": self._prefix + unit,
            "partition": config.partition,
            "time": config.minutes,
            "cpus_per_task": cores,
            "gpus_per_node": config.gpus_per_node or None,
            "signal_delay_s": _SIGNAL_SECONDS,
            "stderr_to_stdout": True,
            "srun_args": [f"--cpus-per-task={cores}"],  # since Slurm 22.05 it does not follow the job's
            "additional_parameters": {"requeue": True} | config.options(),
        }

    def poll(self, seconds: float) -> list[Ended]:
        """After so long, the units whose jobs have left the queue since it was last asked for."""
        time.sleep(seconds)
        if time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + self._config.poll_seconds
        found, _ = self._queued()
        if found is None:  # a controller that is away comes back, and its jobs run on
            return []
        before, self._jobs = self._jobs, found
        return [self._ended(unit, job) for unit, job in before.items() if unit not in found]

    def _queued(self) -> tuple[dict[str, str] | None, str]:
        """The jobs of the study by unit, or None and what squeue says is wrong."""
        command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i %j"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if done.returncode:
            return None, " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        jobs = (line.split(maxsplit=1) for line in done.stdout.splitlines())
        return {name.removeprefix(self._prefix): job for job, name in jobs if name.startswith(self._prefix)}, ""

    def _ended(self, unit: str, job: str) -> Ended:
        """How a job left its unit."""
        store, left = self._store, slurm_job.left(self._store.path, unit)
        runs = store.unit(unit).runs
        for folder in {left.parent, *map(store.folder, runs)}:
            if folder.is_dir():
                os.listdir(folder)  # a network file system then looks again for what it last did not find
        if all(store.result(run) is not None for run in runs):
            return Ended(unit, None)
        if left.exists():
            message = read_json(left, "remove it")["error"]
            left.unlink()
            return Ended(unit, None if message is None else InputError(message))
        printed = left.parent / f"{job}_0_log.out"
        return Ended(unit, NoResult(f"job {job} has left the queue without one; see {printed}"))

    def cancel(self) -> None:
        """Asks every job to save its state and leave, those that only wait to leave at once; again while any stays."""
        if not self._jobs or time.monotonic() < self._next_cancel:
            return
        self._next_cancel = time.monotonic() + self._config.poll_seconds
        for how in ("--state=PENDING", "--signal=TERM"):
            subprocess.run(["scancel", how, *self._jobs.values()], check=False, capture_output=True)

    def close(self) -> None:
        """Does nothing: what was submitted has ended."""

    def __enter__(self) -> "Slurm":
        return self

    def __exit__(self, *exception: object) -> None:
        """Does nothing: what `close` was not called for runs on, and the next coordinator finds it."""


def _outside_jobs() -> contextlib.AbstractContextManager[None]:
    """Within it this process has none of the variables of a job that it may be in, which sbatch takes for options."""
    return environment({name: None for name in os.environ if name.startswith("SLURM") and name != "SLURM_CONF"})
