"""Processes of our command lines that start at once: forked from a server that has imported what they need.

`Popen` and `run` are subprocess's for `python -m MODULE ARGUMENTS`: a process with its own memory, signals, limits,
output and exit code, that ends as an interpreter ends. What it leaves out is the second or more that JAX takes to
import, five with TensorFlow. The server starts no backend, and no thread but those of BLAS, which expects forks.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TENSORFLOW = ("jaxopt_lm.prepare", "tests.data.corpora")
IMPORTS = {
    "tensorflow": ("seqio", "tensorflow_datasets", "sentencepiece", "jaxopt_lm.data.prepare", "jaxopt_lm.data.files"),
    "others": ("orbax.checkpoint", "grain", "jaxopt_lm.training.run", "jaxopt_lm.training.evaluation"),
}
ROOT = Path(__file__).parents[1]


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that keep messages apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@functools.cache
def _server(imports: str) -> socket.socket:
    """The control socket of a server of this process, which ends with it."""
    ours, theirs = _pair()
    command = [sys.executable, "-m", "tests.forked", str(theirs.fileno()), imports]
    server = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
    theirs.close()

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


class Popen:
    """A process of `python -m MODULE ARGUMENTS`; leaving its context waits for it.

    Args:
      command: `[sys.executable, "-m", MODULE, *ARGUMENTS]`.
      env: all of its environment; that of this process by default.
      devices: fake CPU devices that JAX has there, and no others.
      file_kib: it cannot write a file beyond so many KiB, as if the disk were full there.
    """

    def __init__(
        self, command: Sequence[str], *, env=None, cwd=None, devices: int | None = None, file_kib: int | None = None
    ):
        assert command[:2] == [sys.executable, "-m"], command
        self.args, self._printed = command, ("", "")
        self.returncode: int | Any = None
        self._outputs = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        self._status, theirs = _pair()
        request = {
            "command": [str(word) for word in command[2:]],
            "env": dict(env or os.environ),
            "cwd": str(cwd or Path.cwd()),
            "devices": devices,
            "file_kib": file_kib,
        }
        control = _server("others" if command[2] not in TENSORFLOW else "tensorflow")
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(request).encode())
            file.flush()
            fds = [file.fileno(), *(output.fileno() for output in self._outputs), theirs.fileno()]
            socket.send_fds(control, [b"x"], fds)
        theirs.close()
        self.pid = int(self._status.recv(20))

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                self.returncode = int(self._status.recv(20))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            out, errors = (os.pread(file.fileno(), 2**30, 0).decode() for file in self._outputs)
            self._printed = out, errors
            for file in (self._status, *self._outputs):
                file.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed, when it has ended."""
        self.wait(timeout)
        return self._printed

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends right now
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Popen":
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait()


def run(command: Sequence[str], *, check: bool = False, timeout: float = 300, **options) -> subprocess.CompletedProcess:
    """Runs a process to its end."""
    with Popen(command, **options) as process:
        try:
            output, errors = process.communicate(timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, output, errors)
    assert not check or done.returncode == 0, errors
    return done


def _serve(control: socket.socket) -> tuple[dict, list[int]]:
    """Forks a process for every request; comes back in that process, with what it is to run and the files to print to.

    Between the two stands a process that waits for it and tells how it ended.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who wait are waited for by nobody
    while True:
        word, fds, *_ = socket.recv_fds(control, 1, 4)
        if not word:
            os._exit(0)
        if os.fork() == 0:
            break
        for fd in fds:
            os.close(fd)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    request, *outputs, status = fds
    pid = os.fork()
    if pid == 0:
        os.close(status)
        return json.loads(os.pread(request, 2**24, 0)), [request, *outputs]
    for fd in fds[:3]:
        os.close(fd)
    os.write(status, str(pid).encode())
    _, ended = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know
        os.write(status, str(os.waitstatus_to_exitcode(ended)).encode())
    os._exit(0)


def _become(request: dict, fds: list[int]) -> None:
    """Takes over what a new interpreter would have been given."""
    for fd, target in zip(fds, (0, 1, 2), strict=True):
        os.dup2(fd, target)
        os.close(fd)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[:1] = [request["cwd"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    devices, file_kib = request["devices"], request["file_kib"]
    if file_kib is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * file_kib,) * 2)
    if jax := sys.modules.get("jax"):
        jax.config.update("jax_enable_compilation_cache", file_kib is None)  # else it would leave halves of programs
        if devices is not None:
            jax.config.update("jax_platforms", "cpu")
            jax.config.update("jax_num_cpu_devices", devices)
    module, *arguments = request["command"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _main() -> None:
    # Python 3.12 warns: BLAS, which expects forks, has threads.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    control, imports = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    if imports == "tensorflow":
        os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    for name in IMPORTS[imports]:
        importlib.import_module(name)
    _become(*_serve(control))


if __name__ == "__main__":
    _main()
