"""The decoder of both families of the papers, in flax.nnx, and the pure functions that the rest of the package uses.

Vocabulary. A *parameter* is declared once, by `_param` or in `Norm`, with its logical axes and its role. Outside this
file parameters are a plain nested dict of arrays; `init`, `labels`, `logits` map configs and such dicts to arrays,
touch no global, and can be jitted, differentiated and vmapped. Layers are unrolled (`layer_00`, `layer_01`, …) or
stacked under `layers` with a leading axis of that name; `stack_layers` and `unstack_layers` go between the two forms.

Shapes: B batch, L and M length, D embed, H query heads, G key/value heads, R = H / G, K head dim, F MLP hidden,
V vocab.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxopt_lm.labels import Label
from jaxopt_lm.model.config import ModelConfig

Params = dict[str, Any]


def _param(key, shape, axes, role, std, config: ModelConfig) -> nnx.Param:
    """A matrix drawn from a normal of `std`; truncated at 3 sigma where init=depth_scaled."""
    dtype = jnp.dtype(config.param_dtype)
    if config.init == "depth_scaled":
        value = jax.random.truncated_normal(key, -3, 3, shape, dtype)
    else:
        value = jax.random.normal(key, shape, dtype)
    return nnx.Param(value * jnp.asarray(std, dtype), axes=axes, role=role)


class Placement:
    """What a mesh of devices does with arrays inside the model. This one, of a single device, does nothing."""

    def pin(self, x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        """`x`, placed as an array of these logical axes is."""
        del axes
        return x

    def gather(self, weight: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        """A parameter, or a cast copy of it, as it is used."""
        del axes
        return weight


ONE_DEVICE = Placement()

_BLD = ("batch", "length", "embed")


def _used(param: nnx.Param, dtype, place: Placement) -> jax.Array:
    """A parameter in the dtype of its use, where it is used."""
    return place.gather(param[...].astype(dtype), param.get_metadata()["axes"])


def _wide(dtype) -> np.dtype:
    """float32, or float64 for float64: where sums and roots are computed."""
    return np.promote_types(dtype, np.float32)


class Norm(nnx.Module):
    """scale * (x - mean) / sqrt(var + eps) over the last axis, without the mean for rmsnorm; in float32 or wider."""

    def __init__(self, size: int, axis: str, config: ModelConfig):
        self.config = config
        self.scale = nnx.Param(jnp.ones(size, config.param_dtype), axes=(axis,), role="norm")

    def __call__(self, x, place):
        wide = x.astype(_wide(x.dtype))
        if self.config.norm == "layernorm":
            wide = wide - wide.mean(-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.config.norm_eps)
        scale = jnp.expand_dims(_used(self.scale, wide.dtype, place), range(x.ndim - 1))
        return (wide * inverse * scale).astype(x.dtype)


class Rotation(NamedTuple):
    """Sine and cosine of every position's angles, (L, K / 2)."""

    sin_LK: np.ndarray
    cos_LK: np.ndarray


@functools.cache
def rotation(length: int, width: int, theta: float, dtype: np.dtype) -> Rotation:
    """The angles of positions from 0: position * theta^(-2i/K) for the pair i of a head of `width` K.

    Constants of the program: XLA:CPU fuses sines into the rotation, anew for every row, head and layer.
    """
    half = width // 2
    angle_LK = np.arange(length)[:, None] * theta ** -(np.arange(half) / half)
    return Rotation(np.sin(angle_LK).astype(dtype), np.cos(angle_LK).astype(dtype))


def rotary(x_BLHK: jax.Array, turn: Rotation) -> jax.Array:
    """Rotates the pairs of each head's two halves by their angles; in float32 or wider."""
    half = x_BLHK.shape[-1] // 2
    wide = x_BLHK.astype(_wide(x_BLHK.dtype))
    sin, cos = (table_LK[None, :, None, :] for table_LK in turn)
    first, second = wide[..., :half], wide[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x_BLHK.dtype)


def _dot(x, kernel, **kwargs):
    """Last axis of `x` with the first of `kernel`, of x's dtype, as one matrix product.

    Flattened because XLA:CPU copies a transposed activation for the kernel's gradient when `x` has a batch axis
    (1.4x slower in the MLP, 3.5x in the head).
    """
    flat = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel.reshape(kernel.shape[0], -1), **kwargs)
    return flat.reshape(*x.shape[:-1], *kernel.shape[1:])


