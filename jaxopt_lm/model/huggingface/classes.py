"""The published classes of transformers that compute exactly what our decoder does, and their names for its parts.

A row of `CLASSES` is a class: the fields of `ModelConfig` it implies, the values its config.json must have for that,
and its tensors. Reading and writing both follow the row. A linear layer is stored as a matrix [outputs, inputs]; ours
is an array whose leading axes are the inputs, so the matrix is ours with inputs and outputs flattened, transposed.

Query-key norm over all heads (`qk_norm="full"`) in a block that norms its inputs by LayerNorm has no class: OLMo 2's
blocks norm their outputs, by RMSNorm.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.model.config import ModelConfig
from jaxopt_lm.model.decoder import Params, layer_name, shapes

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class Tensor(NamedTuple):
    """A tensor of a checkpoint and its place in our parameters.

    Attributes:
      name: in the checkpoint.
      path: keys of our dict, below the layer's; empty: a bias that our decoder has not, zeros.
      inputs: how many leading axes of ours are inputs; 0: stored as it is.
      layer: counted from 0; None: outside the layers.
    """

    name: str
    path: tuple[str, ...]
    inputs: int = 0
    layer: int | None = None

    def of(self, params: Params) -> Any:
        """Our array: for NumPy arrays a view, so that it can be assigned to."""
        stacked = self.layer is not None and "layers" in params
        outer = () if self.layer is None else ("layers",) if stacked else (layer_name(self.layer),)
        node: Any = params
        for key in outer + self.path:
            node = node[key]
        return node[self.layer] if stacked else node

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in the checkpoint of an array of ours."""
        return (math.prod(shape[self.inputs :]), math.prod(shape[: self.inputs])) if self.inputs else shape

    def to_stored(self, x: Any) -> Any:
        """Our array in the checkpoint's layout."""
        return x.reshape(self.stored_shape(x.shape)[::-1]).T if self.inputs else x

    def from_stored(self, x: Any, shape: tuple[int, ...]) -> Any:
        """The inverse of `to_stored`, for an array of ours of that shape."""
        return (x.T if self.inputs else x).reshape(shape)


