"""What a user did wrong, said in one line.

A library function raises `InputError` for bad input: a value, its bound, and the mend. A command line wrapped by
`report_input_errors` prints that line and exits with code 2; any other exception keeps its traceback: it is a bug.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator


class InputError(ValueError):
    """Bad input: the message holds the value, the bound it breaks and the mend, on one line."""


def require(condition: bool, message: str) -> None:
    """Raises `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Within it, an operating-system error (a full disk, a quota, no permission) is an `InputError` about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path}: cannot be written: {reason}; make room there and run the same command again"
        ) from None


def report_input_errors(main: Callable[[], int | None]) -> Callable[[], int | None]:
    """Wraps a command line: an `InputError` or an operating-system error becomes one line on stderr and exit code 2.

    Ctrl-C before there is anything to save ends with exit code 130 and no traceback.
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
        except KeyboardInterrupt:
            return 130
        print("error: " + " ".join(message.split()), file=sys.stderr)
        return 2

    return wrapped