def _join_heads(x_BLHK):
    return x_BLHK.reshape(*x_BLHK.shape[:2], -1)


def causal_attention(q_BLHK: jax.Array, k_BLGK: jax.Array, v_BLGK: jax.Array) -> jax.Array:
    """softmax(q k / sqrt(K)) v over positions up to one's own; query heads share key/value heads in runs of H / G.

    Logits and softmax in float32 or wider. The queries are taken in up to four runs of positions, each with the keys
    that its last one sees, which saves up to three eighths of the products.
    """
    batch, length, heads, width = q_BLHK.shape
    wide = _wide(q_BLHK.dtype)
    # Heads before positions: of the other order XLA:CPU's products have two thirds of the speed.
    q_BGRLK = q_BLHK.reshape(batch, length, k_BLGK.shape[2], -1, width).transpose(0, 2, 3, 1, 4)
    k_BGMK, v_BGMK = k_BLGK.transpose(0, 2, 1, 3), v_BLGK.transpose(0, 2, 1, 3)
    runs = max(1, min(4, length // 64))
    mixed = []
    for run in range(runs):
        start, stop = length * run // runs, length * (run + 1) // runs
        logits_BGRLM = width**-0.5 * jnp.einsum(
            "bgrlk,bgmk->bgrlm", q_BGRLK[..., start:stop, :], k_BGMK[..., :stop, :], preferred_element_type=wide
        )
        visible_LM = jnp.tri(stop - start, stop, start, dtype=bool)
        logits_BGRLM = jnp.where(visible_LM[None, None, None], logits_BGRLM, jnp.finfo(wide).min)
        weights_BGRLM = jax.nn.softmax(logits_BGRLM, axis=-1).astype(v_BLGK.dtype)
        mixed.append(jnp.einsum("bgrlm,bgmk->bgrlk", weights_BGRLM, v_BGMK[..., :stop, :]))
    return jnp.concatenate(mixed, -2).transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, width)


class Attention(nnx.Module):
    """Causal self-attention with rotary positions and optional query/key norm."""

    def __init__(self, config: ModelConfig, out_std, key):
        c, keys = config, jax.random.split(key, 4)
        d, h, g, k = c.embed_dim, c.num_heads, c.num_kv_heads, c.head_width
        std = _in_std(c, d)
        self.config = c
        self.query = _param(keys[0], (d, h, k), ("embed", "heads", "head_dim"), "attention", std, c)
        self.key = _param(keys[1], (d, g, k), ("embed", "kv_heads", "head_dim"), "attention", std, c)
        self.value = _param(keys[2], (d, g, k), ("embed", "kv_heads", "value_dim"), "attention", std, c)
        self.out = _param(keys[3], (h, k, d), ("heads", "value_dim", "embed"), "attention", out_std, c)
        if c.qk_norm == "full":
            self.q_norm, self.k_norm = Norm(h * k, "heads", c), Norm(g * k, "kv_heads", c)
        elif c.qk_norm == "per_head":
            self.q_norm, self.k_norm = Norm(k, "head_dim", c), Norm(k, "head_dim", c)

    def __call__(self, x_BLD, layer, turn, place):
        c, dtype = self.config, x_BLD.dtype
        kinds = (self.query, "heads"), (self.key, "kv_heads"), (self.value, "kv_heads")
        q_BLHK, k_BLGK, v_BLGK = (
            place.pin(_dot(x_BLD, _used(kernel, dtype, place)), ("batch", "length", heads, None))
            for kernel, heads in kinds
        )
        if c.qk_norm == "full":
            q_BLHK = self.q_norm(_join_heads(q_BLHK), place).reshape(q_BLHK.shape)
            k_BLGK = self.k_norm(_join_heads(k_BLGK), place).reshape(k_BLGK.shape)
        elif c.qk_norm == "per_head":
            q_BLHK, k_BLGK = self.q_norm(q_BLHK, place), self.k_norm(k_BLGK, place)
        q_BLHK, k_BLGK = rotary(q_BLHK, turn), rotary(k_BLGK, turn)
        if c.attention_inverse_layer_scale:
            q_BLHK = q_BLHK / (layer + 1).astype(dtype)
        mixed_BLHK = causal_attention(q_BLHK, k_BLGK, v_BLGK)
        return _dot(_join_heads(mixed_BLHK), _used(self.out, dtype, place).reshape(-1, c.embed_dim))


@jax.checkpoint
def gelu(x: jax.Array) -> jax.Array:
    """x (1 + erf(x / sqrt 2)) / 2, as PyTorch's; in float32 or wider. The backward pass keeps `x` alone."""
    wide = x.astype(_wide(x.dtype))
    return (wide * (0.5 + 0.5 * jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


@jax.checkpoint
def gated(gate: jax.Array, x: jax.Array) -> jax.Array:
    """silu(gate) * x, of which the backward pass keeps both alone."""
    return jax.nn.silu(gate) * x


class Mlp(nnx.Module):
    """down(gelu(up x)) or down(silu(gate x) * up x)."""

    def __init__(self, config: ModelConfig, out_std, key):
        c, keys = config, jax.random.split(key, 3)
        std = _in_std(c, c.embed_dim)
        self.config = c
        self.up = _param(keys[0], (c.embed_dim, c.mlp_dim), ("embed", "mlp"), "mlp", std, c)
        self.down = _param(keys[1], (c.mlp_dim, c.embed_dim), ("mlp", "embed"), "mlp", out_std, c)
        if c.mlp == "swiglu":
            self.gate = _param(keys[2], (c.embed_dim, c.mlp_dim), ("embed", "mlp"), "mlp", std, c)

    def __call__(self, x_BLD, place):
        def hidden(kernel):
            return place.pin(_dot(x_BLD, _used(kernel, x_BLD.dtype, place)), ("batch", "length", "mlp"))

        hidden_BLF = hidden(self.up)
        hidden_BLF = gated(hidden(self.gate), hidden_BLF) if self.config.mlp == "swiglu" else gelu(hidden_BLF)
        return _dot(hidden_BLF, _used(self.down, x_BLD.dtype, place))


class Block(nnx.Module):
    """x + attention(norm x), then x + mlp(norm x). `layer` counts from 0 and may be traced."""

    def __init__(self, config: ModelConfig, layer, key):
        attention_key, mlp_key = jax.random.split(key)
        self.attention_norm = Norm(config.embed_dim, "embed", config)
        self.attention = Attention(config, _out_std(config, config.num_heads * config.head_width)[layer], attention_key)
        self.mlp_norm = Norm(config.embed_dim, "embed", config)
        self.mlp = Mlp(config, _out_std(config, config.mlp_dim)[layer], mlp_key)

    def __call__(self, x_BLD, layer, turn, place):
        x_BLD = place.pin(x_BLD + self.attention(self.attention_norm(x_BLD, place), layer, turn, place), _BLD)
        return place.pin(x_BLD + self.mlp(self.mlp_norm(x_BLD, place), place), _BLD)


def _in_std(config: ModelConfig, fan_in: int) -> float:
    return fan_in**-0.5 if config.init == "depth_scaled" else config.init_std


def _out_std(config: ModelConfig, fan_in: int) -> jax.Array:
    """Standard deviation of a block's output matrix, per layer: a table, so a traced layer draws the same bits."""
    depth = 2 * (np.arange(config.num_layers) + 1.0) if config.init == "depth_scaled" else 1.0
    return jnp.asarray(_in_std(config, fan_in) / np.sqrt(depth) * np.ones(config.num_layers))


class Decoder(nnx.Module):
    """Tokens to logits. Layer l of the two forms, stacked and unrolled, is drawn from the same key."""

    def __init__(self, config: ModelConfig, key):
        c = self.config = config
        embed_key, head_key, layers_key = jax.random.split(key, 3)
        keys = jax.vmap(functools.partial(jax.random.fold_in, layers_key))(jnp.arange(c.num_layers))
        std = _in_std(c, c.embed_dim)
        self.embed = _param(embed_key, (c.vocab_size, c.embed_dim), ("vocab", "embed"), "embedding", std, c)
        if c.scan_layers:
            self.layers = nnx.vmap(functools.partial(Block, c))(jnp.arange(c.num_layers), keys)
        else:
            for layer in range(c.num_layers):
                setattr(self, layer_name(layer), Block(c, layer, keys[layer]))
        self.final_norm = Norm(c.embed_dim, "embed", c)
        if not c.tied_embeddings:
            self.head = _param(head_key, (c.embed_dim, c.vocab_size), ("embed", "vocab"), "head", std, c)

    def __call__(self, tokens_BL, place):
        c, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        # Gathered in its dtype, then wide: a row's gradient is the sum over all of its tokens, and over both uses.
        embed_VD = _used(self.embed, dtype, place).astype(_wide(dtype))
        x_BLD = place.pin(embed_VD[tokens_BL].astype(dtype), _BLD)
        turn = rotation(tokens_BL.shape[1], c.head_width, c.rope_theta, _wide(dtype))
        apply = _rematerialized(c, lambda x, block, layer: block(x, layer, turn, place))
        if c.scan_layers:
            x_BLD = nnx.scan(apply, in_axes=(nnx.Carry, 0, 0), out_axes=nnx.Carry)(
                x_BLD, self.layers, jnp.arange(c.num_layers)
            )
        else:
            for layer in range(c.num_layers):
                x_BLD = apply(x_BLD, getattr(self, layer_name(layer)), jnp.asarray(layer))
        x_BLD = self.final_norm(x_BLD, place)
        head_DV = embed_VD.astype(dtype).T if c.tied_embeddings else _used(self.head, dtype, place)
        logits_BLV = _dot(x_BLD, head_DV, preferred_element_type=_wide(dtype))
        return place.pin(logits_BLV, ("batch", "length", "vocab"))


def _rematerialized(config: ModelConfig, apply):
    """`apply(x, block, layer)`, its backward pass computing anew, and gathering, what `config.remat` does not keep."""
    policies = {
        "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        "full": jax.checkpoint_policies.nothing_saveable,
    }
    if config.remat == "none":
        return apply
    return nnx.remat(apply, policy=policies[config.remat], prevent_cse=not config.scan_layers)


def layer_name(layer: int) -> str:
    """Name of an unrolled layer's subtree."""
    return f"layer_{layer:02d}"


def _layer_of(name: str) -> int | None:
    """The inverse of `layer_name`; None for any other name."""
    return int(name.removeprefix("layer_")) if name.startswith("layer_") else None


def _abstract(config: ModelConfig) -> tuple[Any, Any]:
    """Graph definition and state of the decoder, with shapes in place of arrays."""
    graph, state = _traced(config, jax.config.read("jax_enable_x64"))
    return graph, jax.tree.map(lambda leaf: leaf, state)  # the cached one stays as it is


@functools.cache
def _traced(config: ModelConfig, x64: bool) -> tuple[Any, Any]:
    del x64  # without it parameters in float64 are float32
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, jax.random.key(0))))


