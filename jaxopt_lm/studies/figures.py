"""Figures, each a pure function of tables: how arms compare, at which rates, and how they get there.

`loss_curve` alone reads files, those of one run.
"""

import math
import os
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxopt_lm.errors import require
from jaxopt_lm.files import read_json
from jaxopt_lm.runs.read import read_metrics
from jaxopt_lm.studies.choice import TUNING_SEED
from jaxopt_lm.studies.drawing import (
    INK,
    PAPER,
    WIDE,
    Drawing,
    Style,
    is_wide,
    legend,
    log_rates,
    note,
    panels,
    plain,
    size_text,
    styled,
    top_of,
)
from jaxopt_lm.studies.frames import ENDED, distinct, fresh_seeds, groups, only, rows

LOSS = "eval loss (nats per token)"

_FITTED: dict[str, Any] = {"marker": "|", "markersize": 9, "markeredgewidth": 2}


def loss_curve(folder: str | os.PathLike) -> Path:
    """Draws training and evaluation loss against tokens seen, from `metrics.jsonl`, into `FOLDER/loss.png`.

    The unigram entropy of the validation tokens is drawn as a line once the run has a `result.json`.

    Returns:
      The path of the figure.

    Raises:
      InputError: the folder holds no metrics.
    """
    lines = list(read_metrics(folder))
    require(bool(lines), f"{folder}: holds no metrics.jsonl with lines; give the folder of a run")
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6, 3.4), dpi=150, layout="constrained")
        axes = figure.subplots()
        for name, label, style in (
            ("train/loss", "training", {"color": "0.7", "linewidth": 1}),
            ("eval/loss", "validation", {"color": "C0", "marker": "o", "markersize": 3}),
        ):
            points = [(line["tokens_seen"] / 1e6, line[name]) for line in lines if name in line]
            axes.plot(*zip(*points, strict=True), label=label, **style)
        path = Path(folder, "result.json")
        result = read_json(path, "remove it") if path.exists() else {}
        if entropy := result.get("eval/unigram_entropy"):
            axes.axhline(entropy, color="C3", linewidth=1, linestyle="--", label="unigram entropy, validation")
        axes.set(xlabel="million tokens seen", ylabel="cross-entropy (nats per token)")
        axes.legend(frameon=False)
        path = Path(folder, "loss.png")
        figure.savefig(path)
    return path


@styled
def differences(verdicts: pd.DataFrame, looks: dict[str, Style], baseline: str, *, width: float = WIDE) -> Drawing:
    """A forest plot: how far each arm's loss is from the baseline's, with its interval; one panel a setting.

    A filled point is resolved, an open one is not. What is far beyond the others is an arrow at the edge.

    Args:
      verdicts: of arms that were judged: columns setting, arm, kind, difference, low, high.
      looks: of the arms.
      baseline: its name.
      width: inches.
    """
    settings = distinct(verdicts, "setting")
    arms = sorted(distinct(verdicts, "arm"), key=lambda arm: only(verdicts, arm=arm).difference.mean())
    figure, axes = panels(len(settings), width, height=0.24 * len(arms) + 0.75, sharex=True, sharey=True)
    low, high = _limits(verdicts)
    for one, setting in zip(axes, settings, strict=True):
        one.axvline(0, color=INK, linewidth=0.9)
        for row in rows(only(verdicts, setting=setting)):
            _interval(one, row, arms.index(row.arm), looks[row.arm], low, high)
        one.set(yticks=range(len(arms)), ylim=(len(arms) - 0.4, -0.6), xlim=(low, high), title=plain(setting))
        one.set_yticklabels([plain(arm) for arm in arms])
        one.grid(False, axis="y")
        one.tick_params(axis="y", length=0)
    _label_below(axes, f"better ← difference to {plain(baseline)} (nats) → worse", figure)
    return Drawing(figure, verdicts.filter(["setting", "arm", "kind", "difference", "low", "high"]))


