"""What a decoder is made of: a table of its parameters, their count, and the floating-point operations of a step."""

import functools
import math

import jax
from rich.console import Console
from rich.table import Table

from jaxopt_lm.labels import ROLES
from jaxopt_lm.model import decoder
from jaxopt_lm.model.config import ModelConfig


def num_params(config: ModelConfig, *, embeddings: bool = True) -> int:
    """Number of parameters; without the embedding and the head where `embeddings` is False."""
    return _count(config, ROLES if embeddings else ("attention", "mlp", "norm"))


@functools.cache
def _count(config: ModelConfig, roles: tuple[str, ...]) -> int:
    labels, shapes = jax.tree.leaves(decoder.labels(config)), jax.tree.leaves(decoder.shapes(config))
    return sum(leaf.size for label, leaf in zip(labels, shapes, strict=True) if label.role in roles)


def flops_per_token(config: ModelConfig, length: int) -> int:
    """Floating-point operations of forward and backward for one token in a window of `length`.

    6 for every entry of a matrix that multiplies (the embedding is looked up, unless it is the head too), and
    12 * N * H * K * L for attention over the whole window, masked half included: the convention of PaLM's appendix B.
    """
    matrices = _count(config, ("attention", "mlp", "head", *(("embedding",) if config.tied_embeddings else ())))
    return 6 * matrices + 12 * config.num_layers * config.num_heads * config.head_width * length


def describe(config: ModelConfig, *, console: Console | None = None) -> None:
    """Prints every parameter's path, shape, axes, role and count, and the totals with and without embeddings."""
    table = Table("path", "shape", "axes", "role", title=f"parameters, {config.param_dtype}")
    table.add_column("count", justify="right")
    leaves = jax.tree.leaves_with_path(decoder.shapes(config))
    for (path, leaf), label in zip(leaves, jax.tree.leaves(decoder.labels(config)), strict=True):
        name = "/".join(key.key for key in path)
        table.add_row(name, str(leaf.shape), " ".join(label.axes), label.role, f"{math.prod(leaf.shape):,}")
    table.add_section()
    table.add_row("all but embedding and head", "", "", "", f"{num_params(config, embeddings=False):,}")
    table.add_row("all", "", "", "", f"{num_params(config):,}")
    (console or Console()).print(table)
