"""The shape of a decoder and the named presets. Pure Python: reading a config loads neither jax nor flax."""

import dataclasses
from typing import Literal

from jaxopt_lm.errors import InputError, require

DType = Literal["float32", "bfloat16", "float64"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only transformer: pre-norm, rotary positions, no biases. Every field is structure."""

    vocab_size: int = 32128
    """Rows of the embedding and columns of the head; at least the vocabulary of the tokens."""
    num_layers: int = 12
    """Transformer blocks."""
    embed_dim: int = 1024
    """Width of the residual stream."""
    num_heads: int = 16
    """Query heads."""
    num_kv_heads: int = 16
    """Key and value heads; fewer than num_heads is grouped-query attention."""
    head_dim: int | None = None
    """Width of a head; even, for the rotary halves. None: embed_dim / num_heads."""
    mlp_dim: int = 4096
    """Hidden width of the MLP."""
    mlp: Literal["gelu", "swiglu"] = "gelu"
    """gelu: down(gelu(up x)), exact GELU. swiglu: down(silu(gate x) * up x)."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Both have a scale and no bias; layernorm subtracts the mean."""
    norm_eps: float = 1e-5
    """Added to the variance (mean square) inside the root."""
    qk_norm: Literal["none", "full", "per_head"] = "full"
    """Norm of queries and keys: none; over all heads at once (OLMo); over each head with one shared scale (Qwen3)."""
    tied_embeddings: bool = False
    """Use the embedding, transposed, as the head."""
    rope_theta: float = 1e4
    """Base of the rotary wavelengths."""
    init: Literal["depth_scaled", "normal"] = "depth_scaled"
    """depth_scaled: OLMo's, truncated at 3 sigma, 1/sqrt(fan in), block outputs also over sqrt(2 * layer).
    normal: every matrix from a normal of init_std."""
    init_std: float = 0.02
    """Standard deviation of init=normal; depth_scaled does not read it."""
    attention_inverse_layer_scale: bool = False
    """Divide the attention logits of layer l by l, counted from 1."""
    scan_layers: bool = False
    """Stack the layers' parameters and scan over them: one layer is compiled. False unrolls: 1.15x faster on a CPU.
    The initial values and the numbers are the same."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass computes anew instead of keeping: none: nothing, gathered weights stay too; dots: all but
    the products with weights; full: all but each block's input. The numbers are the same."""
    param_dtype: DType = "float32"
    """Dtype in which parameters are kept."""
    compute_dtype: DType = "bfloat16"
    """Dtype of activations and matrix products; norms, attention weights and logits accumulate in float32 or wider."""

    def __post_init__(self):
        for name in ("vocab_size", "num_layers", "embed_dim", "num_heads", "num_kv_heads", "mlp_dim"):
            most = 10_000 if name == "num_layers" else 2**24
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise InputError(f"model.{name}={value}: must be at least 1 and at most {most}")
        require(
            self.head_dim is not None or self.embed_dim % self.num_heads == 0,
            f"model.num_heads={self.num_heads}: must divide model.embed_dim={self.embed_dim}, or give model.head_dim",
        )
        require(
            2 <= self.head_width <= 2**24 and self.head_width % 2 == 0,
            f"model.head_dim={self.head_width}: must be even and positive, at most 2^24, for the rotary halves",
        )
        require(
            self.num_heads % self.num_kv_heads == 0,
            f"model.num_kv_heads={self.num_kv_heads}: must divide model.num_heads={self.num_heads}",
        )
        for name in ("norm_eps", "rope_theta", "init_std"):
            value = getattr(self, name)
            if not 0 < value <= 1e38:
                raise InputError(f"model.{name}={value}: must be positive and at most 1e38")

    @property
    def head_width(self) -> int:
        """Width of a head: head_dim, or embed_dim / num_heads."""
        return self.embed_dim // self.num_heads if self.head_dim is None else self.head_dim


_OLMO = ModelConfig(scan_layers=True)
_QWEN3 = ModelConfig(
    scan_layers=True,
    vocab_size=32000,
    mlp="swiglu",
    norm="rmsnorm",
    norm_eps=1e-6,
    qk_norm="per_head",
    init="normal",
)


def _sized(family: ModelConfig, num_layers: int, embed_dim: int, mlp_dim: int) -> ModelConfig:
    heads = embed_dim // 64
    return dataclasses.replace(
        family, num_layers=num_layers, embed_dim=embed_dim, mlp_dim=mlp_dim, num_heads=heads, num_kv_heads=heads
    )


def _for_cpus(family: ModelConfig, mlp_dim: int) -> ModelConfig:
    small = _sized(family, 4, 128, mlp_dim)
    return dataclasses.replace(small, vocab_size=4096, scan_layers=False, compute_dtype="float32")


PRESETS = {
    # OLMo-style, arXiv 2407.07972: width x depth, MLP 4x, T5 vocabulary of 32100 padded to 32128.
    "150m": _sized(_OLMO, 12, 1024, 4096),
    "300m": _sized(_OLMO, 24, 1024, 4096),
    "600m": _sized(_OLMO, 24, 1408, 5632),
    "1.2b": _sized(_OLMO, 24, 2048, 8192),
    # Qwen3-style, SwiGLU, untied vocabulary of 32000. Only 134m is published; the other three shapes are our choice.
    "83m": _sized(_QWEN3, 12, 576, 1536),
    "134m": _sized(_QWEN3, 12, 768, 2048),
    "500m": _sized(_QWEN3, 21, 1280, 3456),
    "1b": _sized(_QWEN3, 17, 2048, 5504),
    # For two cores, 1.8 M parameters: those of configs/quickstart.py and configs/text.py.
    "quickstart": _for_cpus(_OLMO, 512),
    "text": _for_cpus(_QWEN3, 344),
}


def preset(name: str, **changes) -> ModelConfig:
    """The `ModelConfig` called `name` in `PRESETS`, with fields replaced by `changes`.

    Raises:
      InputError: no preset has that name, or the changed fields do not fit together.
    """
    if name not in PRESETS:
        raise InputError(f"model preset '{name}': must be one of {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name], **changes)
