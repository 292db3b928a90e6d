"""Runs a study: every arm at its best learning rate, on fresh seeds, beside the baseline.

    python -m jaxopt_lm.sweep --config=configs/compare.py:optimizers=adamw+lion+muon+mine.py:Mine

trains what the study wants, one run a core, and goes on where it stopped, whether by Ctrl-C, SIGTERM or kill -9.

    python -m jaxopt_lm.sweep --config=… --engine=slurm --slurm.partition=NAME    # one run a job of Slurm
    python -m jaxopt_lm.sweep --config=… --dry_run       # runs, tokens, FLOPs, hours from a measured step
    python -m jaxopt_lm.sweep status --workdir=STUDY     # what has ended, what is open, what was chosen
    python -m jaxopt_lm.sweep retry --workdir=STUDY      # forgets which units crashed too often
    python -m jaxopt_lm.sweep prune --workdir=STUDY      # removes checkpoints of runs that have ended
    python -m jaxopt_lm.sweep units --workdir=STUDY      # the units that are open, for another scheduler
    python -m jaxopt_lm.sweep work --workdir=STUDY --unit=ID    # trains one of them

Exit code: 0 done; 2 bad input or a full disk; 130 and 143 stopped by SIGINT and SIGTERM, the states saved.
"""

import sys

from jaxopt_lm import allocator
from jaxopt_lm.errors import InputError, quiet_orbax, report_input_errors

COMMANDS = ("run", "status", "retry", "prune", "units", "work")


@report_input_errors
def main() -> int | None:
    """The command line."""
    allocator.restart()  # for `work` and `--dry_run`, which compute
    words = sys.argv[1:]
    command = words.pop(0) if words and not words[0].startswith("-") else "run"
    if command not in COMMANDS:
        raise InputError(f"sweep {command}: must be one of {', '.join(COMMANDS)}; or give --config=FILE.py")
    quiet_orbax()
    from jaxopt_lm.studies import commands  # jax

    return getattr(commands, command)(words, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
