"""Writes the folders that `tests/check_transformers.py` loads, and reads back what it saved: `make transformers`.

python -m tests.write_huggingface --out=FOLDER            # one folder a model, each with tokens and our logits
python -m tests.write_huggingface --out=FOLDER --read     # each resaved/ in them has the parameters that were written
"""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

import jax
import numpy as np

from jaxopt_lm import model
from jaxopt_lm.model import ModelConfig, huggingface

RECORDED = Path(__file__).parent / "golden" / "model" / "qwen3_tied"

# No two sizes are equal, so that a wrong transpose or reshape is a wrong shape or other numbers.
_QWEN3 = ModelConfig(
    vocab_size=50,
    num_layers=3,
    embed_dim=24,
    num_heads=6,
    num_kv_heads=2,
    head_dim=10,
    mlp_dim=28,
    mlp="swiglu",
    norm="rmsnorm",
    norm_eps=1e-6,
    qk_norm="per_head",
    rope_theta=5e5,
    compute_dtype="float32",
)
_LLAMA = dataclasses.replace(_QWEN3, qk_norm="none", rope_theta=1e4)
_OLMO = dataclasses.replace(_LLAMA, mlp="gelu", norm="layernorm", norm_eps=1e-5, num_kv_heads=6, head_dim=8)
MODELS = {
    "qwen3": _QWEN3,
    "qwen3_tied": dataclasses.replace(_QWEN3, tied_embeddings=True),
    "llama": _LLAMA,
    "llama_tied": dataclasses.replace(_LLAMA, tied_embeddings=True, head_dim=None),
    "starcoder2": _OLMO,
    "starcoder2_grouped_tied": dataclasses.replace(_OLMO, num_kv_heads=3, head_dim=10, tied_embeddings=True),
}
SHARD_BYTES = 20_000


def random_params(config: ModelConfig, seed: int = 0) -> model.Params:
    """Parameters none of which is special, scales of norms included, that give logits of size one and more."""
    rng = np.random.default_rng(seed)

    def draw(leaf, label):
        return (rng.standard_normal(leaf.shape) * 0.3 + (label.role == "norm")).astype(leaf.dtype)

    return jax.tree.map(draw, model.shapes(config), model.labels(config))


@functools.partial(jax.jit, static_argnums=0)
def logits(config: ModelConfig, params: model.Params, tokens) -> jax.Array:
    """Our logits, from products in full float32."""
    with jax.default_matmul_precision("highest"):
        return model.logits(config, params, tokens)


def cases() -> dict[str, tuple[ModelConfig, model.Params]]:
    """What is written: the recorded folder as read, and every model of random weights, half of them stacked."""
    recorded = dataclasses.replace(huggingface.read_config(RECORDED), compute_dtype="float32")
    found = {"recorded": (recorded, huggingface.read_params(RECORDED, recorded))}
    for seed, (name, config) in enumerate(MODELS.items()):
        config = dataclasses.replace(config, scan_layers=seed % 2 == 1)
        found[name] = (config, random_params(config, seed))
    low = dataclasses.replace(MODELS["qwen3"], param_dtype="bfloat16")
    return found | {"qwen3_bfloat16": (low, random_params(low, 100))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--read", action="store_true")
    arguments = parser.parse_args()
    failed = 0
    for name, (config, params) in cases().items():
        folder = arguments.out / name
        if arguments.read:
            again = huggingface.read_params(folder / "resaved", config)
            same = jax.tree.all(jax.tree.map(np.array_equal, again, params))
            print(f"{name}: what transformers saved is {'equal' if same else 'DIFFERENT'}")
            failed += not same
        else:
            huggingface.write(folder, config, params, max_shard_bytes=SHARD_BYTES, eos_token_id=1, max_length=64)
            tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 40))
            np.savez(folder / "expected.npz", tokens=tokens, logits=logits(config, params, tokens))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
