"""Which models are of which class: configs in other words, refused ones, and models without a class."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lm import model
from jaxopt_lm.config import DataConfig, TrainConfig
from jaxopt_lm.config_io import WithConfig, from_command_line
from jaxopt_lm.model import huggingface
from jaxopt_lm.model.huggingface.classes import CLASSES
from tests.conftest import TINY_MODEL, command_line
from tests.model.huggingface.folders import (
    CONFIG,
    QWEN3,
    TIED,
    WEIGHTS,
    change_config,
    refused,
)
from tests.write_huggingface import MODELS, random_params


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("qwen3", {"rope_theta": ..., "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}),
        ("qwen3", {"rope_theta": 500000, "rope_scaling": {"type": "default"}}),
        ("qwen3", {"use_sliding_window": ..., "attention_bias": ..., "hidden_act": ..., "tie_word_embeddings": ...}),
        ("qwen3", {"sliding_window": 4096, "layer_types": ["full_attention"] * 3, "attention_dropout": 0.1}),
        ("llama", {"rope_theta": ..., "mlp_bias": ..., "pretraining_tp": 2, "transformers_version": "4.31.0"}),
        ("starcoder2", {"sliding_window": ..., "residual_dropout": 0.1}),
    ],
)
def test_other_ways_to_say_the_same(copied, name, changes):
    folder = copied(name)
    change_config(folder, **changes)
    assert dataclasses.replace(huggingface.read_config(folder), compute_dtype="float32") == MODELS[name]


@pytest.mark.parametrize(
    ("name", "changes", "field", "value"),
    [
        ("qwen3", {"head_dim": ...}, "head_dim", 128),
        ("llama", {"head_dim": None}, "head_dim", None),
        ("llama", {"num_key_value_heads": ...}, "num_kv_heads", 6),
        ("starcoder2", {"tie_word_embeddings": ...}, "tied_embeddings", True),
        ("llama", {"tie_word_embeddings": ...}, "tied_embeddings", False),
        ("qwen3", {"rope_theta": ...}, "rope_theta", 1e4),
    ],
)
def test_fields_left_out_are_as_in_transformers(copied, name, changes, field, value):
    folder = copied(name)
    change_config(folder, **changes)
    assert getattr(huggingface.read_config(folder), field) == value


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("qwen3", {"architectures": ["Qwen2ForCausalLM"]}, ("architectures=['Qwen2ForCausalLM']", *CLASSES)),
        ("qwen3", {"architectures": ...}, ("architectures=None", "must be one of")),
        ("qwen3", {"architectures": [["Qwen3ForCausalLM"]]}, ("must be one of",)),
        ("qwen3", {"model_type": "llama"}, ("model_type='llama'", "'qwen3'")),
        ("qwen3", {"attention_bias": True}, ("attention_bias=True", "must be False", "Qwen3ForCausalLM")),
        ("qwen3", {"use_sliding_window": True}, ("use_sliding_window=True", "must be False")),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"] * 50}, ("layer_types=[", "full_attention")),
        ("llama", {"mlp_bias": True}, ("mlp_bias=True", "must be False")),
        ("llama", {"hidden_act": "gelu"}, ("hidden_act='gelu'", "must be 'silu'")),
        ("llama", {"quantization_config": {"bits": 4}}, ("quantization_config={'bits': 4}", "must be None")),
        ("llama", {"partial_rotary_factor": 0.5}, ("partial_rotary_factor=0.5", "must be None")),
        ("starcoder2", {"use_bias": ...}, ("use_bias=True", "must be False")),
        ("starcoder2", {"hidden_act": ...}, ("hidden_act='gelu_pytorch_tanh'", "must be 'gelu'")),
        ("starcoder2", {"sliding_window": 4096}, ("sliding_window=4096", "must be None")),
        ("qwen3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, ("rope_scaling={'type': 'linear'", "'default'")),
        ("qwen3", {"rope_parameters": {"rope_type": "yarn"}}, ("rope_parameters={'rope_type': 'yarn'}", "'default'")),
        ("qwen3", {"rope_parameters": {"rope_type": ["default"]}}, ("rope_parameters=", "'default'")),
        ("qwen3", {"rope_parameters": {"partial_rotary_factor": 0.5}}, ("partial_rotary_factor", "alone")),
        ("qwen3", {"rope_parameters": "default"}, ("rope_parameters='default'", "must be null")),
        ("qwen3", {"rope_parameters": {"rope_theta": 7}}, ("rope_theta=7.0 and 500000.0", "the same")),
        ("qwen3", {"rope_theta": "1e6"}, ("rope_theta='1e6'", "must be float")),
        ("qwen3", {"rope_theta": 10**400}, ("rope_theta=1000", "...: must be at most 1e+38")),
        ("qwen3", {"hidden_size": ...}, ("hidden_size is missing", "int")),
        ("qwen3", {"num_hidden_layers": "3"}, ("num_hidden_layers='3'", "must be int")),
        ("qwen3", {"num_hidden_layers": True}, ("num_hidden_layers=True", "must be int")),
        ("qwen3", {"num_hidden_layers": 0}, ("num_layers=0", "at least 1")),
        ("qwen3", {"num_key_value_heads": 4}, ("num_kv_heads=4", "must divide")),
        ("qwen3", {"num_key_value_heads": 0}, ("num_kv_heads=0", "at least 1")),
        ("qwen3", {"head_dim": 0}, ("head_dim=0", "even and positive")),
        ("qwen3", {"rms_norm_eps": ...}, ("rms_norm_eps is missing",)),
        ("qwen3", {"rms_norm_eps": None}, ("rms_norm_eps=None", "must be float")),
        ("qwen3", {"rms_norm_eps": float("nan")}, ("norm_eps=nan", "positive")),
        ("qwen3", {"tie_word_embeddings": "true"}, ("tie_word_embeddings='true'", "must be bool")),
        ("qwen3", {"vocab_size": {"a": "b" * 200}}, ("vocab_size={'a': 'bbb", "...", "must be int")),
    ],
)
def test_configs_that_are_refused(copied, name, changes, parts):
    folder = copied(name)
    change_config(folder, **changes)
    message = refused(huggingface.read_config, folder)
    for part in (f"{folder}/{CONFIG}: ", *parts):
        assert part in message, message
    assert len(message) < 400 + len(str(folder))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"[]", "holds list, must be a JSON object"),
        (b'{"a": ', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (None, "no such file"),
    ],
)
def test_config_files_that_are_refused(copied, content, part):
    folder = copied("qwen3")
    (folder / CONFIG).unlink()
    if content is not None:
        (folder / CONFIG).write_bytes(content)
    message = refused(huggingface.read_config, folder)
    assert f"{folder}/{CONFIG}" in message
    assert part in message
    assert "no such folder" in refused(huggingface.read_config, folder / "none")
    assert "no such folder" in refused(huggingface.read_params, folder / WEIGHTS, QWEN3)


def test_a_run_of_another_model_is_told_the_flags(copied, tmp_path):
    """The flags, pasted, make the run's model the folder's."""
    run = TrainConfig(workdir="run", model=TINY_MODEL, data=DataConfig(vocab_size=50))
    folder = copied("qwen3_tied")
    message = refused(huggingface.read_params, folder, TINY_MODEL)
    text, flags = message.split("; give ")
    assert text == f"{folder}: the run's model is another than the checkpoint's"
    assert flags.split() == [
        "--config.model.vocab_size=50",
        "--config.model.embed_dim=24",
        "--config.model.num_heads=6",
        "--config.model.mlp_dim=28",
        "--config.model.mlp=swiglu",
        "--config.model.norm=rmsnorm",
        "--config.model.norm_eps=1e-06",
        "--config.model.qk_norm=per_head",
        "--config.model.tied_embeddings=True",
        "--config.model.rope_theta=500000.0",
        "--config.model.head_dim=10",
    ]
    mended = from_command_line(WithConfig, "", [*command_line("train", run, tmp_path)[3:], *flags.split()]).config.model
    chex.assert_trees_all_equal(huggingface.read_params(folder, mended), random_params(TIED))


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"num_layers": 2}, "--config.model.num_layers=3"),
        ({"head_dim": None}, "--config.model.head_dim=10"),
        ({"attention_inverse_layer_scale": True}, "--config.model.attention_inverse_layer_scale=False"),
        ({"num_kv_heads": 6}, "--config.model.num_kv_heads=2"),
        ({"embed_dim": 60, "head_dim": None}, "--config.model.embed_dim=24 --config.model.head_dim=10"),
    ],
)
def test_flags_of_single_fields(written, changes, flags):
    message = refused(huggingface.read_params, written / "qwen3", dataclasses.replace(QWEN3, **changes))
    assert message.endswith(f"; give {flags}")


def test_what_is_the_runs_own_may_differ(written):
    own = {"init": "normal", "init_std": 0.5, "compute_dtype": "bfloat16", "param_dtype": "bfloat16"}
    params = huggingface.read_params(written / "qwen3", dataclasses.replace(QWEN3, scan_layers=True, **own))
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), random_params(QWEN3))
    chex.assert_trees_all_equal(params, jax.tree.map(np.asarray, model.stack_layers(expected)), strict=True)


@pytest.mark.parametrize(
    ("changes", "given", "nearest"),
    [
        (
            {"norm": "layernorm", "mlp": "gelu", "qk_norm": "full"},
            "model.qk_norm=full: no published class computes it",
            "Starcoder2ForCausalLM, has qk_norm=none",
        ),
        (
            {"attention_inverse_layer_scale": True},
            "model.attention_inverse_layer_scale=True: no",
            "Qwen3ForCausalLM, has attention_inverse_layer_scale=False",
        ),
        ({"norm": "layernorm"}, "model.norm=layernorm: no", "Qwen3ForCausalLM, has norm=rmsnorm"),
        ({"qk_norm": "none", "mlp": "gelu"}, "model.mlp=gelu: no", "LlamaForCausalLM, has mlp=swiglu"),
    ],
)
def test_models_without_a_class(tmp_path, changes, given, nearest):
    config = dataclasses.replace(QWEN3, **changes)
    message = refused(huggingface.write, tmp_path / "out", config, random_params(config))
    assert message.startswith(given)
    assert message.endswith(nearest)
    assert not (tmp_path / "out").exists()
