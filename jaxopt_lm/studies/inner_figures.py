"""Figures of what goes on inside: losses over two numbers, gradients by layer, effective learning rates."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from jaxopt_lm.studies.drawing import (
    INK,
    WIDE,
    Drawing,
    Style,
    legend,
    panels,
    plain,
    rate_text,
    size_text,
    styled,
    top_of,
)
from jaxopt_lm.studies.figures import LOSS
from jaxopt_lm.studies.frames import distinct, groups, only, rows

_DEPTHS = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.25, 0.92, 256)))  # ends show on black and white


@styled
def heat_maps(points: pd.DataFrame, looks: dict[str, Style], *, width: float = WIDE) -> Drawing:
    """Loss over the learning rate and a second number, a panel an arm; a cross is a run that diverged.

    Colours are the same in all panels, dark for low losses; a blank cell was not tried.

    Args:
      points: of `points.grid_points`.
      looks: of the arms, in the order of the panels.
      width: inches.
    """
    arms = [arm for arm in looks if arm in set(points.arm)]
    most = max(only(points, arm=arm).row.nunique() for arm in arms)
    figure, axes = panels(len(arms), width, height=0.3 * most + 1)
    finished = only(points, status="completed").loss
    norm, colors = Normalize(finished.min(), top_of(finished)), matplotlib.colormaps["viridis"]
    for one, arm in zip(axes, arms, strict=True):
        _heat_map(one, only(points, arm=arm), norm, colors)
        one.set(title=plain(arm), xlabel="learning rate")
    scale = ScalarMappable(norm, colors)
    bar = figure.colorbar(scale, ax=axes, label=LOSS, shrink=0.8, aspect=30, location="bottom")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return Drawing(figure, points)


def _heat_map(axes: Axes, points: pd.DataFrame, norm: Normalize, colors: Colormap) -> None:
    names, rates = distinct(points, "row"), sorted(set(points.learning_rate))
    completed = only(points, status="completed")
    grid = np.full((len(names), len(rates)), np.nan)
    for point in rows(completed):
        grid[names.index(point.row), rates.index(point.learning_rate)] = point.loss
    axes.pcolormesh(grid, norm=norm, cmap=colors, edgecolors="white", linewidth=0.5)
    if len(rates) <= 8:
        for (y, x), loss in np.ndenumerate(grid):
            if np.isfinite(loss):
                ink = "white" if norm(loss) < 0.6 else "black"
                axes.text(x + 0.5, y + 0.5, f"{loss:.2f}", ha="center", va="center", fontsize=6.5, color=ink)
    diverged = only(points, status="diverged")
    xs = [rates.index(rate) + 0.5 for rate in diverged.learning_rate]
    ys = [names.index(row) + 0.5 for row in diverged.row]
    axes.plot(xs, ys, marker="x", color=INK, markersize=5, linestyle="none", label="_diverged")
    axes.set(xticks=np.arange(len(rates)) + 0.5, yticks=np.arange(len(names)) + 0.5)
    axes.set_xticklabels([rate_text(rate) for rate in rates], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticklabels([plain(name) for name in names])
    axes.grid(False)
    axes.tick_params(length=0)


@styled
def gradient_norms(points: pd.DataFrame, looks: dict[str, Style], *, width: float = WIDE) -> Drawing:
    """Norms of gradients over training, a line a layer, a panel an arm.

    Args:
      points: of `points.gradient_points`.
      looks: of the arms, in the order of the panels.
      width: inches.
    """
    arms = [arm for arm in looks if arm in set(points.arm)]
    figure, axes = panels(len(arms), width, height=2, columns=3, sharey=True)
    last = max(int(points.layer.max()), 1)
    norm = Normalize(0, last)
    for one, arm in zip(axes, arms, strict=True):
        for layer, line in groups(only(points, arm=arm), "layer"):
            color = _DEPTHS(norm(int(layer)))  # pyright: ignore[reportArgumentType]
            one.plot(line.step, line.norm, color=color, linewidth=1.2, label=str(layer))
        _logarithmic(one)
        one.set(title=plain(arm), xlabel="steps")
    for one in axes:
        if one.get_subplotspec().is_first_col():
            one.set_ylabel("norm of gradients")
    scale = ScalarMappable(norm, _DEPTHS)
    bar = figure.colorbar(scale, ax=axes, label="layer", shrink=0.8, aspect=30, fraction=0.05, pad=0.02)
    bar.locator = MaxNLocator(integer=True, nbins=6)
    bar.update_ticks()
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return Drawing(figure, points)


@styled
def effective_rates(points: pd.DataFrame, looks: dict[str, Style], *, width: float = WIDE) -> Drawing:
    """Median and quartiles of the effective learning rates over training, a line an arm, a panel a role.

    Args:
      points: of `points.effective_rate_points`.
      looks: of the arms.
      width: inches.
    """
    roles = distinct(points, "role")
    figure, axes = panels(len(roles), width, height=2, columns=3)
    for one, role in zip(axes, roles, strict=True):
        for arm, line in groups(only(points, role=role), "arm"):
            look = looks[arm]
            one.plot(line.step, line["median"], label=arm, **look.stroke)
            one.fill_between(line.step, line.q25, line.q75, color=look.color, alpha=0.2, linewidth=0)
        _logarithmic(one)
        one.set(title=plain(role), xlabel="steps")
        if one.get_subplotspec().is_first_col():
            one.set_ylabel("effective learning rate")
    legend(figure, looks, points.arm)
    return Drawing(figure, points)


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axes.yaxis.set_major_formatter(lambda value, _: rate_text(value))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: size_text(value) if value else "0")
