"""Cross-entropy and z-loss over next tokens.

Shapes: B batch, L length, T = B * L, V vocab.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Batch(NamedTuple):
    """Token windows and which of their tokens count as targets.

    Attributes:
      tokens: int32 (B, L).
      is_target: float32 (B, L); 1 where the token is to be predicted, 0 for padding. Column 0 has no context and is
        never a target.
    """

    tokens: jax.Array
    is_target: jax.Array


@jax.custom_vjp
def token_losses(logits_TV: jax.Array, targets_T: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy `log Z - logit[target]` and `log Z` of every token, in nats, in the logits' dtype.

    The backward pass forms `softmax * (d_ce + d_log_z) - onehot * d_ce` in one sweep that overwrites the logits: plain
    differentiation keeps exp(logits) beside them and scatters into a third tensor. Tokens are on one axis, since XLA
    reuses the buffer for two-dimensional logits only.
    """
    return _token_losses_forward(logits_TV, targets_T)[0]


def _token_losses_forward(logits_TV, targets_T):
    log_z_T = jax.nn.logsumexp(logits_TV, axis=-1)
    target_logit_T = jnp.take_along_axis(logits_TV, targets_T[:, None], axis=-1)[:, 0]
    return (log_z_T - target_logit_T, log_z_T), (logits_TV, targets_T, log_z_T)


def _token_losses_backward(residuals, cotangents):
    logits_TV, targets_T, log_z_T = residuals
    d_ce_T, d_log_z_T = cotangents
    probability_TV = jnp.exp(logits_TV - log_z_T[:, None])
    is_target_TV = targets_T[:, None] == jnp.arange(logits_TV.shape[-1], dtype=targets_T.dtype)[None, :]
    return probability_TV * (d_ce_T + d_log_z_T)[:, None] - jnp.where(is_target_TV, d_ce_T[:, None], 0), None


token_losses.defvjp(_token_losses_forward, _token_losses_backward)


def summed_losses(logits_BLV: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Sums over the batch's targets of the cross-entropy and of (log Z)^2.

    Position l predicts token l + 1. Divide by `num_targets(batch)` for means; sums of parts of a batch add up.
    """
    targets_T = jnp.roll(batch.tokens, -1, axis=1).reshape(-1)
    ce_T, log_z_T = token_losses(logits_BLV.reshape(targets_T.size, -1), targets_T)
    weight_T = target_weights(batch).astype(ce_T.dtype).reshape(-1)
    return jnp.sum(ce_T * weight_T), jnp.sum(jnp.square(log_z_T) * weight_T)


def target_weights(batch: Batch) -> jax.Array:
    """Float32 (B, L): 1 at position l where token l + 1 is a target, 0 elsewhere and at the last position."""
    return jnp.roll(batch.is_target.at[:, 0].set(0), -1, axis=1)


def num_targets(batch: Batch) -> jax.Array:
    """How many tokens of the batch are targets, a float32 scalar."""
    return jnp.sum(batch.is_target[:, 1:])
