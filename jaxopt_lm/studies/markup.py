"""Figures and tables as text: inline SVG, HTML, Markdown, LaTeX, CSV."""

import html
import io
import math
import re
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from jaxopt_lm.studies.drawing import INK, PAPER, rate_text
from jaxopt_lm.studies.frames import rows

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
} | {letter: "\\" + letter for letter in "&%$#_{}"}


def saved(figure: Figure, kind: str) -> bytes:
    """A figure as `svg` or `png`; the same bytes for the same figure.

    It is laid out once, and drawn once each time; `Figure.savefig` does either twice.
    """
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    file, dpi = io.BytesIO(), figure.dpi
    if kind == "png":
        figure.set_facecolor("white")
        FigureCanvasAgg(figure).print_png(file)
        figure.set_facecolor("none")
        return file.getvalue()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxopt_lm"}):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    figure.set_dpi(dpi)
    return file.getvalue()


def inline_svg(svg: str, name: str, label: str) -> str:
    """An SVG of `saved` as an element of a page: no name of it is another's, and its ink is that of the page.

    Args:
      svg: the file's text.
      name: comes before every id in it.
      label: what it shows, for who cannot see it.
    """
    body = svg[svg.index("<svg") :]
    for pattern in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->"):
        body = re.sub(pattern, "", body, flags=re.DOTALL)
    body = re.sub(r'\b(id="|xlink:href="#|url\(#)', lambda found: found[1] + name + "-", body)
    body = body.replace("xlink:href", "href")
    body = re.sub(r"""font-family: [^;"]+;?""", "", body)
    body = re.sub(r"""font: ([\d.]+px) [^;"]+""", r"font-size: \1", body)
    body = body.replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    view = re.search(r'viewBox="[^"]+"', body)
    assert view
    head = f'<svg class="{name.rpartition("-")[2]}" {view[0]} role="img" aria-label="{html.escape(label)}">'
    return re.sub(r"\n\s*", "\n", head + body[body.index(">") + 1 :]).strip()


_RATES = ("learning_rate", "default_rate", "neighbours", "flops")
"""Columns whose numbers are of very different sizes."""
_LONG = 40  # letters


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with its values as a reader wants them, all text: NaN and None are empty."""
    return pd.DataFrame({str(name): [_text(str(name), value) for value in frame[name]] for name in frame})


def _text(column: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return rate_text(value) if column in _RATES else _decimal(value)
    if isinstance(value, tuple | list):
        return ", ".join(_text(column, one) for one in value)
    return str(value)


def _decimal(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4f}"


def html_table(frame: pd.DataFrame) -> str:
    """A `<table>` in a box that scrolls sideways; numbers are aligned to the right, long texts are broken."""
    shown = readable(frame)
    right = [frame[name].dtype.kind in "if" for name in frame]
    head = "".join(f"<th{_class(r)}>{html.escape(_heading(name))}</th>" for name, r in zip(shown, right, strict=True))
    lines = (
        "<tr>"
        + "".join(f"<td{_class(r, text)}>{html.escape(text)}</td>" for text, r in zip(row, right, strict=True))
        + "</tr>"
        for row in rows(shown)
    )
    return (
        f'<div class="box"><table><thead><tr>{head}</tr></thead><tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def _class(right: bool, text: str = "") -> str:
    return ' class="right"' if right else ' class="long"' if len(text) > _LONG else ""


def _heading(name: Any) -> str:
    return str(name).replace("_", " ")


def markdown(frame: pd.DataFrame) -> str:
    """A table of GitHub's Markdown."""
    shown = readable(frame)
    cells = [[_heading(name) for name in shown], ["---"] * shown.shape[1], *rows(shown)]
    escaped = ([re.sub(r"([\\|`*_<>])", r"\\\1", text) if text != "---" else text for text in line] for line in cells)
    return "".join("| " + " | ".join(line) + " |\n" for line in escaped)


def latex(frame: pd.DataFrame) -> str:
    """A `tabular` with rules of the package booktabs."""
    shown = readable(frame)
    columns = "".join("r" if frame[name].dtype.kind in "if" else "l" for name in frame)
    cells: list[list[str]] = [[_heading(name) for name in shown], *rows(shown)]
    head, *lines = (" & ".join(map(_latex, line)) + " \\\\\n" for line in cells)
    body = "\\toprule\n" + head + "\\midrule\n" + "".join(lines) + "\\bottomrule\n"
    return f"\\begin{{tabular}}{{{columns}}}\n{body}\\end{{tabular}}\n"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter) or letter for letter in text)


def csv(frame: pd.DataFrame) -> str:
    """All digits of all numbers, lines end in a line feed."""
    return str(frame.to_csv(index=False, lineterminator="\n"))
