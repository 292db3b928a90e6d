"""The page of a study: `report.html`, one file that needs nothing else, and its figures and tables as files.

table.parquet .csv     one row a run, see jaxopt_lm.studies.load
report.html            the answer first, then what it stands on
figures/NAME.svg .png  at a page's width; NAME-column.svg at a column's
figures/NAME.csv       what is drawn
tables/NAME.csv .md .tex
"""

import dataclasses
import functools
import html
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from jaxopt_lm.errors import writing
from jaxopt_lm.files import write_atomically
from jaxopt_lm.studies import figures, inner_figures, points
from jaxopt_lm.studies.arms import speed_ups, stability
from jaxopt_lm.studies.curves import WINDOW
from jaxopt_lm.studies.drawing import COLUMN, WIDE, Drawing, styles
from jaxopt_lm.studies.findings import Report
from jaxopt_lm.studies.frames import ENDED, only
from jaxopt_lm.studies.markup import csv, html_table, inline_svg, latex, markdown, readable, saved
from jaxopt_lm.studies.sentences import JUDGED, answers, status
from jaxopt_lm.studies.stylesheet import CSS
from jaxopt_lm.studies.table import save


class _Shown(NamedTuple):
    """A figure of the page: its file's name, its caption, how it is drawn at a width, and at which on a wide page."""

    name: str
    caption: str
    draw: Callable[[float], Drawing]
    wide: float = WIDE


_HALF = 5.0  # inches: of the figure that stands beside the answers


