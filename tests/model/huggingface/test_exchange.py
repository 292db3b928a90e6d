"""Checkpoint folders of Hugging Face: the recorded one's numbers, round trips, layouts, and what writing refuses."""

import dataclasses
import gc
import json
import resource
import tracemalloc
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxopt_lm import model
from jaxopt_lm.model import ModelConfig, huggingface
from jaxopt_lm.model.huggingface import tokenizer
from jaxopt_lm.model.huggingface.classes import class_of, tensors
from tests.conftest import GOLDEN
from tests.model.functions import logits_of, loss_and_grads, whole
from tests.model.huggingface.folders import (
    CONFIG,
    INDEX,
    LLAMA,
    QWEN3,
    RECORDED,
    STARCODER2,
    WEIGHTS,
    refused,
)
from tests.vocabularies import trained
from tests.write_huggingface import MODELS, random_params


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.usefixtures("optimized")
def test_recorded_logits_loss_and_gradients(scan_layers):
    expected = np.load(GOLDEN / "model" / "qwen3_tied_expected.npz")
    config = huggingface.read_config(RECORDED)
    config = dataclasses.replace(config, scan_layers=scan_layers, compute_dtype="float32")
    params = huggingface.read_params(RECORDED, config)
    batch = whole(expected["tokens"])
    with jax.default_matmul_precision("highest"):
        logits = logits_of(config, params, batch.tokens)
        loss, grads = loss_and_grads(config, params, batch)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(loss, expected["loss"], atol=1e-5, rtol=0)
    found = {tensor.name: tensor.to_stored(np.asarray(tensor.of(grads))) for tensor in tensors(config)}
    compared = set()
    for name, value in expected.items():
        kind, _, leaf = name.partition("/")
        if kind == "grad_l2":
            np.testing.assert_allclose(np.linalg.norm(found[leaf]), value, rtol=2e-4)
            compared.add(leaf)
        elif kind in ("grad", "grad_rows"):
            rows = expected["embed_rows"] if "embed" in leaf else slice(len(value))
            assert np.linalg.norm(found[leaf][rows] - value) < 2e-4 * np.linalg.norm(value), name
    assert compared == set(found)


def read_as(folder, config: ModelConfig) -> tuple[ModelConfig, model.Params]:
    """The folder's config with the run's own fields of `config`, and its parameters."""
    own = {name: getattr(config, name) for name in ("scan_layers", "param_dtype", "compute_dtype", "init")}
    found = dataclasses.replace(huggingface.read_config(folder), **own)
    return found, huggingface.read_params(folder, found)


@pytest.mark.parametrize("max_shard_bytes", [pytest.param(10**9, marks=pytest.mark.full), 5000])
@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_round_trip_is_exact(tmp_path, name, dtype, scan_layers, max_shard_bytes):
    config = dataclasses.replace(MODELS[name], param_dtype=dtype, scan_layers=scan_layers)
    params = random_params(config)
    written = huggingface.write(tmp_path / "new" / "folder", config, params, max_shard_bytes=max_shard_bytes)
    assert written == class_of(config).name
    found, again = read_as(tmp_path / "new" / "folder", config)
    assert found == config
    chex.assert_trees_all_equal(again, params, strict=True)
    chex.assert_trees_all_equal_structs(again, jax.eval_shape(lambda: model.init(config, jax.random.key(0))))


def test_round_trip_in_float64(tmp_path, x64):
    config = dataclasses.replace(LLAMA, param_dtype="float64")
    params = random_params(config)
    huggingface.write(tmp_path, config, params)
    chex.assert_trees_all_equal(read_as(tmp_path, config)[1], params, strict=True)
    single = dataclasses.replace(config, param_dtype="float32")
    rounded = jax.tree.map(lambda x: x.astype(np.float32), params)
    chex.assert_trees_all_equal(read_as(tmp_path, single)[1], rounded, strict=True)


def test_jax_arrays_are_written_and_the_other_form_is_read(tmp_path):
    """Stacked and unrolled parameters are the same checkpoint."""
    stacked = dataclasses.replace(QWEN3, scan_layers=True)
    params = model.init(stacked, jax.random.key(0))
    huggingface.write(tmp_path, stacked, params)
    chex.assert_trees_all_equal(huggingface.read_params(tmp_path, QWEN3), model.unstack_layers(params))


