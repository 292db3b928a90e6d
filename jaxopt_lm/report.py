"""Draws what a run's files hold.

    python -m jaxopt_lm.report --workdir=runs/quickstart

Writes loss.png, training and evaluation loss against tokens, into the folder of the run.
"""

import dataclasses
import sys

from jaxopt_lm.config_io import parse_command_line
from jaxopt_lm.errors import report_input_errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What to draw."""

    workdir: str
    """Folder of a run."""


@report_input_errors
def main() -> None:
    """The command line."""
    config = parse_command_line(ReportConfig, __doc__ or "")
    from jaxopt_lm.studies.figures import loss_curve

    print(loss_curve(config.workdir))


if __name__ == "__main__":
    sys.exit(main())