def init(config: ModelConfig, key: jax.Array) -> Params:
    """Parameters drawn from `key`, as a nested dict of arrays of `config.param_dtype`."""
    return nnx.to_pure_dict(nnx.state(Decoder(config, key)))


def labels(config: ModelConfig) -> Params:
    """The parameters' dict with a `Label` in place of each array."""
    _, state = _abstract(config)

    def label(path, variable):
        metadata = variable.get_metadata()
        stacked = ("layers",) if path[0] == "layers" else ()
        return Label(stacked + metadata["axes"], metadata["role"], _layer_of(path[0]))

    return nnx.to_pure_dict(nnx.map_state(label, state))


def shapes(config: ModelConfig) -> Params:
    """The parameters' dict with a `jax.ShapeDtypeStruct` in place of each array."""
    _, state = _abstract(config)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), nnx.to_pure_dict(state))


def logits(config: ModelConfig, params: Params, tokens_BL: jax.Array, place: Placement = ONE_DEVICE) -> jax.Array:
    """Next-token logits, shape (B, L, V), float32 (float64 where compute_dtype is).

    Raises:
      ValueError: `params` is not the tree that `init(config, …)` makes.
    """
    expected = shapes(config)
    if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, expected):
        raise ValueError("the parameters are not those of this model config: their paths or shapes differ")
    graph, state = _abstract(config)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)(tokens_BL, place)


def stack_layers(params: Params) -> Params:
    """The stacked form (scan_layers=True) of unrolled parameters."""
    names = [layer_name(i) for i in range(sum(name.startswith("layer_") for name in params))]
    rest = {name: leaf for name, leaf in params.items() if name not in names}
    return rest | {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in names))}


def unstack_layers(params: Params) -> Params:
    """The unrolled form (scan_layers=False) of stacked parameters."""
    rest = {name: leaf for name, leaf in params.items() if name != "layers"}
    depth = jax.tree.leaves(params["layers"])[0].shape[0]
    return rest | {layer_name(i): jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"]) for i in range(depth)}
