"""Loads folders that `tests/write_huggingface.py` wrote into the real transformers: `make transformers`.

    pip install numpy torch==2.13.0 transformers==5.23.0
    python tests/check_transformers.py FOLDER …

Compares logits in float32 with those in each folder's expected.npz, and saves the model again, by transformers, in
resaved/ below it. Exit code 1: logits differ by more than 1e-4, or tensors are missing, unexpected or newly made.
"""
# pyright: reportMissingImports=false

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

ATOL = 1e-4


def check(folder: Path) -> bool:
    """Prints the folder's line of the table; whether it passed."""
    expected = np.load(folder / "expected.npz")
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {name: found for name, found in info.items() if found}
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(expected["tokens"])).logits.numpy()
    difference = float(np.abs(logits - expected["logits"]).max())
    if model.generation_config.eos_token_id != 1 or model.config.max_position_embeddings != 64:
        problems["config"] = "eos_token_id or max_position_embeddings are not those written"
    count = sum(parameter.numel() for parameter in model.parameters())
    shards = len(list(folder.glob("*.safetensors")))
    print(
        f"{folder.name:24} {type(model).__name__:22} {count:>9,} {shards:>6} {np.abs(logits).max():>8.2f} "
        f"{difference:>10.2e}  {problems or 'none'}"
    )
    stored = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    stored.save_pretrained(folder / "resaved", max_shard_size="30KB")
    return difference <= ATOL and not problems


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
