"""Draws what the files of a run, or of a study, hold.

    python -m jaxopt_lm.report --workdir=runs/quickstart
    python -m jaxopt_lm.report --workdir=runs/compare
    python -m jaxopt_lm.report --workdir=runs/compare --watch=True

Writes loss.png, training and evaluation loss against tokens, into the folder of a run. Into that of a study, which may
be running, it writes report.html: one page with the answer first, and its figures and tables as files beside it.
"""

import dataclasses
import sys
import time
from pathlib import Path

from jaxopt_lm.config_io import parse_command_line
from jaxopt_lm.errors import report_input_errors, require

_WATCH_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What to draw."""

    workdir: str
    """Folder of a run, or of a study."""
    watch: bool = False
    """Draw a study anew whenever runs of it have ended, until all have."""


@report_input_errors
def main() -> None:
    """The command line."""
    config = parse_command_line(ReportConfig, __doc__ or "")
    from jaxopt_lm.studies.figures import loss_curve

    if Path(config.workdir, "study.json").exists():
        _draw_study(config.workdir, config.watch)
        return
    require(
        not config.watch, f"watch=True: {config.workdir} holds no study.json; give a study's folder, or leave it out"
    )
    print(loss_curve(config.workdir))


def _draw_study(folder: str, watch: bool) -> None:
    from jaxopt_lm.studies import conclude, page

    drawn = None
    while True:
        report = conclude.collect(folder)
        if drawn is None or report.running != drawn.running or not report.table.equals(drawn.table):
            print(page.write(report, folder), flush=True)
        drawn = report
        if not (watch and report.running):
            return
        time.sleep(_WATCH_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
