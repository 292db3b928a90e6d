"""seqio tasks: which text, which vocabulary. Everything here imports TensorFlow when called, never before.

A task yields `targets`: one document's token ids, closed by the end-of-sequence token, and beside them
`targets_pretokenized`, its text. A vocabulary trained here has T5's layout: pad 0, end of sequence 1, unknown 2, no
beginning; one that is given needs an end of sequence.
"""

import contextlib
import functools
import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxopt_lm.data import places
from jaxopt_lm.data.config import TaskName, TokensConfig
from jaxopt_lm.data.find import Files, local_files
from jaxopt_lm.data.tokens import VOCABULARY
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.files import sha256_of

if TYPE_CHECKING:
    import seqio

MIN_VOCAB_SIZE = 300  # 256 bytes, three special pieces, and some pieces of text
VOCABULARY_BYTES = 2**26
VOCABULARY_SHARDS = 256
SENTENCE_BYTES = 2**14
_UNKNOWN = "\u2585"  # how SentencePiece shows unknown characters


def _sotu(config: TokensConfig) -> "seqio.DataSource":
    """State of the Union addresses; the TFDS dataset is built in the folder of the tokens."""
    import seqio
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from jaxopt_lm.data.sotu import Sotu

    folder = Path(config.tokens_dir, "tfds")
    for left in folder.glob("*/incomplete.*"):  # by a preparation that was killed
        shutil.rmtree(left)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it announces a download; there is none
            Sotu(data_dir=folder).download_and_prepare()
    except (tf.errors.OpError, OSError) as error:
        raise InputError(f"{folder}: cannot be written: {error}; make room and run the same command again") from None
    return seqio.TfdsDataSource("sotu:1.0.0", os.fspath(folder), read_only=True)


def _c4(config: TokensConfig) -> "seqio.DataSource":
    """C4, English, as TFDS prepares it: c4/en:3.0.1 below the data_dir."""
    folder = places.c4_folder(config)
    import seqio
    import tensorflow_datasets as tfds

    shards = tfds.builder_from_directory(folder).info.splits["train"].num_shards
    take = f"train[:{config.max_train_files}shard]" if (config.max_train_files or shards) < shards else "train"
    splits = {"train": take, "validation": "validation"}
    return seqio.TfdsDataSource("c4/en:3.0.1", config.files, splits, read_only=True)


def _files(config: TokensConfig) -> "seqio.DataSource":
    corpus = places.corpus(config)
    from jaxopt_lm.data.sources import TextFiles

    return TextFiles(corpus, config.validation_fraction)


SOURCES: dict[TaskName, Callable[[TokensConfig], "seqio.DataSource"]] = {
    "sotu": _sotu,
    "c4": _c4,
    "fineweb": _files,
    "text": _files,
}


def make_source(config: TokensConfig) -> "seqio.DataSource":
    """The text of a config.

    Raises:
      InputError: it is not where the config says.
    """
    return SOURCES[config.task](config)


def given_vocabulary(config: TokensConfig) -> bytes | None:
    """The SentencePiece model that the config names; None where one is to be trained.

    Raises:
      InputError: it is not what the config says, or the vocabulary to be trained is too small.
    """
    if config.vocabulary is not None:
        return _read_vocabulary(config)
    pieces = config.vocab_size - config.extra_ids
    require(
        pieces >= MIN_VOCAB_SIZE,
        f"vocab_size={pieces}: must be at least {MIN_VOCAB_SIZE}, for the bytes and special pieces",
    )
    return None


def make_task(config: TokensConfig, source: "seqio.DataSource") -> "seqio.Task":
    """The registered seqio task of a config, with the vocabulary in the folder of the tokens."""
    import seqio

    name = f"jaxopt_lm_{config.task}_{config.vocab_size}"
    seqio.TaskRegistry.remove(name)
    return seqio.TaskRegistry.add(
        name,
        source=source,  # pyright: ignore[reportArgumentType]
        preprocessors=[
            functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text"}),
            seqio.preprocessors.tokenize,
            seqio.preprocessors.append_eos,
        ],
        output_features={
            "targets": seqio.Feature(
                seqio.SentencePieceVocabulary(
                    os.fspath(Path(config.tokens_dir, VOCABULARY)), extra_ids=config.extra_ids
                )
            )
        },
    )


def shard_sizes(source: "seqio.DataSource", split: str) -> list[float]:
    """About how many bytes of text every shard of a split holds."""
    from jaxopt_lm.data.sources import TextFiles

    if isinstance(source, TextFiles):
        return source.sizes(split)
    return [os.path.getsize(name) for name in source.list_shards(split)]


def text_files(config: TokensConfig, source: "seqio.DataSource") -> Files:
    """The files that hold the text."""
    from jaxopt_lm.data.sources import TextFiles

    if isinstance(source, TextFiles):
        return source.corpus.files
    if config.task == "sotu":
        return local_files(places.speech_files())
    return local_files(name for split in source.splits for name in source.list_shards(split))


