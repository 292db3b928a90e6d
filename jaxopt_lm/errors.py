"""What a user did wrong, said in one line.

A library function raises `InputError` for bad input: a value, its bound, and the mend. A command line wrapped by
`report_input_errors` prints that line and exits with code 2; any other exception keeps its traceback: it is a bug.
"""

import contextlib
import errno
import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator


class InputError(ValueError):
    """Bad input: the message holds the value, the bound it breaks and the mend, on one line."""


def require(condition: bool, message: str) -> None:
    """Raises `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def check_path(name: str, value: str | None) -> None:
    """Raises `InputError` where a field cannot be a path: it is empty, or no file system can hold it."""
    possible = value is None or (bool(value) and "\0" not in value and value == value.encode(errors="ignore").decode())
    require(possible, f"{name}={value!r}: must be a path")


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Within it, an operating-system error (a full disk, a quota, no permission) is an `InputError` about `path`."""
    try:
        yield
    except OSError as error:
        reason, mend = error.strerror or str(error), mend_of(error.errno)
        raise InputError(f"{path}: cannot be written: {reason}; {mend}") from None


def one_line(message: str) -> str:
    """What a command line prints of an error."""
    return "error: " + " ".join(message.split())


def mend_of(number: int | None) -> str:
    """What to do where writing failed with this error number."""
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"{'make room' if full else 'change that'} there and run the same command again"


def report_input_errors(main: Callable[[], int | None]) -> Callable[[], int | None]:
    """Wraps a command line: an `InputError` or an operating-system error becomes one line on stderr and exit code 2.

    So does a package that is missing where the optimizers alone are installed. Ctrl-C before there is anything to save
    ends with exit code 130 and no traceback.
    """

    @functools.wraps(main)
    def wrapped() -> int | None:
        try:
            return main()
        except InputError as error:
            message = str(error)
        except OSError as error:
            if error.filename is None and error.errno is None:
                raise
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        except ModuleNotFoundError as error:
            if not _is_imported_here(error):
                raise
            extra = "study" if error.name in ("opda", "pandas", "statsmodels", "submitit") else "train"
            message = f"{error.name} is not installed, which this command needs: pip install 'jaxopt_lm[{extra}]'"
        except KeyboardInterrupt:
            return 130
        print(one_line(message), file=sys.stderr)
        return 2

    return wrapped


def _is_imported_here(error: ModuleNotFoundError) -> bool:
    """Whether it is this package that imports what is missing, not a user's file nor another package."""
    import traceback  # late, as logging is: every command imports this module before it may start Python again

    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return (frame.f_globals.get("__package__") or "").partition(".")[0] == __package__


def let_interrupts_kill() -> None:
    """Ctrl-C ends this process at once, without a traceback; amid compiling, an exception would crash it much later.

    For command lines that leave nothing half done.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def quiet_orbax() -> None:
    """Keeps what Orbax's threads print of a failure off the terminal; the failure itself is raised and reported.

    For command lines: it changes the process.
    """
    import logging

    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    usual = sys.unraisablehook
    sys.unraisablehook = lambda what: None if "Event loop is closed" in str(what.exc_value) else usual(what)
