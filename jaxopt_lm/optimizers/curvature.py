"""Estimators of a loss's curvature, one draw each: what Sophia averages."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def sampled_label_grads(
    logits_fn: Callable[[Any], jax.Array], params: Any, key: jax.Array, weights: jax.Array | None = None
) -> Any:
    """Gradients of the mean cross-entropy on labels drawn from softmax(logits): Gauss-Newton-Bartlett.

    With n predictions, n * g^2 has the expectation diag of the Gauss-Newton matrix of the mean loss.

    Args:
      logits_fn: parameters to logits [..., V]; every leading index is one prediction.
      params: where.
      key: of the draw; or [B] of them, one for each index of the logits' first axis.
      weights: of the predictions in the mean, of the logits' leading shape; None: 1 / n each.

    Returns:
      A tree like `params`. One forward and one backward pass.

    Reference: Liu et al. 2023, arXiv 2305.14342, algorithm 2.
    """
    logits, pullback = jax.vjp(logits_fn, params)
    per_row = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 1
    labels = (jax.vmap(jax.random.categorical) if per_row else jax.random.categorical)(key, logits)
    residual = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    share = jnp.full(labels.shape, 1 / labels.size) if weights is None else weights
    (grads,) = pullback(residual * share[..., None].astype(logits.dtype))
    return grads


def hutchinson(loss_fn: Callable[[Any], jax.Array], params: Any, key: jax.Array) -> Any:
    """z * (H z), z standard normal, H the Hessian of the loss: its expectation is diag(H); entries may be negative.

    Reverse over reverse, so it goes through functions with a custom VJP.

    Reference: Liu et al. 2023, arXiv 2305.14342, algorithm 1.
    """
    z = optax.tree.random_like(key, params, jax.random.normal)
    product = jax.grad(lambda p: optax.tree.vdot(jax.grad(loss_fn)(p), z))(params)
    return jax.tree.map(jnp.multiply, z, product)
