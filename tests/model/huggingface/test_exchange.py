"""Checkpoint folders of Hugging Face: the recorded one's numbers, round trips, layouts, and all that is refused."""

import dataclasses
import json
import pickle
import resource
import shutil
import tracemalloc
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxopt_lm import model
from jaxopt_lm.config import DataConfig, TrainConfig
from jaxopt_lm.config_io import WithConfig, from_command_line
from jaxopt_lm.errors import InputError
from jaxopt_lm.model import ModelConfig, huggingface
from jaxopt_lm.model.huggingface import tokenizer
from jaxopt_lm.model.huggingface.classes import CLASSES, class_of, tensors
from tests.conftest import GOLDEN, TINY_MODEL, command_line
from tests.model.test_decoder import logits_of, loss_and_grads, whole
from tests.vocabularies import trained
from tests.write_huggingface import MODELS, random_params

RECORDED = GOLDEN / "model" / "qwen3_tied"
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
QWEN3, TIED, LLAMA, STARCODER2 = (MODELS[name] for name in ("qwen3", "qwen3_tied", "llama", "starcoder2"))


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


@pytest.mark.parametrize("max_shard_bytes", [10**9, 5000])
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
    try:
        huggingface.write(tmp_path, config, params)
        assert tracemalloc.get_traced_memory()[1] < 3 * largest
        tracemalloc.reset_peak()
        huggingface.read_params(tmp_path, config)
        assert tracemalloc.get_traced_memory()[1] < total + 3 * largest
    finally:
        tracemalloc.stop()


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


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of each class, and of a tied model."""
    folder = tmp_path_factory.mktemp("written")
    for name in ("qwen3", "qwen3_tied", "llama", "starcoder2"):
        huggingface.write(folder / name, MODELS[name], random_params(MODELS[name]), max_length=64)
    return folder


@pytest.fixture
def copied(written, tmp_path):
    """`copied(name)`: a folder of one's own to spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(written / name, tmp_path / name))

    return copy


def change_config(folder: Path, **changes) -> None:
    """Sets fields of config.json; `...` removes one."""
    fields = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


def refused(read, *arguments, **named) -> str:
    with pytest.raises(InputError) as error:
        read(*arguments, **named)
    message = str(error.value)
    assert len(message.splitlines()) == 1, message
    return message


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
