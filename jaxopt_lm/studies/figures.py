"""Figures, each a function of the files of runs."""

import os
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from jaxopt_lm.errors import require
from jaxopt_lm.files import read_json
from jaxopt_lm.runs.read import read_metrics


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