_COMMON = (
    ("attention_norm/scale", "input_layernorm", 0),
    ("attention/query", "self_attn.q_proj", 1),
    ("attention/key", "self_attn.k_proj", 1),
    ("attention/value", "self_attn.v_proj", 1),
    ("attention/out", "self_attn.o_proj", 2),
    ("mlp_norm/scale", "post_attention_layernorm", 0),
)
_QK_NORM = (("attention/q_norm/scale", "self_attn.q_norm", 0), ("attention/k_norm/scale", "self_attn.k_norm", 0))
_SWIGLU = (("mlp/gate", "mlp.gate_proj", 1), ("mlp/up", "mlp.up_proj", 1), ("mlp/down", "mlp.down_proj", 1))
_GELU = (("mlp/up", "mlp.c_fc", 1), ("mlp/down", "mlp.c_proj", 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A class of transformers.

    Attributes:
      name, model_type: as config.json has them.
      implies: fields of `ModelConfig`.
      layer: (our path, the checkpoint's name without `.weight`, `Tensor.inputs`) of a layer's arrays.
      norm_eps: config.json's name of it.
      norm_bias: whether its norms have a bias, zeros for us.
      heads_divide_width: whether its config refuses a width that is no multiple of the heads.
      fixed: config.json's values for which the class computes what our decoder does.
      absent: what transformers takes for a field that is left out, where that is not what `fixed` has.
    """

    name: str
    model_type: str
    implies: Mapping[str, Any]
    layer: tuple[tuple[str, str, int], ...]
    norm_eps: str = "rms_norm_eps"
    norm_bias: bool = False
    heads_divide_width: bool = False
    fixed: Mapping[str, Any]
    absent: Mapping[str, Any]

    def entries(self, path: str, name: str, inputs: int = 0, layer: int | None = None) -> Iterator[Tensor]:
        """The tensors of one of our arrays: its weight, and a norm's bias."""
        yield Tensor(f"{name}.weight", tuple(path.split("/")), inputs, layer)
        if self.norm_bias and path.endswith("norm/scale"):
            yield Tensor(f"{name}.bias", (), 0, layer)


_ROWS = (
    Published(
        name="Qwen3ForCausalLM",
        model_type="qwen3",
        implies={"norm": "rmsnorm", "mlp": "swiglu", "qk_norm": "per_head"},
        layer=_COMMON + _QK_NORM + _SWIGLU,
        fixed={"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False},
        absent={"tie_word_embeddings": False, "head_dim": 128},
    ),
    Published(
        name="LlamaForCausalLM",
        model_type="llama",
        implies={"norm": "rmsnorm", "mlp": "swiglu", "qk_norm": "none"},
        layer=_COMMON + _SWIGLU,
        heads_divide_width=True,
        fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
        absent={"tie_word_embeddings": False, "head_dim": None, "num_key_value_heads": None},
    ),
    Published(
        name="Starcoder2ForCausalLM",
        model_type="starcoder2",
        implies={"norm": "layernorm", "mlp": "gelu", "qk_norm": "none"},
        layer=_COMMON + _GELU,
        norm_eps="norm_epsilon",
        norm_bias=True,
        fixed={"hidden_act": "gelu", "use_bias": False, "sliding_window": None},
        absent={"tie_word_embeddings": True, "head_dim": None, "hidden_act": "gelu_pytorch_tanh", "use_bias": True},
    ),
)
CLASSES = {row.name: row for row in _ROWS}

_SIZES = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "embed_dim": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp_dim": "intermediate_size",
}
_MAY_BE_NULL = ("num_key_value_heads", "head_dim")
_DEFAULT_THETA = 1e4
_LARGEST = 1e38  # of ModelConfig's numbers; JSON's integers have no bound


def class_of(config: ModelConfig) -> Published:
    """The class that computes what a decoder of this config does.

    Raises:
      InputError: there is none; the line says which fields have no place in the nearest one.
    """

    def no_place(row: Published) -> dict[str, Any]:
        implied = {**row.implies, "attention_inverse_layer_scale": False}
        return {name: value for name, value in implied.items() if getattr(config, name) != value}

    nearest = min(_ROWS, key=lambda row: len(no_place(row)))
    if wanted := no_place(nearest):
        given = ", ".join(f"model.{name}={getattr(config, name)}" for name in wanted)
        has = ", ".join(f"{name}={value}" for name, value in wanted.items())
        raise InputError(
            f"{given}: no published class computes it, so no Hugging Face checkpoint can hold this model; the nearest, "
            f"{nearest.name}, has {has}"
        )
    require(
        not nearest.heads_divide_width or config.embed_dim % config.num_heads == 0,
        f"model.embed_dim={config.embed_dim}: {nearest.name} takes a multiple of model.num_heads={config.num_heads}",
    )
    return nearest


def why_not_exported(config: ModelConfig) -> str | None:
    """Why no checkpoint of a published class can hold a decoder of this config, in one line; None where one can."""
    try:
        class_of(config)
    except InputError as error:
        return str(error)
    return None


def tensors(config: ModelConfig) -> dict[Tensor, tuple[int, ...]]:
    """Every tensor of the checkpoint of a model and its shape there, in the order in which they are written.

    Raises:
      InputError: no class computes what the model does.
    """
    row = class_of(config)
    found = [Tensor(EMBEDDING, ("embed",))]
    for layer in range(config.num_layers):
        for path, name, inputs in row.layer:
            found += row.entries(path, f"model.layers.{layer}.{name}", inputs, layer)
    found += row.entries("final_norm/scale", "model.norm")
    if not config.tied_embeddings:
        found.append(Tensor(HEAD, ("head",), 1))
    ours = shapes(dataclasses.replace(config, num_layers=1, scan_layers=False))

    def shape(tensor: Tensor) -> tuple[int, ...]:
        first = tensor._replace(layer=None if tensor.layer is None else 0)
        return tensor.stored_shape(first.of(ours).shape) if tensor.path else (config.embed_dim,)

    return {tensor: shape(tensor) for tensor in found}


def to_fields(config: ModelConfig) -> dict[str, Any]:
    """What config.json says of a model: its class, its shape and what of the class's choices it takes.

    Raises:
      InputError: no class computes what the model does.
    """
    row = class_of(config)
    whole = dataclasses.replace(config, head_dim=config.head_width)
    return {
        "architectures": [row.name],
        "model_type": row.model_type,
        **row.fixed,
        **{theirs: getattr(whole, ours) for ours, theirs in _SIZES.items()},
        row.norm_eps: config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        "rope_theta": config.rope_theta,  # transformers 4 and 5 both read it and torch_dtype by these names
        "torch_dtype": config.param_dtype,
    }


def from_fields(fields: dict[str, Any]) -> ModelConfig:
    """The inverse of `to_fields`. Fields that change no logits, dropout among them, are not looked at.

    Raises:
      InputError: an unknown class, a missing field, a wrong type, or a choice that our decoder has not.
    """
    row = _row(fields)
    fields = {**row.fixed, **row.absent, **fields}
    for name, value in {**row.fixed, "quantization_config": None, "partial_rotary_factor": None}.items():
        found = fields.get(name)
        require(found == value, f"{name}={_show(found)}: must be {value!r} in a {row.name} that our decoder computes")
    kinds = fields.get("layer_types")
    require(
        kinds is None or (isinstance(kinds, list) and all(kind == "full_attention" for kind in kinds)),
        f"layer_types={_show(kinds)}: must be full_attention in every layer, our decoder has no other",
    )
    values = {ours: _typed(fields, theirs, int, theirs in _MAY_BE_NULL) for ours, theirs in _SIZES.items()}
    if values["num_kv_heads"] is None:
        values["num_kv_heads"] = values["num_heads"]
    if values["head_dim"] is not None and values["head_dim"] * values["num_heads"] == values["embed_dim"]:
        values["head_dim"] = None
    return ModelConfig(
        **values,
        **row.implies,
        norm_eps=_typed(fields, row.norm_eps, float),
        tied_embeddings=_typed(fields, "tie_word_embeddings", bool),
        rope_theta=_rope_theta(fields),
    )


def _row(fields: dict[str, Any]) -> Published:
    names = fields.get("architectures")
    name = names[0] if isinstance(names, list) and len(names) == 1 else None
    row = CLASSES.get(name) if isinstance(name, str) else None
    if row is None:
        raise InputError(f"architectures={_show(names)}: must be one of {', '.join(CLASSES)}")
    kind = fields.get("model_type")
    require(kind == row.model_type, f"model_type={_show(kind)}: must be '{row.model_type}' for {row.name}")
    return row


def _typed(fields: dict[str, Any], name: str, kind: type, may_be_null: bool = False) -> Any:
    require(name in fields, f"{name} is missing: give it, {kind.__name__}")
    value = fields[name]
    if may_be_null and value is None:
        return None
    fits = type(value) is kind or (kind is float and type(value) is int)
    require(fits, f"{name}={_show(value)}: must be {kind.__name__}")
    if kind is not float:
        return value
    require(not abs(value) > _LARGEST, f"{name}={_show(value)}: must be at most {_LARGEST}")
    return float(value)


def _rope_theta(fields: dict[str, Any]) -> float:
    """The base of the rotary wavelengths, in transformers 4's place for it or in 5's."""
    found = []
    for name in ("rope_parameters", "rope_scaling"):
        rope = fields.get(name) or {}
        known = isinstance(rope, dict) and rope.keys() <= {"rope_theta", "rope_type", "type"}
        require(
            known and all(kind == "default" for name, kind in rope.items() if name != "rope_theta"),
            f"{name}={_show(rope)}: must be null or have rope_type 'default' and rope_theta alone: our decoder scales "
            "no positions",
        )
        found.append(rope)
    thetas = [_typed(rope, "rope_theta", float) for rope in (*found, fields) if rope.get("rope_theta") is not None]
    require(len(set(thetas)) < 2, f"rope_theta={' and '.join(map(str, thetas))}: must be the same in every place")
    return thetas[0] if thetas else _DEFAULT_THETA


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