NORMS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
QK_NORMS = {"self_attn.q_norm": "q_norm", "self_attn.k_norm": "k_norm"}
SWIGLU = {"mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down"}
GELU = {"mlp.c_fc": "up", "mlp.c_proj": "down"}


@pytest.mark.parametrize(
    ("config", "qk_norms", "mlp"), [(QWEN3, QK_NORMS, SWIGLU), (LLAMA, {}, SWIGLU), (STARCODER2, {}, GELU)]
)
def test_names_and_layouts(tmp_path, config, qk_norms, mlp):
    """Every name, and every array by the formula for it."""
    params = random_params(config)
    huggingface.write(tmp_path, config, params)
    stored = load_file(tmp_path / WEIGHTS)
    d, heads, width = config.embed_dim, config.num_heads, config.head_width

    def take(name, ours):
        np.testing.assert_array_equal(stored.pop(name), ours, strict=True)

    def take_norm(name, ours):
        take(f"{name}.weight", ours["scale"])
        if config.norm == "layernorm":
            take(f"{name}.bias", np.zeros(d, np.float32))

    take("model.embed_tokens.weight", params["embed"])
    take("lm_head.weight", params["head"].T)
    take_norm("model.norm", params["final_norm"])
    for layer in range(config.num_layers):
        ours, prefix = params[f"layer_{layer:02d}"], f"model.layers.{layer}"
        for theirs, name in NORMS.items():
            take_norm(f"{prefix}.{theirs}", ours[name])
        for theirs, name in qk_norms.items():
            take(f"{prefix}.{theirs}.weight", ours["attention"][name]["scale"])
        for theirs, name in mlp.items():
            take(f"{prefix}.{theirs}.weight", ours["mlp"][name].T)
        for theirs, name in {"q": "query", "k": "key", "v": "value"}.items():
            rows = stored.pop(f"{prefix}.self_attn.{theirs}_proj.weight")
            np.testing.assert_array_equal(rows.reshape(-1, width, d).transpose(2, 0, 1), ours["attention"][name])
        out = stored.pop(f"{prefix}.self_attn.o_proj.weight")
        np.testing.assert_array_equal(out.T.reshape(heads, width, d), ours["attention"]["out"])
    assert not stored


def test_shards_and_their_index(tmp_path):
    limit = 4000
    huggingface.write(tmp_path, QWEN3, random_params(QWEN3), max_shard_bytes=limit)
    index = json.loads((tmp_path / INDEX).read_text())
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shards == [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CONFIG, INDEX, *shards])
    held = {shard: load_file(tmp_path / shard) for shard in shards}
    assert index["weight_map"] == {name: shard for shard in shards for name in held[shard]}
    sizes = {shard: sum(value.nbytes for value in held[shard].values()) for shard in shards}
    assert index["metadata"]["total_size"] == sum(sizes.values()) == 4 * model.num_params(QWEN3)
    assert all(size <= limit or len(held[shard]) == 1 for shard, size in sizes.items())
    assert any(size > limit for size in sizes.values())
    assert any(len(tensors) > 1 for tensors in held.values())


def test_reading_and_writing_hold_one_tensor_beside_the_parameters(tmp_path):
    config = dataclasses.replace(LLAMA, num_layers=12, embed_dim=96, mlp_dim=500, scan_layers=True)
    params = random_params(config)
    total, largest = 4 * model.num_params(config), 4 * 96 * 500
    model.shapes(config)  # traced once, outside of what is measured
    tracemalloc.start()
    before = gc.get_threshold()
    gc.set_threshold(700)  # garbage is not to be counted
    try:
        huggingface.write(tmp_path, config, params)
        assert tracemalloc.get_traced_memory()[1] < 3 * largest
        tracemalloc.reset_peak()
        huggingface.read_params(tmp_path, config)
        assert tracemalloc.get_traced_memory()[1] < total + 3 * largest
    finally:
        tracemalloc.stop()
        gc.set_threshold(*before)


