"""Clipping of gradients."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike


def clip_by_global_norm(max_norm: ArrayLike) -> optax.GradientTransformation:
    """Scales all gradients by `min(1, max_norm / (norm + 1e-6))`, norm the Euclidean norm over the whole tree.

    Departs from `optax.clip_by_global_norm`, which has no 1e-6 and keeps the gradients' bits below the bound: this is
    `torch.nn.utils.clip_grad_norm_`, as in the code released with arXiv 2407.07972. A non-finite gradient stays so.

    Args:
      max_norm: the bound, positive; a number or a traced scalar.
    """

    def update(updates, state, params=None):
        del params
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), updates), state

    return optax.GradientTransformation(optax.init_empty_state, update)
