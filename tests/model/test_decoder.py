"""The decoder: the papers' counts, its own invariances, and what it computes in bfloat16."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxopt_lm import model
from jaxopt_lm.model import PRESETS, decoder, preset
from jaxopt_lm.model.summary import flops_per_token
from tests.conftest import TINY_MODEL
from tests.model.functions import init, logits_of, loss_and_grads, whole

TWO_LAYERS = dataclasses.replace(TINY_MODEL, num_layers=2)
QWEN3 = dataclasses.replace(
    TWO_LAYERS, mlp="swiglu", norm="rmsnorm", qk_norm="per_head", init="normal", num_kv_heads=1, tied_embeddings=True
)
VARIANTS = {
    "olmo": TWO_LAYERS,
    "olmo_noqk": dataclasses.replace(TWO_LAYERS, qk_norm="none"),
    "inverse_layer": dataclasses.replace(TWO_LAYERS, attention_inverse_layer_scale=True),
    "qwen3": QWEN3,
    "wide_heads": dataclasses.replace(QWEN3, head_dim=12, tied_embeddings=False),
}


def slice_of(*names):
    """Parametrises over every variant; only `names` without --full."""
    every = [name if name in names else pytest.param(name, marks=pytest.mark.full) for name in VARIANTS]
    return pytest.mark.parametrize("variant", every)


@pytest.mark.parametrize(
    ("name", "without_embeddings", "total"),
    [
        ("150m", 151_045_120, 216_843_264),
        ("300m", 302_089_216, 367_887_360),
        ("600m", 571_086_208, 661_558_656),
        ("1.2b", 1_208_158_208, 1_339_754_496),
        ("83m", 47_791_680, 84_655_680),
        ("134m", 84_955_392, 134_107_392),
        ("500m", 416_375_168, 498_295_168),
        ("1b", 860_168_320, 991_240_320),
        ("quickstart", 788_608, 1_837_184),
        ("text", 792_192, 1_840_768),
    ],
)
def test_preset_counts(name, without_embeddings, total):
    assert model.num_params(preset(name)) == total
    assert model.num_params(preset(name), embeddings=False) == without_embeddings


@pytest.mark.parametrize(("name", "size"), [("83m", 83e6), ("134m", 134e6), ("500m", 500e6), ("1b", 1e9)])
def test_presets_of_our_choice_are_near_their_names(name, size):
    assert abs(model.num_params(PRESETS[name]) / size - 1) < 0.03


@slice_of("olmo", "qwen3")
def test_logits_do_not_see_future_tokens(variant):
    """d logits[l] / d embedding of token m is zero for m > l, and not for m <= l."""
    config, length = VARIANTS[variant], 8
    params = init(config, jax.random.key(0))
    tokens = jnp.arange(length)[None, :]

    def logits_from(rows_LD):  # token l is row l, so the embedding's gradient tells the positions apart
        untied = dataclasses.replace(config, tied_embeddings=False)
        head = params["embed"].T if config.tied_embeddings else params["head"]
        return model.logits(untied, params | {"embed": params["embed"].at[:length].set(rows_LD), "head": head}, tokens)[
            0
        ]

    seen_LML = jnp.abs(jax.jit(jax.jacobian(logits_from))(params["embed"][:length])).sum((1, 3))
    assert (np.asarray(seen_LML)[np.triu_indices(length, 1)] == 0).all()
    assert (np.asarray(seen_LML)[np.tril_indices(length)] > 0).all()


@slice_of("inverse_layer", "qwen3", "wide_heads")
def test_stacked_equals_unrolled(variant):
    unrolled = VARIANTS[variant]
    stacked = dataclasses.replace(unrolled, scan_layers=True)
    params, params_stacked = init(unrolled, jax.random.key(1)), init(stacked, jax.random.key(1))
    chex.assert_trees_all_equal(model.stack_layers(params), params_stacked)
    chex.assert_trees_all_equal(model.unstack_layers(params_stacked), params)
    tokens = jax.random.randint(jax.random.key(2), (2, 12), 0, unrolled.vocab_size)
    with jax.default_matmul_precision("highest"):
        loss, grads = loss_and_grads(unrolled, params, whole(tokens))
        loss_stacked, grads_stacked = loss_and_grads(stacked, params_stacked, whole(tokens))
    np.testing.assert_allclose(loss, loss_stacked, rtol=1e-6)
    chex.assert_trees_all_close(model.stack_layers(grads), grads_stacked, rtol=2e-4, atol=1e-6)


def test_more_than_a_hundred_layers_keep_their_order():
    config = dataclasses.replace(TINY_MODEL, num_layers=102, embed_dim=2, num_heads=1, num_kv_heads=1, mlp_dim=2)
    params = jax.eval_shape(lambda: model.init(config, jax.random.key(0)))
    numbered = {
        name: jax.tree.map(lambda x, name=name: jnp.full(x.shape, int(name[6:]), x.dtype), leaf)
        for name, leaf in params.items()
        if name.startswith("layer_")
    }
    stacked = model.stack_layers(numbered)["layers"]["mlp"]["up"]
    np.testing.assert_array_equal(stacked[:, 0, 0], np.arange(102))


def test_inverse_layer_scale_divides_by_the_layer_from_one():
    """Layer 1 is untouched; layer 2 attends with half the logits, as queries of half the size do without qk norm."""
    config = dataclasses.replace(VARIANTS["inverse_layer"], qk_norm="none", num_layers=2)
    plain = dataclasses.replace(config, attention_inverse_layer_scale=False)
    params = init(plain, jax.random.key(0))
    halved = jax.tree.map(lambda x: x, params)
    halved["layer_01"]["attention"]["query"] = halved["layer_01"]["attention"]["query"] / 2
    tokens = jnp.arange(10)[None, :]
    assert not np.allclose(logits_of(config, params, tokens), logits_of(plain, params, tokens))
    chex.assert_trees_all_close(
        logits_of(config, params, tokens), logits_of(plain, halved, tokens), rtol=1e-5, atol=1e-6
    )


def test_labels_match_the_parameters():
    for config in (*VARIANTS.values(), dataclasses.replace(QWEN3, scan_layers=True)):
        labels, shapes = model.labels(config), model.shapes(config)
        sizes = {
            "layers": config.num_layers,
            "vocab": config.vocab_size,
            "embed": config.embed_dim,
            "kv_heads": config.num_kv_heads,
            "head_dim": config.head_width,
            "value_dim": config.head_width,
            "mlp": config.mlp_dim,
        }
        for (path, leaf), label in zip(jax.tree.leaves_with_path(shapes), jax.tree.leaves(labels), strict=True):
            assert len(label.axes) == leaf.ndim, path
            for axis, size in zip(label.axes, leaf.shape, strict=True):
                joined = label.role == "norm" and axis in ("heads", "kv_heads")  # one scale for all heads' entries
                expected = {"heads": config.num_heads} | sizes
                assert size == expected[axis] * (config.head_width if joined else 1), path


def test_init_statistics():
    """Truncated at 3 sigma; block outputs shrink as 1 / sqrt(2 layer); every layer is its own draw."""
    config = preset("150m", vocab_size=512, num_layers=3, embed_dim=256, num_heads=4, num_kv_heads=4, mlp_dim=1024)
    params = init(config, jax.random.key(0))
    truncated = 0.98658  # standard deviation of a unit normal truncated at 3
    layers = params["layers"]
    for leaf, fan_in, depth in (
        (params["embed"], 256, 1),
        (params["head"], 256, 1),
        (layers["attention"]["query"], 256, 1),
        (layers["mlp"]["up"], 256, 1),
        *((layers["attention"]["out"][i], 256, 2 * (i + 1)) for i in range(3)),
        *((layers["mlp"]["down"][i], 1024, 2 * (i + 1)) for i in range(3)),
    ):
        sigma = (fan_in * depth) ** -0.5
        np.testing.assert_allclose(jnp.std(leaf), truncated * sigma, rtol=0.02)
        assert 2.9 * sigma < float(jnp.abs(leaf).max()) <= 3 * sigma * (1 + 1e-6)
    assert not np.allclose(layers["mlp"]["up"][0], layers["mlp"]["up"][1])
    assert (layers["mlp_norm"]["scale"] == 1).all()


def test_wrong_parameters_are_refused():
    params = init(TWO_LAYERS, jax.random.key(0))
    tokens = jnp.zeros((1, 4), jnp.int32)
    with pytest.raises(ValueError, match="paths or shapes differ"):
        model.logits(TWO_LAYERS, params | {"head": params["head"][:, :-1]}, tokens)
    with pytest.raises(ValueError, match="paths or shapes differ"):
        model.logits(TWO_LAYERS, {name: leaf for name, leaf in params.items() if name != "head"}, tokens)


def test_dtypes():
    config = dataclasses.replace(TWO_LAYERS, compute_dtype="bfloat16")
    params = init(config, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    logits = logits_of(config, params, jnp.zeros((1, 4), jnp.int32))
    assert logits.dtype == jnp.float32
    exact = logits_of(TWO_LAYERS, params, jnp.zeros((1, 4), jnp.int32))
    assert 0 < float(jnp.abs(logits - exact).max()) < 0.1
    low = init(dataclasses.replace(config, param_dtype="bfloat16"), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype("bfloat16")}


def bfloat16_of(key: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(key), shape).astype(jnp.bfloat16)


def exact(x) -> np.ndarray:
    return np.asarray(x, np.float64)


def assert_rounded_once(found, expected):
    """The nearest bfloat16, but where float32's own error decides between two."""
    assert found.dtype == jnp.bfloat16
    assert np.mean(np.asarray(found == jnp.asarray(expected, jnp.bfloat16))) > 0.98


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_a_norm_of_bfloat16_is_rounded_once(norm):
    config = dataclasses.replace(TINY_MODEL, norm=norm)
    module, x = decoder.Norm(64, "embed", config), bfloat16_of(0, 8, 4, 64)
    module.scale[...] = jnp.linspace(0.5, 1.5, 64)
    centred = exact(x) - (exact(x).mean(-1, keepdims=True) if norm == "layernorm" else 0)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * exact(module.scale[...])
    assert_rounded_once(module(x, model.ONE_DEVICE), scaled)


