"""Which text becomes which tokens. Pure Python: reading a config loads neither TensorFlow nor jax."""

import dataclasses
import re
import typing
from typing import Any, Literal

from jaxopt_lm.errors import InputError, check_path, require

CC_ALL_32000_SHA256 = "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86"
"""Of T5's SentencePiece model, gs://t5-data/vocabs/cc_all.32000: 791,656 bytes, 32,000 pieces."""

TaskName = Literal["sotu", "c4", "fineweb", "text"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokensConfig:
    """A folder of tokens and what they are made from."""

    task: TaskName = "sotu"
    """sotu: State of the Union addresses, in the package. c4: c4/en:3.0.1 as TFDS prepares it. fineweb: its parquet
    files. text: your own .txt (a document is a paragraph, at most 64 KiB), .jsonl or .parquet (field `text`)."""
    files: str | None = None
    """Where the text is. c4: the TFDS data_dir. fineweb, text: a folder, a file or a pattern such as 'books/*.txt',
    local or an address that fsspec opens (hf://, s3://, gs://); .gz, .bz2, .xz and .zst are unpacked, hidden names left
    out. sotu: None."""
    max_train_files: int | None = None
    """Read only the first so many files (c4: shards) of training text, in the order of their names; None: all."""
    validation_fraction: float = 0.005
    """fineweb and text, which have no validation split: the share of documents held out, by a hash of their text, so
    equal documents fall on the same side. sotu and c4 have their own."""
    vocabulary: str | None = None
    """A SentencePiece model; None: one of vocab_size - extra_ids pieces is trained on the training text."""
    vocabulary_sha256: str | None = None
    """SHA-256 that the file `vocabulary` must have; None: any."""
    extra_ids: int = 0
    """Ids after the model's own pieces that no text contains; T5 counts 100."""
    vocab_size: int = 4096
    """Size of the vocabulary, extra_ids included; at most model.vocab_size."""
    tokens_dir: str = "tokens/sotu_4096"
    """Folder of prepared tokens; prepared on the spot when it holds none."""

    def __post_init__(self):
        tasks = typing.get_args(TaskName)
        require(self.task in tasks, f"data.task={self.task!r}: must be one of {', '.join(tasks)}")
        for name, low in (("vocab_size", 1), ("extra_ids", 0), ("max_train_files", 1)):
            value = getattr(self, name)
            if value is not None and not low <= value < 2**31:
                raise InputError(f"data.{name}={value}: must be at least {low}, below 2^31")
        require(
            self.extra_ids < self.vocab_size,
            f"data.extra_ids={self.extra_ids}: must be below data.vocab_size={self.vocab_size}",
        )
        require(
            0 < self.validation_fraction < 1,
            f"data.validation_fraction={self.validation_fraction}: must be between 0 and 1, both excluded",
        )
        for name in ("tokens_dir", "files", "vocabulary"):
            check_path(f"data.{name}", getattr(self, name))
            require(getattr(self, name) != "None", f"data.{name}='None': give './None' for a file of that name")
        wants = self.task != "sotu"
        require(
            bool(self.files) == wants,
            f"data.files={self.files!r}: "
            + (
                f"task {self.task} needs the place of its text"
                if wants
                else "task sotu brings its own text; leave it out"
            ),
        )
        sha256 = self.vocabulary_sha256
        require(
            sha256 is None or re.fullmatch("[0-9a-f]{64}", sha256) is not None,
            f"data.vocabulary_sha256={sha256!r}: must be 64 digits of 0-9a-f",
        )
        require(
            sha256 is None or self.vocabulary is not None,
            "data.vocabulary_sha256: is of the file data.vocabulary; give that too",
        )

    def identity(self) -> dict[str, Any]:
        """Every field but the folder of the tokens."""
        fields = dataclasses.fields(TokensConfig)
        return {field.name: getattr(self, field.name) for field in fields if field.name != "tokens_dir"}