def write(report: Report, folder: str | os.PathLike) -> Path:
    """Writes `report.html`, `table.parquet`, `table.csv`, `figures/` and `tables/` into `folder`.

    Each file is the old or the new one, whole.

    Returns:
      The path of the page.

    Raises:
      InputError: the folder cannot be written to.
    """
    folder = Path(folder)
    with writing(folder):
        for name in ("figures", "tables"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    save(report.table, folder)
    report = dataclasses.replace(report, history=functools.cache(report.history))
    sections = [*_figure_sections(report, folder / "figures"), *_table_sections(report, folder / "tables")]
    first, rest = _by_answer(sections)
    write_atomically(folder / "report.html", _page(report, first, rest).encode())
    return folder / "report.html"


class _Section(NamedTuple):
    """A part of the page; `id` is its anchor."""

    id: str
    title: str
    body: str


def _by_answer(sections: list[_Section]) -> tuple[_Section | None, list[_Section]]:
    """The figure that stands beside the answers: differences, or else rates; and the other sections in their order."""
    first = next((x for name in ("differences", "rates") for x in sections if x.id == name), None)
    order = {name: i for i, name in enumerate(_ORDER)}
    rest = [section for section in sections if section is not first]
    return first, sorted(rest, key=lambda section: order[section.id])


_ORDER = (
    *("rates", "verdicts", "choices", "curves", "speed_ups", "stability", "claims", "sizes", "tuning", "heat_maps"),
    *("gradient_norms", "effective_rates", "not_completed", "runs", "facts"),
)


def _figure_sections(report: Report, folder: Path) -> Iterator[_Section]:
    for shown in _figures(report):
        wide, column = shown.draw(shown.wide), shown.draw(COLUMN)
        svgs = {"wide": saved(wide.figure, "svg"), "column": saved(column.figure, "svg")}
        write_atomically(folder / f"{shown.name}.svg", svgs["wide"])
        write_atomically(folder / f"{shown.name}-column.svg", svgs["column"])
        write_atomically(folder / f"{shown.name}.png", saved(wide.figure, "png"))
        write_atomically(folder / f"{shown.name}.csv", csv(wide.data).encode())
        title, _, caption = shown.caption.partition(". ")
        drawn = "\n".join(inline_svg(svg.decode(), f"{shown.name}-{kind}", title) for kind, svg in svgs.items())
        body = f"<figure>\n{drawn}\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>"
        yield _Section(shown.name, title, body)


def _figures(report: Report) -> Iterator[_Shown]:
    """Every figure that there is something to draw in."""
    table, choices = report.table, report.choices
    looks = styles(report.arms, report.baseline)

    def shown(
        name: str, data: pd.DataFrame, draw: Callable[..., Drawing], caption: str, *more: Any, wide: float = WIDE
    ) -> Iterator[_Shown]:
        if len(data):
            yield _Shown(name, caption, lambda width: draw(data, *more, looks, width=width), wide)

    judged = only(report.verdicts, kind=JUDGED)
    if len(judged):
        caption = (
            f"Difference to {report.baseline}. Eval loss of fresh seeds at each optimizer's chosen rate, minus that of "
            f"{report.baseline}. Intervals: {report.level:.0%}, widened for all comparisons. Hollow: not resolved."
        )

        def draw_differences(width: float) -> Drawing:
            return figures.differences(judged, looks, report.baseline, width=width)

        yield _Shown("differences", caption, draw_differences, _HALF)
    ended = only(table, status=ENDED)
    yield from shown(
        "rates", ended, figures.rates, _RATES, choices, points.fit_points(table), wide=WIDE if len(judged) else _HALF
    )
    yield from shown("curves", points.curve_points(_timed(report), choices, report.history), figures.curves, _CURVES)
    yield from shown("sizes", points.size_points(table, choices), figures.sizes, _SIZES)
    cost = points.tuning_points(table)
    yield from shown("tuning", cost, figures.tuning, _TUNING + (_BAND if cost.low.notna().any() else ""))
    yield from shown("heat_maps", points.grid_points(table), inner_figures.heat_maps, _HEAT)
    for name, find, draw, caption in (
        ("gradient_norms", points.gradient_points, inner_figures.gradient_norms, _GRADIENTS),
        ("effective_rates", points.effective_rate_points, inner_figures.effective_rates, _EFFECTIVE),
    ):
        found = find(table, choices, report.history)
        where = f" Setting: {found.setting[0]}." if len(found) and found.setting[0] else ""
        yield from shown(name, found, draw, caption + where)


_RATES = (
    "Loss against learning rate. Lines: the tuning seed. Small points: fresh seeds, with a bar over their range. "
    "Ring: the chosen rate. Bar at the bottom: the optimum of a parabola. Cross at the top: the run diverged. "
    "Lines that leave at the top have larger losses there."
)
_CURVES = (
    "Loss over training. At the chosen rates: mean of the fresh seeds, or the tuning seed where there are none yet. "
    "Band: the seeds' range."
)
_SIZES = (
    "Size. Hollow: the best rate is at an end of those tried, a bound. Sensitivity: mean over the rates tried of the "
    "loss, at most that at initialisation, minus the least."
)
_TUNING = (
    "Cost of tuning. Best loss to expect after n of the rates and numbers tried, in a random order. A run that diverged"
    " counts as the worst that completed."
)
_BAND = " Band: 95%, of the median, as far as the trials bound it."
_HEAT = "Loss over two numbers. Tuning seed. Cross: the run diverged. Blank: not tried."
_GRADIENTS = "Gradients by layer. One seed at the chosen rate; layer 0 is nearest to the input."
_EFFECTIVE = (
    "Effective learning rates. Rate over the root of the second moment, by role of the parameters; line: median, band: "
    "quartiles. One seed at the chosen rate."
)


def _table_sections(report: Report, folder: Path) -> Iterator[_Section]:
    table, choices = report.table, report.choices
    not_completed = only(table, status=("diverged", "failed"))
    columns = ["setting", "arm", "learning_rate", "changed", "seed", "status", "diverged_step", "diverged_metric", "id"]
    faster = speed_ups(_timed(report), choices, report.baseline, report.history, report.level)
    for name, caption, frame in (
        ("verdicts", "Verdicts", report.verdicts.drop(columns="sentence")),
        ("choices", _CHOICES, choices),
        ("speed_ups", _speed_ups(report), faster),
        ("stability", _STABILITY, stability(table, choices, report.history)),
        ("claims", "Claims", report.claims),
        ("not_completed", "Runs that diverged or failed", not_completed.filter(columns)),
        ("runs", "All runs", table),
    ):
        if len(frame):
            write_atomically(folder / f"{name}.csv", csv(frame).encode())
            shown = _without_empty(frame)
            write_atomically(folder / f"{name}.md", markdown(shown).encode())
            write_atomically(folder / f"{name}.tex", latex(shown).encode())
            body = html_table(shown)
            if name in ("runs", "not_completed"):
                body = f"<details><summary>{len(frame)} runs</summary>\n{body}\n</details>"
            title, _, told = caption.partition(". ")
            yield _Section(name, title, body + (f'\n<p class="note">{html.escape(told)}</p>' if told else ""))
    if report.facts:
        yield _Section("facts", "Set-up", "\n".join(_fact(*fact) for fact in report.facts.items()))


_CHOICES = (
    "Chosen rates. Losses and trials: the tuning seed. Inside: a finished run on both sides. Infeasible: the share of "
    "the trials that diverged or failed. Locally optimal: worse with any one number at its next value below or above, "
    "in the mean of the fresh seeds, or on the tuning seed where there are none; else what is missing, or no worse."
)
_STABILITY = (
    "Stability. At the chosen rates, on fresh seeds, or the tuning seed where there are none yet. Diverged: the share "
    f"of the runs. Judged: the runs with more than {WINDOW} logged training losses, in which loss spikes can be told. "
    "Spikes: the mean number in these."
)


def _speed_ups(report: Report) -> str:
    seconds = "" if report.one_machine else " No seconds: runs were trained on several kinds of hardware or versions."
    return (
        f"Speed-up. How many times faster an optimizer gets to the last loss of {report.baseline}, in steps and in "
        f"seconds of training: the geometric mean over fresh seeds, with its {report.level:.0%} interval. A bound from "
        f"below: with a schedule that ends there it may be faster still. None where a seed never gets there.{seconds}"
    )


def _timed(report: Report) -> pd.DataFrame:
    """The table of runs; without seconds where runs on different hardware had them."""
    return report.table if report.one_machine else report.table.assign(seconds=math.nan)


def _without_empty(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that say something: one setting without a name, or no changed numbers, need none."""
    return frame.filter([name for name, column in readable(frame).items() if any(column)])


def _fact(heading: str, values: Mapping[str, str]) -> str:
    rows = "\n".join(
        f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>" for k, v in values.items()
    )
    return (
        f"<details><summary>{html.escape(heading)}</summary>\n"
        f'<div class="box"><table class="facts"><tbody>\n{rows}\n</tbody></table></div>\n</details>'
    )


def _page(report: Report, first: _Section | None, rest: list[_Section]) -> str:
    name = html.escape(report.name)
    figure = (
        f'<section id="{first.id}">\n<h2>{html.escape(first.title)}</h2>\n{first.body}\n</section>' if first else ""
    )
    sections = "\n".join(f'<section id="{x.id}">\n<h2>{html.escape(x.title)}</h2>\n{x.body}\n</section>' for x in rest)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
{CSS}</style>
</head>
<body>
<main>
<header>
<h1>{name}</h1>
<p>{html.escape(report.asked)}</p>
{status(report)}
</header>
<div class="answer">
<section id="answers">
{answers(report)}
</section>
{figure}
</div>
{sections}
<footer><p>Figures are in figures/ as SVG, PNG and CSV, tables in tables/ as CSV, Markdown and LaTeX.</p></footer>
</main>
</body>
</html>
"""
