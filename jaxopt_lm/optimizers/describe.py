"""What an optimizer does to each parameter and what it keeps, as a table; and the convention cards of all of them."""

import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_lm.optimizers.config import OptimizerConfig
from jaxopt_lm.optimizers.groups import require_labels
from jaxopt_lm.optimizers.labelling import labels_of, path_name
from jaxopt_lm.optimizers.telemetry import second_moments

CARD = ("Formula", "Eps", "Bias correction", "Decay", "Dampening", "State", "Differs", "Paper")


def describe(optimizer: OptimizerConfig | optax.GradientTransformation, params: Any, labels: Any = None) -> str:
    """A table of an optimizer over parameters, nothing computed on them.

    Args:
      optimizer: a config of ours; or any optax transformation, for which shapes and bytes alone are known.
      params: arrays or shapes.
      labels: the parameters' tree of `Label`s, or a function from the parameters to it; needed for a config.

    Returns:
      A line per parameter: path, shape, and of a config role, shape and number of second moments, factor of the
      learning rate (its range over stacked layers), decay, trained or untrained; then the state's bytes a parameter.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), params)
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    rows = [(path, str(leaf.shape)) for path, leaf in zip(paths, jax.tree.leaves(shapes), strict=True)]
    if isinstance(optimizer, OptimizerConfig):
        require_labels(labels, "a config is described")
        labels = labels_of(labels, params)
        tx = optimizer.make(1.0, labels)
        header = ("parameter", "shape", "role", "block shape", "second moments", "rate", "decay", "trained")
        rows = [row + cells for row, cells in zip(rows, _cells(optimizer, tx, shapes, labels), strict=True)]
    else:
        tx, header = optimizer, ("parameter", "shape")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join([*(line.rstrip() for line in lines), f"state: {state_bytes(tx, shapes):.3f} bytes a parameter"])


def _cells(config, tx, shapes, labels):
    """What a config does to every parameter: role, block shape, second moments, factor of the rate, decay, trained."""
    stored = jax.eval_shape(second_moments, jax.eval_shape(tx.init, shapes), shapes)
    stored = jax.tree.leaves(stored, is_leaf=lambda x: isinstance(x, tuple))
    for i, (label, arrays) in enumerate(zip(jax.tree.leaves(labels), stored, strict=True)):
        part = config.part(label)
        if part is None:
            yield label.role, "-", "0", "-", "-", "untrained"
            continue
        blocks = " ".join(str(x.shape) for x in arrays) or "-"
        decay = f"{part.weight_decay:g}" if part.decays(label) else "0"
        factor, entries = _factor(part, i, shapes, labels), sum(x.size for x in arrays)
        yield label.role, blocks, f"{entries:,}", factor, decay, "trained"


def _factor(part, index, shapes, labels):
    """The factor of the learning rate of one parameter, or its range over stacked layers."""
    multipliers = part.rate_multipliers(labels)
    factors = [1.0] if multipliers is None else np.ravel(jax.tree.leaves(multipliers(shapes))[index])
    low, high = min(factors), max(factors)
    return f"x{low:.4g}" if low == high else f"x{low:.4g} to x{high:.4g}"


def state_bytes(tx: optax.GradientTransformation, params: Any) -> float:
    """Bytes of an optimizer's state a parameter, from shapes alone."""
    state = jax.eval_shape(tx.init, params)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / max(
        sum(x.size for x in jax.tree.leaves(params)), 1
    )


def card(config: type[OptimizerConfig]) -> dict[str, str]:
    """The convention card in a config's docstring: the keys of `CARD`."""
    text, found = inspect.getdoc(config) or "", {}
    for key in CARD:
        match = re.search(rf"^{key}: (.*(?:\n  .*)*)", text, re.MULTILINE)
        if match:
            found[key] = " ".join(match.group(1).split())
    return found


def cards_table(optimizers: dict[str, type[OptimizerConfig]]) -> str:
    """The convention cards as a Markdown document with one table."""
    lines = [
        "# Conventions of every optimizer",
        "",
        "Written by `python -m jaxopt_lm.optimizers`; the cards are in the docstrings. lr is the learning rate in",
        "force, u the direction, t the step counted from 1, g the gradient, p the parameter.",
        "",
        "| optimizer | " + " | ".join(key.lower() for key in CARD) + " |",
        "|" + "---|" * (len(CARD) + 1),
    ]
    for name, config in optimizers.items():
        found = card(config)
        cells = [f"`{name}`", *(found[key].replace("|", "\\|") for key in CARD)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
