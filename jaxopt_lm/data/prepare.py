"""Turns a task into tokens on disk."""

import fcntl
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jaxopt_lm.data import tasks
from jaxopt_lm.data.tokens import MANIFEST, VOCABULARY, Manifest, token_dtype, write_split
from jaxopt_lm.errors import InputError, require

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]


def is_prepared(folder: Path, task: str, vocab_size: int) -> bool:
    """Whether `folder` already holds the tokens of this task with this vocabulary size.

    Raises:
      InputError: it holds other tokens, or a damaged manifest.
    """
    if not (folder / MANIFEST).exists():
        return False
    manifest = Manifest.read(folder)
    require(
        (manifest.task, manifest.vocab_size) == (task, vocab_size),
        f"{folder}: holds task {manifest.task} with vocab_size={manifest.vocab_size}, asked for {task} with "
        f"vocab_size={vocab_size}; give another folder",
    )
    return True


def prepare(task: str, folder: Path, vocab_size: int, progress: Progress = lambda items, *_: items) -> Manifest:
    """Writes the shards, the vocabulary and, last, the manifest of a task. Needs TensorFlow.

    Args:
      task: a name in `tasks.TASKS`.
      folder: made if missing; left as it is when it already holds these tokens.
      vocab_size: of the vocabulary.
      progress: wraps each split's documents, called with (documents, split, how many); for showing progress.

    Raises:
      InputError: unknown task, a size that cannot be made, or a folder that holds other tokens.
    """
    if is_prepared(folder, task, vocab_size):
        return Manifest.read(folder)
    require(folder != Path(), f"{folder}: is the working directory; give a folder for the tokens alone")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, must be a folder or not exist")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, and finds the work done
        if is_prepared(folder, task, vocab_size):
            return Manifest.read(folder)
        return _prepare(task, folder, vocab_size, progress)


def _prepare(task: str, folder: Path, vocab_size: int, progress: Progress) -> Manifest:
    source = tasks.make_task(task, folder, vocab_size)
    splits = {}
    for split in ("train", "validation"):
        documents = progress(tasks.documents(source, split), split, source.num_input_examples(split) or 0)
        splits[split] = write_split(folder, split, documents, vocab_size)
    manifest = Manifest(
        task=task,
        vocab_size=vocab_size,
        vocabulary_sha256=hashlib.sha256((folder / VOCABULARY).read_bytes()).hexdigest(),
        dtype=token_dtype(vocab_size).name,
        splits=splits,
    )
    manifest.write(folder)
    return manifest