def documents(task: "seqio.Task", split: str, shard: int) -> Iterator[tuple[np.ndarray, int]]:
    """The token ids of each document of a source shard, end of sequence included, and the bytes of its text.

    Raises:
      InputError: the text cannot be read.
    """
    for example in _read(task, task.source, split, shard):
        yield np.asarray(example["targets"]), len(example["targets_pretokenized"])


def _read(provider: Any, source: "seqio.DataSource", split: str, shard: int) -> Iterator[dict[str, Any]]:
    """Examples of a shard of a task or of its source, in their order."""
    import seqio
    import tensorflow as tf

    info = seqio.ShardInfo(index=shard, num_shards=len(source.list_shards(split)))
    options = {"sequence_length": None} if provider is not source else {}
    try:
        dataset = provider.get_dataset(split=split, shuffle=False, shard_info=info, **options)
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        name = source.list_shards(split)[shard]
        raise InputError(f"{name}: cannot be read: {error.message}; replace the file") from None
    if error := getattr(source, "error", None):
        raise error


def _read_vocabulary(config: TokensConfig) -> bytes:
    """The bytes of the SentencePiece model that the config names, checked."""
    path, wanted = Path(config.vocabulary or ""), config.vocabulary_sha256
    require(path.is_file(), f"data.vocabulary={path}: no such file; give a SentencePiece model")
    content = path.read_bytes()
    sha256 = sha256_of(content)
    require(
        wanted in (None, sha256),
        f"data.vocabulary={path}: its SHA-256 is {sha256}, must be {wanted}; get the file again, or set "
        "data.vocabulary_sha256=None to use this one",
    )
    found = _processor(content, str(path))
    size = found.vocab_size() + config.extra_ids
    require(
        size == config.vocab_size,
        f"data.vocab_size={config.vocab_size}: {path} has {found.vocab_size()} pieces and "
        f"data.extra_ids={config.extra_ids}; set data.vocab_size={size}",
    )
    require(found.eos_id() >= 0, f"data.vocabulary={path}: has no end-of-sequence piece; give another")
    return content


def _processor(content: bytes, name: str) -> Any:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)  # the constructor takes no bytes for no model
    except (RuntimeError, OSError):
        raise InputError(f"data.vocabulary={name}: not a SentencePiece model; give another file") from None
    return processor


def vocabulary_texts(source: "seqio.DataSource") -> Iterator[str]:
    """Training text of up to `VOCABULARY_SHARDS` shards, `VOCABULARY_BYTES` together: the beginnings of their files."""
    from jaxopt_lm.data.sources import TextFiles

    if isinstance(source, TextFiles):
        yield from source.beginnings(VOCABULARY_BYTES, VOCABULARY_SHARDS)
        return
    count = len(source.list_shards("train"))
    shards = range(0, count, -(-count // VOCABULARY_SHARDS))
    for shard in shards:
        left = VOCABULARY_BYTES // len(shards)
        for example in _read(source, source, "train", shard):
            yield bytes(example["text"][:left]).decode(errors="ignore")
            left -= len(example["text"])
            if left <= 0:
                break


def train_vocabulary(texts: Iterator[str], vocab_size: int) -> bytes:
    """A SentencePiece unigram model of T5's layout with byte fallback, trained line by line.

    Deterministic: the same text and size give the same bytes. What SentencePiece still caps: the rarest .05% of all
    characters are spelled in bytes, pieces have at most 16 characters, and candidates are the million most frequent.

    Raises:
      InputError: there is no text, or the size is too small for the bytes and special pieces, or larger than the text
        can fill; or what `texts` raises.
    """
    import sentencepiece

    model, wrong, some = io.BytesIO(), [], False

    def sentences() -> Iterator[str]:
        nonlocal some
        try:
            for part in itertools.chain.from_iterable(map(_sentences, texts)):
                some = True
                yield part
        except BaseException as error:  # SentencePiece would make its own of it
            wrong.append(error)

    try:
        sentencepiece.SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
            sentence_iterator=sentences(),
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
        if not some or "all_chars_count" in reason:  # nothing is left of it when it is normalised
            reason = "there is none in the training split; give more text, or a smaller data.validation_fraction"
        wrong.append(InputError(f"vocab_size={vocab_size}: SentencePiece cannot make it from this text: {reason}"))
    if wrong:
        raise wrong[0]
    return model.getvalue()


def _sentences(text: str) -> Iterator[str]:
    """The lines of a text as SentencePiece trains on all of them.

    It skips, silently, lines beyond a limit and those with its sign for unknown characters; words of 100,000 characters
    take it hours, or end in NaN. So long lines are cut, at white space where there is some.
    """
    for line in filter(str.strip, text.replace(_UNKNOWN, " ").splitlines()):
        most, start = len(line) if len(line.encode()) <= SENTENCE_BYTES else SENTENCE_BYTES // 4, 0
        while start < len(line):
            end = start + most
            space = line.rfind(" ", start + 1, end) if end < len(line) else -1
            part, start = line[start : space if space > 0 else end], space if space > 0 else end
            if part.strip():
                yield part
