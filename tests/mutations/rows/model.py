"""The decoder."""

from tests.mutations.pieces import Rows, drop, put

ROWS: Rows = {
    "model/decoder.py::_param": [
        (put("-3, 3", "-2, 2"), "init: truncated at 2 sigma", "model/test_decoder.py -k init_statistics"),
    ],
    "model/decoder.py::_out_std": [
        (
            put("(np.arange(config.num_layers) + 1.0)", "np.arange(config.num_layers) + 1.0"),
            "init: depth off by one half",
            "model/test_decoder.py -k init_statistics",
        ),
    ],
    "model/decoder.py::Norm.__call__": [
        (
            put('"layernorm"', '"layernorm" and self.scale.get_metadata()["axes"] == ("embed",)'),
            "query-key norm: the mean is not subtracted",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
        (
            put("self.config.norm_eps", '(1e-6 if self.scale.get_metadata()["axes"] == ("heads",) else 1e-5)'),
            "query-key norm: eps 1e-6",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
        (
            drop(".astype(_wide(x.dtype))"),
            "norms: computed in bfloat16",
            "model/test_decoder.py -k 'rounded or in_bfloat16'",
        ),
    ],
    "model/decoder.py::rotation": [
        (
            put("/ half", "/ (2 * half)"),
            "RoPE: exponents half as large",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
        (
            put("arange(length)", "arange(length).astype(jnp.bfloat16).astype(float)"),
            "RoPE: positions in bfloat16",
            "model/test_decoder.py -k 'rounded or in_bfloat16'",
        ),
    ],
    "model/decoder.py::rotary": [
        (
            put(":half]", "::2]") + put("half:]", "1::2]"),
            "RoPE: pairs of neighbours, not of halves",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
        (
            put("first * cos -", "first * cos +"),
            "RoPE: the first half with the wrong sign",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
        (
            put("second * cos +", "second * cos -"),
            "RoPE: the second half with the wrong sign",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
        (
            put(".astype(_wide(x_BLHK.dtype))", "; turn = [x.astype(wide.dtype) for x in turn]"),
            "RoPE: rotated in bfloat16",
            "model/test_decoder.py -k 'rounded or in_bfloat16'",
        ),
    ],
    "model/decoder.py::causal_attention": [
        (
            put("width**-0.5", "(heads * width) ** -0.5"),
            "attention: scaled by the width of all heads",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
        (
            put("_wide(q_BLHK.dtype)", "q_BLHK.dtype"),
            "attention: logits and softmax in bfloat16",
            "model/test_decoder.py -k 'rounded or in_bfloat16'",
        ),
        (
            put("stop, start, dtype", "stop, stop, dtype"),
            "attention: in a run of queries each sees all keys of its last",
            "model/test_decoder.py -k in_runs",
        ),
        (
            put("stop, start, dtype", "stop, start - 1, dtype"),
            "attention: no query sees its own key",
            "model/test_decoder.py -k in_runs",
        ),
    ],
    "model/decoder.py::Attention.__call__": [
        (
            put(
                "self.q_norm(_join_heads(q_BLHK), place).reshape(q_BLHK.shape)",
                "jax.nn.standardize(q_BLHK, epsilon=1e-5) * self.q_norm.scale[...].reshape(1, 1, *q_BLHK.shape[2:])",
            ),
            "query-key norm: queries per head",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
        (
            put("self.k_norm(_join_heads(k_BLGK)", "self.k_norm(_join_heads(rotary(k_BLGK, turn))")
            + put(
                "reshape(k_BLGK.shape)",
                "reshape(k_BLGK.shape); "
                "mixed_BLHK = causal_attention(rotary(q_BLHK, turn), k_BLGK, v_BLGK); "
                "return _dot(_join_heads(mixed_BLHK), _used(self.out, dtype, place).reshape(-1, c.embed_dim))",
            ),
            "query-key norm: keys after the rotation",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
        (
            put("self.k_norm(_join_heads", "self.q_norm(_join_heads"),
            "query-key norm: keys with the queries' scale",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
        (
            put("layer + 1", "layer + 2"),
            "inverse layer scale: from two",
            "model/test_decoder.py -k inverse_layer_scale",
        ),
    ],
    "model/decoder.py::gelu": [
        (
            put("jax.lax.erf(wide * 0.5**0.5)", "jnp.tanh(0.7978845608 * (wide + 0.044715 * wide**3))"),
            "GELU: by tanh",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
    ],
    "model/decoder.py::gated": [
        (
            put("silu(gate) * x", "silu(x) * gate"),
            "SwiGLU: gate and value the other way round",
            "model/huggingface/test_exchange.py -k recorded_logits",
        ),
    ],
    "model/decoder.py::Block.__init__": [
        (
            put("_out_std(config, config.mlp_dim)", "_out_std(config, config.embed_dim)"),
            "init: the MLP's output by its other width",
            "model/test_decoder.py -k init_statistics",
        ),
    ],
    "model/decoder.py::Block.__call__": [
        (
            put("self.mlp_norm", "self.attention_norm"),
            "block: the MLP has the attention's norm",
            "model/test_recorded.py -k recorded_query_key_norm",
        ),
    ],
    "model/decoder.py::Decoder.__call__": [
        (
            drop(".astype(_wide(dtype))"),
            "embedding: its gradient is summed in bfloat16",
            "training/test_step.py -k bfloat16_are",
        ),
        (
            put(", preferred_element_type=_wide(dtype))", ").astype(_wide(dtype))"),
            "head: logits rounded to bfloat16",
            "model/test_decoder.py -k 'rounded or in_bfloat16'",
        ),
        (
            put("embed_VD.astype(dtype).T", "jax.lax.stop_gradient(embed_VD).astype(dtype).T"),
            "tied embedding: no gradient of the head",
            "model/huggingface/test_exchange.py -k recorded_logits",
        ),
    ],
}
