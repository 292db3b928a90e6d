"""How every figure of a study looks: colours, markers and sizes, panels and legends.

A figure is a `Drawing`: what is drawn, and the same as a table. Sizes are in inches, `WIDE` for a page and `COLUMN` for
a column of a paper, or a phone.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

WIDE, COLUMN = 7.2, 3.3

INK, PAPER, FAINT = "#23272d", "#fefefe", "#8a9099"
"""Of text, axes and the baseline; of what is hollow; of grids. A page shows the first two in its own colours."""

# After Okabe and Ito, without their black, which is INK's, and their yellow, which white swallows.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#3f9fd8", "#d99000")
_MARKERS = ("s", "^", "D", "v", "P", "<", ">")
_LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)))

_RC: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.labelcolor": INK,
}

P = ParamSpec("P")


class Drawing(NamedTuple):
    """A figure and, one row a point drawn, its numbers."""

    figure: Figure
    data: pd.DataFrame


class Style(NamedTuple):
    """What an arm looks like in every figure of a study."""

    color: str
    marker: str
    line: Any

    @property
    def stroke(self) -> dict[str, Any]:
        """Of its lines."""
        return {"color": self.color, "linestyle": self.line, "linewidth": 1.4}

    @property
    def point(self) -> dict[str, Any]:
        """Of its points."""
        return {"color": self.color, "marker": self.marker, "markersize": 4.5, "linestyle": "none"}


def styles(arms: Iterable[str], baseline: str) -> dict[str, Style]:
    """One look an arm, the baseline first, then by name; it depends on the names alone.

    The baseline is drawn in INK; of the others no two of 42 have the same colour and marker.
    """
    found = {baseline: Style(INK, "o", "-")}
    for i, arm in enumerate(sorted(set(arms) - {baseline})):
        found[arm] = Style(
            _COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], _LINES[i // len(_COLORS) % len(_LINES)]
        )
    return found


def panels(count: int, width: float, *, height: float = 2.3, columns: int = 2, **shared: Any) -> tuple[Figure, list]:
    """A figure of `count` axes, side by side where it is wide enough and one below another where it is not.

    Args:
      count: of axes.
      width: of the figure, in inches.
      height: of one panel, in inches.
      columns: at most, in a wide figure.
      **shared: `sharex`, `sharey`, of `Figure.subplots`.
    """
    columns = min(columns if is_wide(width) else 1, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * rows + 0.45), dpi=200, layout="constrained", facecolor="none")
    axes = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for extra in axes[count:]:
        extra.remove()
    for one in axes[:count]:
        one.grid(True, color=FAINT, alpha=0.25, linewidth=0.5)
        one.set_facecolor("none")
        one.tick_params(labelbottom=True)
    return figure, axes[:count]


def is_wide(width: float) -> bool:
    """Whether a figure has room for panels side by side."""
    return width > COLUMN + 1


def styled(draw: Callable[P, Drawing]) -> Callable[P, Drawing]:
    """Wraps a function that draws: fonts, colours and lines are ours within it."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Drawing:
        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return wrapped


def plain(text: str) -> str:
    """A name as a figure shows it: dollars are no mathematics."""
    return text.replace("$", r"\$")


def legend(figure: Figure, looks: Mapping[str, Style], arms: Iterable[str], extra: Sequence[Line2D] = ()) -> None:
    """One legend above all panels: the arms in the order of `looks`, and what else needs a word."""
    drawn = set(arms)
    shown = {arm: look.point | look.stroke for arm, look in looks.items() if arm in drawn}
    handles = [*(Line2D([], [], label=plain(arm), **look) for arm, look in shown.items()), *extra]
    width = figure.get_figwidth()
    letters = max((len(str(handle.get_label())) for handle in handles), default=1)
    columns = max(1, min(len(handles), int(width * 72 // (5 * letters + 38))))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, handlelength=2.2)


def note(label: str, **look: Any) -> Line2D:
    """An entry of a legend that is no arm's."""
    return Line2D([], [], label=label, **({"color": INK, "linestyle": "none", "markersize": 5} | look))


def log_rates(axes: Axes, rates: Iterable[float], *, most: int = 6) -> None:
    """A logarithmic x axis whose ticks are numbers that were used, `most` of them at most."""
    values = sorted(set(rates))
    step = max(1, math.ceil(len(values) / most))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_apart(values[::step], values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: rate_text(value)))


def _apart(ticks: list[float], values: list[float]) -> list[float]:
    """The ticks without those nearer to the last than a tenth of the axis, in logarithms."""
    least = math.log(values[-1] / values[0]) / 9
    kept: list[float] = []
    for tick in ticks:
        if not kept or math.log(tick / kept[-1]) >= least:
            kept.append(tick)
    return kept


def rate_text(value: float) -> str:
    """A learning rate: 0.003, 3e-05."""
    return f"{value:.3g}"


def size_text(value: float) -> str:
    """A number of parameters or steps: 950, 12.3k, 1.2M, 7B."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def top_of(losses: Iterable[float]) -> float:
    """Where an axis of losses ends: above all of them, unless a few are so far up that the others look equal."""
    finite = np.asarray([loss for loss in losses if math.isfinite(loss)])
    if not finite.size:
        return 1.0
    low, high = float(finite.min()), float(finite.max())
    cap = low + 4 * (float(np.median(finite)) - low)
    return high if high <= cap or cap <= low else cap