def _limits(verdicts: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis: every interval is within, unless one reaches over five times as far as the median one."""
    values = verdicts[["difference", "low", "high"]].to_numpy(float)
    values = np.where(np.isfinite(values), values, 0.0)
    reach = np.abs(values).max(axis=1)
    far = min(float(reach.max()), 5 * float(np.median(reach))) or 1.0
    low, high = max(-far, float(values.min())), min(far, float(values.max()))
    pad = 0.12 * (max(high, 0.0) - min(low, 0.0)) or 1.0
    return min(low, 0.0) - pad, max(high, 0.0) + pad


def _interval(axes: Axes, row: Any, y: int, look: Style, low: float, high: float) -> None:
    """A point and its interval; an arrow at the edge, with the number, where the point is beyond it."""
    if not low <= row.difference <= high:
        right = row.difference > high
        x, pad = (high, -9) if right else (low, 9)
        axes.plot(
            [x], [y], color=look.color, marker=">" if right else "<", markersize=6, linestyle="none", clip_on=False
        )
        side = "right" if right else "left"
        axes.annotate(f"{row.difference:+.2g}", (x, y), (pad, 0), textcoords="offset points", ha=side, va="center")
        return
    if math.isfinite(row.low) and math.isfinite(row.high):
        axes.hlines(y, row.low, row.high, color=look.color, linewidth=2, label="_interval")
    fill = look.color if row.kind in ("better", "worse") else PAPER
    big: dict[str, Any] = look.point | {"markersize": 6, "markerfacecolor": fill}
    axes.plot([row.difference], [y], label=row.arm, **big)


@styled
def rates(
    table: pd.DataFrame, choices: pd.DataFrame, fits: pd.DataFrame, looks: dict[str, Style], *, width: float = WIDE
) -> Drawing:
    """Loss against learning rate, a panel a setting.

    The tuning seed's points are joined, fresh seeds are small points over a bar from the least to the largest, a cross
    at the top is a run that diverged, a ring is the chosen rate, a bar at the bottom a fitted optimum. Runs with other
    numbers than the arm's own are left out, but for fresh seeds with the chosen ones.

    Args:
      table: of the runs.
      choices: columns setting, arm, learning_rate, changed, loss.
      fits: of `points.fit_points`.
      looks: of the arms.
      width: inches.
    """
    own = _own_or_chosen(only(table, status=ENDED), choices)
    settings = distinct(own, "setting")
    figure, axes = panels(len(settings), width)
    for one, setting in zip(axes, settings, strict=True):
        mine = only(own, setting=setting)
        _rates_of(one, mine, only(choices, setting=setting), only(fits, setting=setting), looks)
        log_rates(one, mine.learning_rate, most=6 if is_wide(width) else 4)
        one.set(title=plain(setting), xlabel="learning rate", ylabel=LOSS)
    extra = [note("chosen", marker="o", markerfacecolor="none", markersize=8)] if len(choices) else []
    extra += [note("fitted optimum", **_FITTED)] if len(fits) else []
    extra += [note("fresh seeds", marker=".")] if (own.seed != TUNING_SEED).any() else []
    extra += [note("diverged", marker="x")] if (own.status == "diverged").any() else []
    legend(figure, looks, own.arm, extra)
    data = pd.concat([own, choices.assign(status="chosen", seed=TUNING_SEED), fits.assign(status="fitted")])
    columns = ["setting", "arm", "changed", "learning_rate", "seed", "status", "loss"]
    return Drawing(figure, data.filter(columns).astype({"seed": "Int64"}))


def _own_or_chosen(table: Any, choices: pd.DataFrame) -> pd.DataFrame:
    """Runs with the arm's own numbers, and fresh seeds with the chosen ones."""
    chosen = set(zip(choices.setting, choices.arm, choices.changed, strict=True))
    keys = zip(table.setting, table.arm, table.changed, strict=True)
    is_chosen = np.fromiter((key in chosen for key in keys), bool, len(table))
    return table[(table.changed == "") | (is_chosen & (table.seed != TUNING_SEED).to_numpy())]


def _rates_of(
    axes: Axes, runs: pd.DataFrame, choices: pd.DataFrame, fits: pd.DataFrame, looks: dict[str, Style]
) -> None:
    completed, diverged = only(runs, status="completed"), only(runs, status="diverged")
    high = top_of(completed.loss)
    low = float(completed.loss.min()) if len(completed) else 0.0
    edge = axes.get_xaxis_transform()
    failing = [arm for arm in looks if arm in set(diverged.arm)]
    span = (high - low) or 1.0
    axes.set_ylim(low - 0.06 * span, high + span * (0.08 + 0.07 * len(failing)))
    for arm, look in looks.items():
        mine = only(completed, arm=arm)
        tuning = only(mine, seed=TUNING_SEED, changed="").sort_values("learning_rate")
        if len(tuning):
            axes.plot(tuning.learning_rate, tuning.loss, label=arm, **(look.point | look.stroke))
        fresh = fresh_seeds(mine)
        small: dict[str, Any] = look.point | {"markersize": 2.5}
        for rate, seeds in groups(fresh, "learning_rate"):
            if len(seeds) > 1:
                axes.vlines(
                    rate, seeds.loss.min(), seeds.loss.max(), color=look.color, alpha=0.3, linewidth=5, label="_band"
                )
        if len(fresh):
            axes.plot(fresh.learning_rate, fresh.loss, label="_fresh", **small)
        for choice in rows(only(choices, arm=arm)):
            ring: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.3}
            axes.plot([choice.learning_rate], [choice.loss], label="_chosen", **{**look.point, **ring})
        fit = only(fits, arm=arm)
        bar: dict[str, Any] = look.point | _FITTED
        axes.plot(fit.learning_rate, [0.03] * len(fit), label="_fitted", transform=edge, **bar)
    for k, arm in enumerate(failing):
        xs = distinct(only(diverged, arm=arm), "learning_rate")
        cross = {"color": looks[arm].color, "marker": "x", "markersize": 5, "linestyle": "none"}
        axes.plot(xs, [0.97 - 0.055 * k] * len(xs), transform=edge, label="_diverged", **cross)


