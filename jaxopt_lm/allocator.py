"""mimalloc in place of glibc's allocator, for the command lines that compute on a CPU.

XLA allocates the temporaries of a step anew each time. glibc gives them back to the kernel, and the page faults that
follow take about a third of a step; mimalloc keeps for a second what is free. A process has its allocator from its
first instruction on, so a command line starts Python again, before jax is imported. A notebook is started with it:

    env $(python -m jaxopt_lm.allocator) jupyter lab
"""

import ctypes
import os
import sys

_LIBRARY = "cmeel.prefix/lib/libmimalloc.so"  # of the package cmeel-mimalloc
_BEFORE = "JAXOPT_LM_LD_PRELOAD"  # in the new process, LD_PRELOAD as it was in the old one


def restart() -> None:
    """Starts Python again with mimalloc, the first thing that the `main` of a command line does; or returns.

    The new process has the number, arguments, streams, ignored signals and environment of the old one, whose place it
    takes, and its exit code is the only one. Its child processes get LD_PRELOAD as it was before.

    Returns where this has been done, where `variables` has none, and where Python was started with anything but the
    caller's module: a profiler, a debugger, a notebook, a test or a script that calls `main`.
    """
    before = os.environ.pop(_BEFORE, None)
    if before is not None:
        os.environ["LD_PRELOAD"] = before
    elif _outermost_file() == sys._getframe(1).f_code.co_filename and (added := variables()):
        before = os.environ.get("LD_PRELOAD", "")
        try:
            os.execve(sys.executable, sys.orig_argv, os.environ | added | {_BEFORE: before})
        except OSError:
            return  # without it, as anywhere else


def variables() -> dict[str, str]:
    """The environment variables with which a process that computes on a CPU has mimalloc; none where it should not.

    That is where JAXOPT_LM_MALLOC is `off`, LD_PRELOAD names an allocator already, JAX will not compute on a CPU, this
    is not Linux, or the library is not installed or does not load.
    """
    preloaded = os.environ.get("LD_PRELOAD", "")
    wanted = sys.platform == "linux" and os.environ.get("JAXOPT_LM_MALLOC") != "off" and "malloc" not in preloaded
    library = _installed(_LIBRARY) if wanted and computes_on_cpu() else None
    if library is None or not {" ", ":", "$"}.isdisjoint(library):  # LD_PRELOAD would divide or expand it
        return {}
    try:
        ctypes.CDLL(library)
    except OSError:
        return {}
    purge = os.environ.get("MIMALLOC_PURGE_DELAY", "1000")  # milliseconds
    return {"LD_PRELOAD": f"{library}:{preloaded}".rstrip(":"), "MIMALLOC_PURGE_DELAY": purge}


def computes_on_cpu() -> bool:
    """Whether JAX will, as far as can be told before it is imported."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms.partition(",")[0] == "cpu"
    return not (_installed("jax_plugins") or _installed("libtpu"))


def _installed(name: str) -> str | None:
    """The path of a file or folder below one that modules are imported from."""
    paths = (f"{folder}/{name}" for folder in sys.path)
    return next(filter(os.path.exists, paths), None)


def _outermost_file() -> str | None:
    """The file of the outermost module that is being executed: what Python was started with."""
    frame, found = sys._getframe(), None
    while frame:
        if frame.f_code.co_name == "<module>":
            found = frame.f_code.co_filename
        frame = frame.f_back
    return found


if __name__ == "__main__":
    print(*(f"{name}={value}" for name, value in variables().items()))
