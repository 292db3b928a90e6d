"""Loads folders that `tests/write_huggingface.py` wrote into the real transformers: `make transformers`.

    pip install numpy torch==2.13.0 transformers==5.23.0
    python tests/check_transformers.py FOLDER …

Compares logits in float32 with those in each folder's expected.npz, and the tokenizer's ids and their text with
expected.json where there is one; saves model and tokenizer again, by transformers, in resaved/ below it. Exit code 1:
logits differ by more than 1e-4, an id or a character differs, tensors are missing, unexpected or newly made, or a
special token is not SentencePiece's.
"""
# pyright: reportMissingImports=false

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ATOL = 1e-4


def check(folder: Path) -> bool:
    """Prints the folder's line of the table; whether it passed."""
    expected = np.load(folder / "expected.npz")
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {name: found for name, found in info.items() if found}
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(expected["tokens"])).logits.numpy()
    difference = float(np.abs(logits - expected["logits"]).max())
    written = (model.generation_config.eos_token_id, model.config.pad_token_id, model.config.max_position_embeddings)
    if written != (1, 0, 64):
        problems["config"] = f"eos_token_id, pad_token_id, max_position_embeddings are {written}, not (1, 0, 64)"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    problems |= tokenizer_problems(folder, tokenizer, model.config.vocab_size)
    count = sum(parameter.numel() for parameter in model.parameters())
    shards = len(list(folder.glob("*.safetensors")))
    print(
        f"{folder.name:24} {type(model).__name__:22} {count:>9,} {shards:>6} {np.abs(logits).max():>8.2f} "
        f"{difference:>10.2e}  {problems or 'none'}"
    )
    stored = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    stored.save_pretrained(folder / "resaved", max_shard_size="30KB")
    tokenizer.save_pretrained(folder / "resaved")
    return difference <= ATOL and not problems


def tokenizer_problems(folder: Path, tokenizer, vocab_size: int) -> dict[str, str]:
    """What AutoTokenizer's choice does otherwise than SentencePiece."""
    problems = {}
    special = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id)
    if special != (0, 1, 2, None) or len(tokenizer) > vocab_size:
        problems["tokenizer"] = f"pad, eos, unk, bos are {special}; {len(tokenizer)} ids of {vocab_size}"
    path = folder / "expected.json"
    expected = json.loads(path.read_text()) if path.exists() else {"texts": [], "ids": [], "decoded": []}
    ids = tokenizer(expected["texts"])["input_ids"] if expected["texts"] else []
    decoded = [tokenizer.decode(each) for each in ids]
    for name, found in (("ids", ids), ("decoded", decoded)):
        if wrong := [text for text, x, y in zip(expected["texts"], found, expected[name], strict=True) if x != y]:
            problems[name] = f"{len(wrong)} of {len(found)} texts, such as {wrong[0][:40]!a}"
    return problems


def main() -> int:
    transformers.logging.set_verbosity_warning()
    transformers.logging.disable_progress_bar()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    print(f"{'folder':24} {'class':22} {'params':>9} {'shards':>6} {'largest':>8} {'difference':>10}  problems")
    passed = [check(Path(name)) for name in sys.argv[1:]]
    print(f"{sum(passed)} of {len(passed)} passed")
    return 0 if passed and all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
