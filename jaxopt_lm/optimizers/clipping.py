"""Clipping of gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.optimizers.groups import by_layer, layer_positions, num_layers
from jaxopt_lm.optimizers.trees import map_params, wide_dtype, widen


def global_norm(tree: Any) -> jax.Array:
    """Euclidean norm over a whole tree, summed in float32 or wider whatever its dtypes."""
    return optax.tree.norm(widen(tree))


def _scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
    return (widen(x) * scale.astype(wide_dtype(x.dtype))).astype(x.dtype)


def clip_by_global_norm(max_norm: ArrayLike) -> optax.GradientTransformation:
    """Scales all gradients by `min(1, max_norm / (norm + 1e-6))`, norm the Euclidean norm over the whole tree.

    Departs from `optax.clip_by_global_norm`, which has no 1e-6 and keeps the gradients' bits below the bound: this is
    `torch.nn.utils.clip_grad_norm_`, as in the code released with arXiv 2407.07972. A non-finite gradient stays so. The
    norm and the products are computed in float32 or wider, the gradients return in their dtypes.

    Args:
      max_norm: the bound, positive; a number or a traced scalar.
    """

    def update(updates, state, params=None):
        del params
        scale = jnp.minimum(1.0, max_norm / (global_norm(updates) + 1e-6))
        return jax.tree.map(lambda g: _scaled(g, scale), updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def layer_square_sums(tree: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    """Sums of squares of a tree's entries: per layer, shape [layers], and of all outside the layers; in float32."""
    layers, outside = jnp.zeros(num_layers(tree, labels)), jnp.zeros(())
    positions = layer_positions(labels)

    def add(x, label):
        nonlocal layers, outside
        if label.axes[:1] == ("layers",):
            layers += jnp.sum(jnp.square(x), tuple(range(1, x.ndim))).astype(layers.dtype)
        elif label.layer is None:
            outside += jnp.sum(jnp.square(x)).astype(outside.dtype)
        else:
            layers = layers.at[positions[label.layer]].add(jnp.sum(jnp.square(x)).astype(layers.dtype))

    map_params(add, widen(tree), labels)
    return layers, outside


def clip_by_layer_norm(max_norm: ArrayLike, labels: Any) -> optax.GradientTransformation:
    """`clip_by_global_norm` for each layer by its own norm; what is outside the layers is one group.

    Norms are of the gradients that it is given: in `optax.masked` or `optax.partition` those of its part of a layer.

    Args:
      max_norm: the bound, positive; a number or a traced scalar.
      labels: the parameters' tree of `Label`s, of the whole model.
    """

    def update(updates, state, params=None):
        del params
        layers, outside = (
            jnp.minimum(1.0, max_norm / (jnp.sqrt(squares) + 1e-6)) for squares in layer_square_sums(updates, labels)
        )
        scales = by_layer(layers, outside, updates, labels)
        return map_params(_scaled, updates, scales), state

    return optax.GradientTransformation(optax.init_empty_state, update)
