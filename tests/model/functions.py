"""The model's functions, jitted, and the mean loss of a batch."""

import functools

import jax
import jax.numpy as jnp

from jaxopt_lm import model
from jaxopt_lm.training.loss import Batch, num_targets, summed_losses


def whole(tokens) -> Batch:
    return Batch(jnp.asarray(tokens, jnp.int32), jnp.ones(tokens.shape, jnp.float32))


@functools.partial(jax.jit, static_argnums=0)
def mean_loss(config, params, batch):
    ce, _ = summed_losses(model.logits(config, params, batch.tokens), batch)
    return ce / num_targets(batch).astype(ce.dtype)


loss_and_grads = jax.jit(jax.value_and_grad(mean_loss, argnums=1), static_argnums=0)
init = jax.jit(model.init, static_argnums=0)
logits_of = jax.jit(model.logits, static_argnums=0)