def test_config_as_written(tmp_path):
    path = tmp_path / "vocabulary"
    path.write_bytes(trained())
    huggingface.write(tmp_path / "out", STARCODER2, random_params(STARCODER2), max_length=99, tokenizer=path)
    assert json.loads((tmp_path / "out" / CONFIG).read_text()) == {
        "architectures": ["Starcoder2ForCausalLM"],
        "model_type": "starcoder2",
        "vocab_size": 50,
        "num_hidden_layers": 3,
        "hidden_size": 24,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "head_dim": 8,
        "intermediate_size": 28,
        "norm_epsilon": 1e-5,
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
        "hidden_act": "gelu",
        "use_bias": False,
        "sliding_window": None,
        "torch_dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "max_position_embeddings": 99,
    }
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == path.read_bytes()
    for name, fields in tokenizer.files(tokenizer.read(path)).items():
        assert json.loads((tmp_path / "out" / name).read_text()) == fields


def test_without_a_vocabulary_no_special_token_is_another_ones(tmp_path):
    huggingface.write(tmp_path, STARCODER2, random_params(STARCODER2))
    fields = json.loads((tmp_path / CONFIG).read_text())
    assert [fields[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [None, None, None]


def test_bad_arguments_of_write(tmp_path):
    params = random_params(LLAMA)
    odd = dataclasses.replace(LLAMA, embed_dim=25)
    assert "model.embed_dim=25: LlamaForCausalLM takes a multiple of model.num_heads=6" in refused(
        huggingface.write, tmp_path, odd, params
    )
    assert "max_shard_bytes=0: must be" in refused(huggingface.write, tmp_path, LLAMA, params, max_shard_bytes=0)
    for wrong in (
        {name: leaf for name, leaf in params.items() if name != "head"},
        params | {"head": params["head"].T},
        params | {"head": params["head"].astype(np.float64)},
    ):
        with pytest.raises(ValueError, match="paths, shapes or dtypes differ"):
            huggingface.write(tmp_path, LLAMA, wrong)
    assert not any(tmp_path.iterdir())


def test_vocabularies_that_write_refuses(tmp_path):
    path, out = tmp_path / "vocabulary", tmp_path / "out"
    small = dataclasses.replace(LLAMA, vocab_size=17)
    path.write_bytes(trained())
    message = refused(huggingface.write, out, small, random_params(small), tokenizer=path)
    assert message == f"{path}: has 18 pieces: must be at most model.vocab_size=17"
    path.write_bytes(trained(model_type="char"))
    assert "neither of type unigram nor bpe" in refused(
        huggingface.write, out, LLAMA, random_params(LLAMA), tokenizer=path
    )
    path.write_bytes(b"none")
    assert f"{path}: not a SentencePiece model" in refused(
        huggingface.write, out, LLAMA, random_params(LLAMA), tokenizer=path
    )
    assert not out.exists()


def test_write_spares_what_is_there(tmp_path):
    (tmp_path / "precious").write_text("mine")
    write = (huggingface.write, tmp_path, LLAMA, random_params(LLAMA))
    assert f"{tmp_path}: holds precious already" in refused(*write)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert "is a file" in refused(huggingface.write, tmp_path / "precious", LLAMA, random_params(LLAMA))
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_nothing(tmp_path, exists):
    folder, params, vocabulary = tmp_path / "out", random_params(LLAMA), tmp_path / "vocabulary"
    vocabulary.write_bytes(trained())  # the largest file, for it holds tables of characters, and not the first
    if exists:
        folder.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # writing beyond it fails, as on a full disk
    try:
        message = refused(huggingface.write, folder, LLAMA, params, max_shard_bytes=20_000, tokenizer=vocabulary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{folder}: cannot be written: File too large" in message
    assert folder.exists() == exists
    assert not exists or not any(folder.iterdir())
    huggingface.write(folder, LLAMA, params)


def test_a_crash_leaves_no_folder_that_looks_whole(tmp_path, monkeypatch):
    """Killed at any renaming, with nothing tidied: there is no config.json."""
    params, rename = random_params(LLAMA), Path.rename
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: None)
    monkeypatch.setattr(Path, "rmdir", lambda path: None)
    renamed = 0
    while True:
        left = renamed

        def rename_some(path, target):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", rename_some)
        folder = tmp_path / str(renamed)
        try:
            huggingface.write(folder, LLAMA, params, max_shard_bytes=20_000)
        except KeyboardInterrupt:
            assert not (folder / CONFIG).exists()
            assert len([path for path in folder.iterdir() if path.suffix != ".tmp"]) == renamed
            renamed += 1
        else:
            break
    assert renamed == len(list(folder.iterdir())) > 3
    chex.assert_trees_all_equal(huggingface.read_params(folder, LLAMA), params)
