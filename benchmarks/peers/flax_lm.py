"""The model as one would write it in Flax's linen without thinking of speed, with optax's AdamW; jitted, donated.

Shapes: B batch, L length, D width, H heads, K head width, V vocabulary.
"""

import functools
import importlib.metadata

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import serve
from flax.training.train_state import TrainState
from flax.traverse_util import unflatten_dict

dense = functools.partial(nn.Dense, use_bias=False)
norm = functools.partial(nn.LayerNorm, use_bias=False, epsilon=1e-5)


def rotary(x_BLHK: jax.Array) -> jax.Array:
    length, half = x_BLHK.shape[1], x_BLHK.shape[-1] // 2
    angle_LK = jnp.arange(length)[:, None] * 10_000.0 ** (-jnp.arange(half) / half)
    sin, cos = jnp.sin(angle_LK)[:, None, :], jnp.cos(angle_LK)[:, None, :]
    first, second = jnp.split(x_BLHK, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x); queries and keys normalized over the whole width."""

    @nn.compact
    def __call__(self, x_BLD):
        batch, length, width = x_BLD.shape
        heads = batch, length, width // serve.HEAD, serve.HEAD
        y_BLD = norm(name="attention_norm")(x_BLD)
        q_BLD = norm(name="q_norm")(dense(width, name="query")(y_BLD))
        k_BLD = norm(name="k_norm")(dense(width, name="key")(y_BLD))
        q_BLHK, k_BLHK = rotary(q_BLD.reshape(heads)), rotary(k_BLD.reshape(heads))
        v_BLHK = dense(width, name="value")(y_BLD).reshape(heads)
        mixed_BLHK = jax.nn.dot_product_attention(q_BLHK, k_BLHK, v_BLHK, is_causal=True)
        x_BLD += dense(width, name="out")(mixed_BLHK.reshape(x_BLD.shape))
        hidden = nn.gelu(dense(4 * width, name="up")(norm(name="mlp_norm")(x_BLD)), approximate=False)
        return x_BLD + dense(width, name="down")(hidden)


class Decoder(nn.Module):
    size: serve.Size

    @nn.compact
    def __call__(self, tokens_BL):
        x_BLD = nn.Embed(self.size.vocabulary, self.size.width, name="embed")(tokens_BL)
        for layer in range(self.size.depth):
            x_BLD = Block(name=f"layer_{layer:02d}")(x_BLD)
        return dense(self.size.vocabulary, name="head")(norm(name="final_norm")(x_BLD))


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state: TrainState, tokens_BL: jax.Array):
    def loss_of(params):
        logits_BLV = state.apply_fn({"params": params}, tokens_BL)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_BLV, jnp.roll(tokens_BL, -1, axis=1))
        return losses[:, :-1].mean()

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=grads), loss, optax.global_norm(grads)


def given(weights: dict[str, np.ndarray]):
    """Parameters by linen's names."""
    flat = {}
    for name, x in serve.as_matrices(weights).items():
        leaf = "" if name.endswith("scale") else "/embedding" if name == "embed" else "/kernel"
        flat[name + leaf] = jnp.asarray(x)
    return unflatten_dict(flat, sep="/")


class Flax(serve.Peer):
    def __init__(self, size: serve.Size, weights: dict[str, np.ndarray] | None):
        decoder = Decoder(size)
        params = jax.jit(decoder.init)(jax.random.key(0), jnp.zeros((1, size.length), jnp.int32))["params"]
        shapes = jax.tree.map(jnp.shape, params)
        if weights is not None:
            params = given(weights)
        assert shapes == jax.tree.map(jnp.shape, params)
        tx = optax.chain(
            optax.clip_by_global_norm(serve.MAX_NORM),
            optax.adamw(serve.LEARNING_RATE, b1=serve.B1, b2=serve.B2, eps=serve.EPS, weight_decay=serve.WEIGHT_DECAY),
        )
        self._state = jax.block_until_ready(TrainState.create(apply_fn=decoder.apply, params=params, tx=tx))
        self.facts = {
            "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")},
            "threads": serve.cores(),
            "num_params": sum(x.size for x in jax.tree.leaves(params)),
        }

    def step(self, tokens):
        self._state, loss, grads_norm = jax.block_until_ready(train_step(self._state, tokens))
        return float(loss), float(grads_norm)

    def params_norm(self):
        return serve.norm(jax.tree.leaves(self._state.params))


if __name__ == "__main__":
    serve.main(Flax)
