"""seqio tasks: which text, which vocabulary. Everything here imports TensorFlow when called, never before.

A task yields `targets`: one document's token ids, closed by the end-of-sequence token, and beside them
`targets_pretokenized`, its text. Vocabularies have T5's layout: pad 0, end of sequence 1, unknown 2, no beginning.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxopt_lm.data import tokens
from jaxopt_lm.errors import InputError

if TYPE_CHECKING:
    import seqio

MIN_VOCAB_SIZE = 300  # 256 bytes, three special pieces, and some pieces of text


def sotu_task(folder: Path, vocab_size: int) -> "seqio.Task":
    """State of the Union addresses, with a SentencePiece vocabulary trained on their training split.

    Leaves the prepared TFDS dataset and the vocabulary in `folder`; what is already there is used.
    """
    import contextlib
    import io

    import tensorflow_datasets as tfds

    from jaxopt_lm.data.sotu import Sotu

    tfds.disable_progress_bar()
    builder = Sotu(data_dir=folder / "tfds")
    with contextlib.redirect_stdout(io.StringIO()):  # it announces a download; there is none
        builder.download_and_prepare()
    vocabulary = folder / tokens.VOCABULARY
    if not _has_size(vocabulary, vocab_size):  # one of another size may be left from a preparation that was stopped
        texts = (bytes(example["text"]).decode() for example in builder.as_dataset("train").as_numpy_iterator())  # pyright: ignore
        tokens.write_atomically(vocabulary, train_vocabulary(texts, vocab_size))
    return _text_task(f"sotu_{vocab_size}", "sotu:1.0.0", folder / "tfds", vocabulary)


TASKS: dict[str, Callable[[Path, int], "seqio.Task"]] = {"sotu": sotu_task}


def make_task(name: str, folder: Path, vocab_size: int) -> "seqio.Task":
    """The task called `name` in `TASKS`, its data and vocabulary kept in `folder`.

    Raises:
      InputError: no task has that name, or its text cannot fill a vocabulary of that size.
    """
    if name not in TASKS:
        raise InputError(f"task '{name}': must be one of {', '.join(TASKS)}")
    return TASKS[name](folder, vocab_size)


def documents(task: "seqio.Task", split: str) -> Iterator[tuple[np.ndarray, int]]:
    """Each document's token ids, end of sequence included, and the bytes of its text, in a fixed order."""
    dataset = task.get_dataset(None, split, shuffle=False)
    for example in dataset.as_numpy_iterator():  # pyright: ignore[reportAttributeAccessIssue]
        yield np.asarray(example["targets"]), len(example["targets_pretokenized"])


def _text_task(name: str, tfds_name: str, data_dir: Path, vocabulary: Path) -> "seqio.Task":
    import functools

    import seqio

    seqio.TaskRegistry.remove(name)
    return seqio.TaskRegistry.add(
        name,
        source=seqio.TfdsDataSource(tfds_name=tfds_name, tfds_data_dir=os.fspath(data_dir)),  # pyright: ignore[reportArgumentType]
        preprocessors=[
            functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text"}),
            seqio.preprocessors.tokenize,
            seqio.preprocessors.append_eos,
        ],
        output_features={"targets": seqio.Feature(seqio.SentencePieceVocabulary(os.fspath(vocabulary), extra_ids=0))},
    )


def _has_size(vocabulary: Path, vocab_size: int) -> bool:
    import sentencepiece

    if not vocabulary.exists():
        return False
    try:
        return sentencepiece.SentencePieceProcessor(model_file=os.fspath(vocabulary)).vocab_size() == vocab_size
    except (RuntimeError, OSError):
        return False


def train_vocabulary(texts: Iterator[str], vocab_size: int) -> bytes:
    """A SentencePiece unigram model of T5's layout with byte fallback, trained paragraph by paragraph.

    Deterministic: the same text and size give the same bytes.

    Raises:
      InputError: the size is too small for the bytes and special pieces, or larger than the text can fill.
    """
    import io

    import sentencepiece

    if vocab_size < MIN_VOCAB_SIZE:
        raise InputError(
            f"vocab_size={vocab_size}: must be at least {MIN_VOCAB_SIZE}, for the bytes and special pieces"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
            sentence_iterator=(line for text in texts for line in text.splitlines() if line.strip()),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            byte_fallback=True,
            max_sentence_length=2**20,
            num_threads=2,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"vocab_size={vocab_size}: SentencePiece cannot make it from this text: {reason}") from None
    return model.getvalue()
