"""Corrupts checkpoints and token shards at random and prints what is reported: python -m tests.corrupt --count=100.

Each row is one damage to one file of a finished run or of its tokens. Reported means: training again in the folder
either says what is damaged and goes on from an older checkpoint, or ends with one line; and what it then has is, bit by
bit, what the undisturbed run had.
"""

import argparse
import dataclasses
import io
import random
import shutil
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxopt_lm.config import CheckpointConfig, DataConfig, EvalConfig, LoggingConfig, TrainConfig
from jaxopt_lm.errors import InputError
from jaxopt_lm.optimizers.schedules import WarmupCosineConfig
from jaxopt_lm.training import train
from jaxopt_lm.training.saved_run import read_run
from tests.conftest import TINY_MODEL, timeless, write_tokens

KINDS = ("bit flip", "truncated", "emptied", "missing", "zeroed block")


def corruptible(folder: Path) -> list[Path]:
    """The files below a folder that hold something."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def corrupt(path: Path, kind: str, rng: random.Random) -> str:
    """Damages a file; says how."""
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    if kind == "missing":
        path.unlink()
        return ""
    if kind == "bit flip":
        bit = rng.randrange(8)
        content[at] ^= 1 << bit
        detail = f"bit {bit} of byte {at}"
    elif kind == "zeroed block":
        content[at : at + 512] = bytes(255 - b if b == 0 else 0 for b in content[at : at + 512])
        detail = f"from byte {at}"
    else:
        content = content[: at if kind == "truncated" else 0]
        detail = f"to {len(content)} bytes"
    path.write_bytes(content)
    return detail


def small_run(folder: Path) -> TrainConfig:
    """A finished run of 12 steps with three checkpoints, and its tokens, below `folder`."""
    config = TrainConfig(
        workdir=str(folder / "run"),
        model=dataclasses.replace(TINY_MODEL, num_layers=1),
        data=DataConfig(vocab_size=64, tokens_dir=str(write_tokens(folder / "tokens"))),
        schedule=WarmupCosineConfig(warmup_steps=5),
        eval=EvalConfig(every_steps=12, batch_size=4, max_batches=2),
        checkpoint=CheckpointConfig(every_steps=4, keep_last=3),
        logging=LoggingConfig(every_steps=4, tensorboard=False),
        num_train_steps=12,
        global_batch_size=8,
        length=16,
    )
    quiet(config)
    return config


def quiet(config: TrainConfig) -> str:
    """Trains; what it said."""
    output = io.StringIO()
    train(config, Console(file=output, width=1000))
    return output.getvalue()


def trial(pristine: TrainConfig, folder: Path, rng: random.Random) -> tuple[str, str, str, bool]:
    """One damage in a copy of the run: the file, how, what was reported, and whether that was right."""
    shutil.copytree(Path(pristine.workdir).parent, folder)
    config = dataclasses.replace(
        pristine,
        workdir=str(folder / "run"),
        data=dataclasses.replace(pristine.data, tokens_dir=str(folder / "tokens")),
    )
    newest = Path(config.workdir, "checkpoints", "12")
    path = rng.choice(corruptible(rng.choice([newest, newest, Path(config.data.tokens_dir)])))
    kind = rng.choice(KINDS)
    detail = corrupt(path, kind, rng)
    name = path.relative_to(folder).as_posix()
    try:
        lines = [line for line in quiet(config).splitlines() if "warning: checkpoint 12" in line]
        report, right = (lines or ["NOTHING"])[0], bool(lines) and same(config, pristine)
    except InputError as error:
        report = f"error: {error}"
        right = "tokens" in name and len(str(error).splitlines()) == 1
    return name, f"{kind} {detail}", report.replace(f"{folder}/", ""), right


def same(config: TrainConfig, pristine: TrainConfig) -> bool:
    """Whether two runs ended bit by bit alike."""
    one, other = (jax.tree.leaves(read_run(each.workdir).state) for each in (config, pristine))
    alike = all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return alike and timeless(config.workdir) == timeless(pristine.workdir)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; 1 where a damage went unreported."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        pristine, rng = small_run(folder / "pristine"), random.Random(options.seed)
        table, reported = Table("file", "damage", "reported"), 0
        for number in range(options.count):
            name, damage, report, right = trial(pristine, folder / str(number), rng)
            shutil.rmtree(folder / str(number))
            table.add_row(name, damage, report if right else f"WRONG: {report}")
            reported += right
    Console(width=200).print(table)
    print(f"{reported} of {options.count} reported")
    return int(reported < options.count)


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "standard")  # the tests' strictness is not optax's
    with tempfile.TemporaryDirectory() as compiled:
        jax.config.update("jax_compilation_cache_dir", compiled)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        sys.exit(main())