def test_a_rotation_of_bfloat16_is_rounded_once():
    """Its angles are not: a position above 256 has no bfloat16 of its own."""
    x = bfloat16_of(0, 1, 300, 2, 8)
    angle = np.arange(300)[:, None] * 1e4 ** (-np.arange(4) / 4)
    first, second = exact(x[0, ..., :4]), exact(x[0, ..., 4:])
    turned = (first + 1j * second) * np.exp(1j * angle)[:, None, :]
    expected = np.concatenate([turned.real, turned.imag], -1)
    assert_rounded_once(decoder.rotary(x, decoder.rotation(300, 8, 1e4, jnp.float32))[0], expected)


@pytest.mark.parametrize("length", [1, 63, 130, 259])
def test_attention_in_runs_of_queries_is_attention(length, x64):
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, length, n, 8)) for key, n in zip(keys, (4, 2, 2), strict=True))
    scores = np.einsum("blhk,bmhk->bhlm", q, np.repeat(k, 2, axis=2)) / np.sqrt(8)
    weights = np.exp(np.where(np.tri(length, dtype=bool), scores, -np.inf))
    expected = np.einsum("bhlm,bmhk->blhk", weights / weights.sum(-1, keepdims=True), np.repeat(v, 2, axis=2))
    np.testing.assert_allclose(decoder.causal_attention(q, k, v), expected, rtol=0, atol=1e-14)


