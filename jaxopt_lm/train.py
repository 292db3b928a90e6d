"""Trains a decoder-only transformer.

    python -m jaxopt_lm.train --config=configs/quickstart.py
    python -m jaxopt_lm.train --config=configs/quickstart.py:optimizer=lion --config.optimizer.learning_rate=1e-3

The same command again goes on where the run stopped. Exit code 0: done; 1: diverged; 2: bad input; 130 and 143: stopped
by SIGINT or SIGTERM, state saved.
"""

import logging
import sys
import warnings

from jaxopt_lm.config_io import from_command_line
from jaxopt_lm.errors import report_input_errors


def quiet_orbax() -> None:
    """Keeps what Orbax's threads print of a failed save off the terminal; the failure itself is raised and reported."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    usual = sys.unraisablehook
    sys.unraisablehook = lambda what: None if "Event loop is closed" in str(what.exc_value) else usual(what)


@report_input_errors
def main() -> int:
    """The command line."""
    config = from_command_line(__doc__ or "")
    quiet_orbax()
    from jaxopt_lm.training.loop import train  # after --help, which needs neither flax nor orbax

    return train(config).exit_code


if __name__ == "__main__":
    sys.exit(main())
