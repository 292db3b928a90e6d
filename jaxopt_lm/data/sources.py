"""Text in files as a seqio data source. Imports seqio and TensorFlow."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

import seqio
import tensorflow as tf

from jaxopt_lm.data.files import Corpus, Piece
from jaxopt_lm.data.find import split_kind

_PACKED = 8  # text is packed to an eighth of its size at the best


class TextFiles(seqio.DataSource):
    """Documents of a corpus: examples with one feature, `text`. Its shards are the corpus's pieces, in every split.

    A document belongs to `validation` where a hash of its text, as a number in [0, 1), is below `validation_fraction`,
    else to `train`.

    Attributes:
      corpus: whose documents they are.
      error: what is wrong with the text, after which no more of it comes; None where it is sound. TensorFlow would turn
        an exception into one of its own, and print it.
    """

    def __init__(self, corpus: Corpus, validation_fraction: float):
        super().__init__(splits=("train", "validation"))
        self.corpus, self._validation_fraction = corpus, validation_fraction
        self.pieces = corpus.pieces()
        self.error: Exception | None = None

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """No: a shard is a piece."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """The names of the pieces."""
        del split
        return [f"{piece.ranges[0].path}@{piece.ranges[0].start}" for piece in self.pieces]

    def sizes(self, split: str) -> list[float]:
        """The pieces' bytes of text, about."""
        share = self._validation_fraction if split == "validation" else 1 - self._validation_fraction
        return [piece.size * share for piece in self.pieces]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = False,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        """The documents of a split, or of its pieces `shard_info.index`, `+ num_shards`, …; never shuffled."""
        del shuffle, seed, sequence_length, use_cached, num_epochs
        first, every = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
        batches = tf.data.Dataset.from_generator(
            lambda: _batched(self._documents(split, self.pieces[first::every]), 64),
            output_signature=tf.TensorSpec((None,), tf.string),
        )
        return batches.unbatch().map(lambda text: {"text": text})

    def beginnings(self, num_bytes: int, num_pieces: int) -> Iterator[str]:
        """Training text, about `num_bytes`: from up to `num_pieces` pieces, of every file as much, or all that it has.

        Raises:
          InputError: a file cannot be read.
        """
        pieces = self.pieces[:: -(-len(self.pieces) // num_pieces)]
        ranges = [part for piece in pieces for part in piece.ranges]
        most = _level([part.size * (_PACKED if split_kind(part.path)[1] else 1) for part in ranges], num_bytes)
        for part in ranges:
            left = most
            for text in self._documents("train", [Piece((part,), part.size)]):
                yield text[:left].decode(errors="ignore")
                left -= len(text)
                if left <= 0:
                    break
            if self.error is not None:
                raise self.error

    def _documents(self, split: str, pieces: Sequence[Piece]) -> Iterator[bytes]:
        bound = int(self._validation_fraction * 2**64)
        try:
            for piece in pieces:
                for text in self.corpus.texts(piece):
                    encoded = text.encode()
                    held_out = int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big") < bound
                    if held_out == (split == "validation"):
                        yield encoded
        except Exception as error:
            self.error = error


def _batched(documents: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    """Lists of `size` documents, the last shorter: an element of a generator costs TensorFlow 0.2 ms."""
    while batch := list(itertools.islice(documents, size)):
        yield batch


def _level(sizes: Sequence[int], total: int) -> int:
    """The most to take of each, so that `total` is taken of all together where they have it."""
    left = total
    for index, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - index)
        if size > share:
            return share
        left -= size
    return total