@styled
def curves(points: pd.DataFrame, looks: dict[str, Style], *, width: float = WIDE) -> Drawing:
    """Evaluation loss against steps and against seconds, a line an arm; one row of panels a setting.

    A line is the mean over the seeds that completed, the band around it their range; a thin line that ends in a cross
    is a seed that diverged.

    Args:
      points: of `points.curve_points`.
      looks: of the arms.
      width: inches.
    """
    settings = distinct(points, "setting")
    kinds = ["step"] + (["seconds"] if points.seconds.notna().any() else [])
    figure, axes = panels(len(settings) * len(kinds), width)
    cells = [(setting, kind) for setting in settings for kind in kinds]
    for one, (setting, kind) in zip(axes, cells, strict=True):
        mine = only(points, setting=setting).dropna(subset=[kind])
        later = mine.loss[mine[kind] > 0]
        for (arm, diverged), line in groups(mine, "arm", "diverged_seed"):
            look = looks[arm]
            if diverged:
                one.plot(line[kind], line.loss, label="_diverged", **(look.stroke | {"linewidth": 0.8}))
                last = line.iloc[-1]
                one.plot([last[kind]], [last.loss], color=look.color, marker="x", markersize=5, linestyle="none")
                continue
            one.plot(line[kind], line.loss, label=arm, **look.stroke)
            one.fill_between(line[kind], line.low, line.high, color=look.color, alpha=0.2, linewidth=0)
        _limit(one, mine.loss, later)
        one.set(title=plain(setting), xlabel={"step": "steps", "seconds": "seconds of training"}[kind], ylabel=LOSS)
        one.xaxis.set_major_formatter(lambda value, _: size_text(value) if value else "0")
    extra = [note("a seed that diverged", marker="x")] if max(points.diverged_seed) else []
    legend(figure, looks, points.arm, extra)
    return Drawing(figure, points)


def _limit(axes: Axes, losses: pd.Series, highest: pd.Series) -> None:
    """Ends the axis at the least loss and at `top_of(highest)`."""
    low = float(losses.min())
    high = top_of(highest) if len(highest) else low
    margin = 0.05 * ((high - low) or 1.0)
    axes.set_ylim(low - margin, high + margin)


def _label_below(axes: list[Axes], label: str, figure: Figure) -> None:
    """A label of the x axes, below them all where there are several."""
    if len(axes) == 1:
        axes[0].set_xlabel(label)
    else:
        figure.supxlabel(label, fontsize=8, color=INK)


@styled
def tuning(points: pd.DataFrame, looks: dict[str, Style], *, width: float = WIDE) -> Drawing:
    """The best loss to expect after n trials of the tuning seed, in a random order; a panel a setting.

    A band is that of the median, as far as the trials bound it.

    Args:
      points: of `points.tuning_points`.
      looks: of the arms.
      width: inches.
    """
    settings = distinct(points, "setting")
    figure, axes = panels(len(settings), width)
    for one, setting in zip(axes, settings, strict=True):
        mine = only(points, setting=setting)
        for arm, line in groups(mine, "arm"):
            one.plot(line.trials, line.loss, label=arm, **(looks[arm].point | looks[arm].stroke))
            band = line.dropna(subset="low")
            if len(band):
                one.fill_between(band.trials, band.low, band.high, color=looks[arm].color, alpha=0.2, linewidth=0)
        _limit(one, mine.loss, mine.loss)
        one.set(title=plain(setting), xlabel="trials", ylabel=LOSS)
        one.xaxis.get_major_locator().set_params(integer=True)
    legend(figure, looks, points.arm)
    return Drawing(figure, points)


@styled
def sizes(points: pd.DataFrame, looks: dict[str, Style], *, width: float = WIDE) -> Drawing:
    """The best learning rate, the loss there and the sensitivity to the rate, against the number of parameters.

    A hollow point is a rate at an end of those tried: a bound.

    Args:
      points: of `points.size_points`.
      looks: of the arms.
      width: inches.
    """
    kinds = {"learning_rate": "chosen learning rate", "loss": LOSS, "sensitivity": "sensitivity (nats per token)"}
    kinds = {name: label for name, label in kinds.items() if any(points[name].notna())}
    figure, axes = panels(len(kinds), width, columns=3)
    for one, (name, label) in zip(axes, kinds.items(), strict=True):
        for arm, line in groups(points, "arm"):
            look = looks[arm]
            line = line.dropna(subset=[name]).sort_values("num_params")
            one.plot(line.num_params, line[name], label=arm, **(look.point | look.stroke))
            bound = only(line, inside=False) if name == "learning_rate" else line[:0]
            one.plot(bound.num_params, bound[name], label="_bound", **(look.point | {"markerfacecolor": PAPER}))
        log_rates(one, points.num_params, most=3 if is_wide(width) else 5)
        one.xaxis.set_major_formatter(lambda value, _: size_text(value))
        if name == "learning_rate":
            one.set_yscale("log")
        one.set(xlabel="parameters", ylabel=label)
    legend(figure, looks, points.arm)
    return Drawing(figure, points)
