"""Tensors in files: refused ones, damaged files, shards and their index."""

import json
import pickle
from pathlib import Path

import chex
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxopt_lm.model import huggingface
from tests.model.huggingface.folders import CONFIG, INDEX, LLAMA, QWEN3, TIED, WEIGHTS, refused
from tests.write_huggingface import MODELS, random_params


def change_tensors(folder: Path, **changes) -> None:
    """Replaces stored tensors by `change(old, or None)`; None from it removes one. `__` stands for a dot."""
    stored = load_file(folder / WEIGHTS)
    for name, change in changes.items():
        name = name.replace("__", ".")
        stored[name] = change(stored.get(name))
    found = {name: np.ascontiguousarray(value) for name, value in stored.items() if value is not None}
    save_file(found, folder / WEIGHTS)


GATE = "model__layers__1__mlp__gate_proj__weight"


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("qwen3", {GATE: lambda x: None}, ("missing", "model.layers.1.mlp.gate_proj.weight")),
        ("qwen3", {"lm_head__weight": lambda x: None}, ("missing", "lm_head.weight")),
        ("qwen3", {f"more__{i}": lambda x: np.ones(1) for i in range(5)}, ("more.0, more.1, more.2 and 2 more", "not")),
        ("qwen3", {GATE: lambda x: x.T}, ("is [24, 28]: must be [28, 24]", CONFIG)),
        ("qwen3", {GATE: lambda x: x.astype(np.int32)}, ("is I32", "F64, F32, BF16, F16")),
        ("qwen3", {GATE: lambda x: np.where(x == x.max(), np.nan, x)}, ("not finite in float32", "gate_proj")),
        ("qwen3", {GATE: lambda x: x.astype(np.float64) * 1e300}, ("not finite in float32",)),
        ("qwen3_tied", {"lm_head__weight": lambda x: np.ones((50, 24))}, ("lm_head.weight is not model.embed_tokens",)),
        ("qwen3_tied", {"lm_head__weight": lambda x: np.ones((24, 50))}, ("lm_head.weight is [24, 50]",)),
        ("starcoder2", {"model__norm__bias": lambda x: x + 1}, ("model.norm.bias is not all zeros", "no bias")),
        ("starcoder2", {"model__norm__bias": lambda x: x[:3]}, ("model.norm.bias is [3]: must be [24]",)),
        ("starcoder2", {"model__layers__2__mlp__c_fc__bias": lambda x: np.zeros(28)}, ("not: model.layers.2",)),
    ],
)
def test_tensors_that_are_refused(copied, name, changes, parts):
    folder = copied(name)
    change_tensors(folder, **changes)
    message = refused(huggingface.read_params, folder, MODELS[name])
    assert str(folder) in message
    for part in parts:
        assert part in message, message


def test_tensors_that_say_nothing_new(copied):
    """A tied head stored too, old Llamas' wavelengths, half precision."""
    folder, params = copied("qwen3_tied"), random_params(TIED)
    change_tensors(folder, lm_head__weight=lambda x: params["embed"], **{"model__norm__weight": np.float16})
    params["final_norm"]["scale"] = params["final_norm"]["scale"].astype(np.float16).astype(np.float32)
    chex.assert_trees_all_equal(huggingface.read_params(folder, TIED), params, strict=True)
    folder = copied("llama")
    change_tensors(folder, model__layers__0__self_attn__rotary_emb__inv_freq=lambda x: np.ones(5, np.float32))
    chex.assert_trees_all_equal(huggingface.read_params(folder, LLAMA), random_params(LLAMA))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-3],
        lambda data: data[:100],
        lambda data: b"",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data + b"x",
        lambda data: data.replace(b'"F32"', b'"X32"', 1),
        lambda data: data.replace(b'"F32"', b'"F16"', 1),
        lambda data: b"\x80\x04" + data,
    ],
)
def test_damaged_files_are_refused(copied, spoil):
    folder = copied("qwen3")
    (folder / WEIGHTS).write_bytes(spoil((folder / WEIGHTS).read_bytes()))
    message = refused(huggingface.read_params, folder, QWEN3)
    assert f"{folder}/{WEIGHTS}: not a whole safetensors file" in message


def test_pickles_are_refused_unread(copied, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    folder = copied("qwen3")
    (folder / WEIGHTS).unlink()
    assert f"holds no {WEIGHTS} and no {INDEX}" in refused(huggingface.read_params, folder, QWEN3)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    message = refused(huggingface.read_params, folder, QWEN3)
    assert "pickle" in message
    assert "save_pretrained" in message
    (folder / "pytorch_model.bin").rename(folder / WEIGHTS)
    refused(huggingface.read_params, folder, QWEN3)
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def sharded(tmp_path):
    folder = tmp_path / "sharded"
    huggingface.write(folder, QWEN3, random_params(QWEN3), max_shard_bytes=50_000)
    first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    assert {path.name for path in folder.glob("*.safetensors")} == {first, second}
    return folder, first, second


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("../elsewhere.safetensors", "'../elsewhere.safetensors'"),
        ("/etc/passwd", "'/etc/passwd'"),
        ("sub/model.safetensors", "'sub/model.safetensors'"),
        ("pytorch_model.bin", "'pytorch_model.bin'"),
        ("..", "'..'"),
        (3, "names 3"),
        ([], "names []"),
    ],
)
def test_indices_that_leave_the_folder(sharded, place, part):
    folder, *_ = sharded
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = place
    (folder / INDEX).write_text(json.dumps(index))
    message = refused(huggingface.read_params, folder, QWEN3)
    assert f"{folder}/{INDEX}: weight_map names" in message
    assert part in message


def test_shards_that_do_not_fit_their_index(sharded):
    folder, first, second = sharded
    whole_index, index = (json.loads((folder / INDEX).read_text()) for _ in range(2))
    index["weight_map"]["lm_head.weight"] = first
    (folder / INDEX).write_text(json.dumps(index))
    assert f"does not name the tensors of {first}: lm_head.weight" in refused(huggingface.read_params, folder, QWEN3)
    (folder / INDEX).write_text(json.dumps({"weight_map": {}}))
    assert "weight_map is missing" in refused(huggingface.read_params, folder, QWEN3)
    (folder / INDEX).write_text("[1]")
    assert "holds list, must be a JSON object" in refused(huggingface.read_params, folder, QWEN3)
    (folder / INDEX).write_text(json.dumps(whole_index))
    chex.assert_trees_all_equal(huggingface.read_params(folder, QWEN3), random_params(QWEN3))
    (folder / second).rename(folder.with_name("blob"))  # as in transformers' cache of downloads
    (folder / second).symlink_to(folder.with_name("blob"))
    chex.assert_trees_all_equal(huggingface.read_params(folder, QWEN3), random_params(QWEN3))
    (folder / second).unlink()
    assert f"shards are missing: {second}" in refused(huggingface.read_params, folder, QWEN3)
