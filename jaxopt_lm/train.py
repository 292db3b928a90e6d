"""Trains a decoder-only transformer.

    python -m jaxopt_lm.train --config=configs/quickstart.py
    python -m jaxopt_lm.train --config=configs/quickstart.py:optimizer=lion --config.optimizer.learning_rate=1e-3
    python -m jaxopt_lm.train --config=runs/quickstart/config.json --config.workdir=runs/again --config.seed=1

The same command again goes on where the run stopped. Exit code 0: done; 1: diverged; 2: bad input; 130 and 143: stopped
by SIGINT or SIGTERM, state saved; several processes: 143 for either.
"""

import os
import signal
import sys

from jaxopt_lm import allocator
from jaxopt_lm.errors import quiet_orbax, report_input_errors


def leave(number: int, frame: object) -> None:
    """Ends the process at once, where there is nothing to save: an exception amid compiling would crash it."""
    del frame
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h\n")  # the cursor, which the display hides
    os._exit(128 + number)


@report_input_errors
def main() -> int:
    """The command line."""
    allocator.restart()
    from jaxopt_lm import compilation_cache  # jax
    from jaxopt_lm.config_io import WithConfig, from_command_line

    config = from_command_line(WithConfig, __doc__ or "").config
    quiet_orbax()
    compilation_cache.enable()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    from jaxopt_lm.training.run import run  # after --help, which needs neither flax nor orbax

    return run(config).exit_code


if __name__ == "__main__":
    sys.exit(main())