def test_attention_in_bfloat16_has_logits_in_float32():
    """Of about 30, where a rounding to bfloat16 changes a weight by a sixteenth."""
    q, k, v = (bfloat16_of(key, 1, 32, 1, 16) for key in range(3))
    found = decoder.causal_attention(5 * q, 5 * k, v)
    scores = np.where(np.tri(32, dtype=bool), exact(5 * q)[0, :, 0] @ exact(5 * k)[0, :, 0].T / 4, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ exact(v)[0, :, 0]
    np.testing.assert_allclose(exact(found)[0, :, 0], mixed, rtol=0, atol=2**-7 * np.abs(exact(v)).max())


def test_logits_are_not_rounded_to_bfloat16():
    config = dataclasses.replace(TWO_LAYERS, compute_dtype="bfloat16")
    logits = logits_of(config, init(config, jax.random.key(0)), jnp.arange(8)[None, :])
    assert np.mean(np.asarray(logits != logits.astype(jnp.bfloat16).astype(jnp.float32))) > 0.9


def test_describe_lists_every_parameter(capsys):
    model.describe(TINY_MODEL, console=Console(width=120))
    text = capsys.readouterr().out
    assert "layer_02/attention/q_norm/scale" in text
    assert "embed heads head_dim" in text
    assert f"{model.num_params(TINY_MODEL):,}" in text


@pytest.mark.parametrize(("tied", "head"), [(False, 16 * 64), (True, 16 * 64)])
def test_flops_count_every_multiplying_matrix(tied, head):
    """Without norms and the looked-up embedding: 4 d^2 and 2 d F a layer, and the head, tied or not."""
    config = dataclasses.replace(TINY_MODEL, tied_embeddings=tied)
    matrices = 3 * (4 * 16 * 16 + 2 * 16 * 32) + head
    assert flops_per_token(config, 10) == 6 * matrices + 12 * 3 * 16 * 10
