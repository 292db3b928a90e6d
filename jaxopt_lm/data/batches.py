"""Batches of token windows, as pure functions of (seed, step).

A window is `length` consecutive tokens; window i starts at token i * length, so windows do not overlap and the tokens
left over at the end of the split belong to none. Training goes through exact permutations of all windows, a new one
each epoch; evaluation reads them in order.
"""

import typing
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from jaxopt_lm.data.tokens import TokenStore
from jaxopt_lm.errors import require


class _Windows(grain.sources.RandomAccessDataSource):
    def __init__(self, store: TokenStore, length: int):
        self._store, self._length = store, length

    def __len__(self) -> int:
        return len(self._store) // self._length

    def __getitem__(self, index) -> np.ndarray:
        return self._store.read(int(index) * self._length, self._length)

    def __repr__(self) -> str:
        return f"_Windows({len(self)} of {self._length} tokens)"


class TrainBatches:
    """`batches[step]`: int32 tokens (batch_size, length), the same for the same (seed, step) whatever was read before.

    A process that needs but some rows of every batch reads those alone.

    Args:
      store: the training tokens.
      seed: of the permutations.
      batch_size: windows in a batch; a batch may end one epoch and begin the next.
      length: tokens in a window.
      rows: those of each batch that are read, in this order; None: all.

    Raises:
      InputError: the store does not hold one whole window.
    """

    def __init__(
        self, store: TokenStore, *, seed: int, batch_size: int, length: int, rows: Sequence[int] | None = None
    ):
        windows = _Windows(store, length)
        require(len(windows) > 0, f"length={length}: must be at most the {len(store)} tokens of the split")
        self.batches_per_epoch = len(windows) / batch_size
        stream = grain.MapDataset.source(windows).seed(seed).shuffle().repeat()
        rows = range(batch_size) if rows is None else rows

        def batch(step: int) -> np.ndarray:
            return np.stack([typing.cast(np.ndarray, stream[int(step) * batch_size + row]) for row in rows])

        self._dataset = grain.MapDataset.range(2**31).map(batch)

    def __getitem__(self, step: int) -> np.ndarray:
        batch = self._dataset[step]
        assert batch is not None
        return batch

    def from_step(self, step: int) -> Iterator[np.ndarray]:
        """Batches step, step + 1, …, the next two read ahead in a background thread."""
        return iter(self._dataset[step:].to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))


class EvalBatches:
    """The first windows of a split, in order: iterates over (tokens, is_target), both (batch_size, length).

    The last batch is filled up with rows whose float32 `is_target` is 0 everywhere, so every window counts once.

    Args:
      store: the validation tokens.
      batch_size: windows in a batch.
      length: tokens in a window.
      max_batches: at most so many; None: all windows.
      rows: those of each batch that are read; None: all.

    Raises:
      InputError: the store does not hold one whole window.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        batch_size: int,
        length: int,
        max_batches: int | None,
        rows: Sequence[int] | None = None,
    ):
        self._windows, self._batch_size, self._length = _Windows(store, length), batch_size, length
        self._rows = range(batch_size) if rows is None else rows
        count = len(self._windows)
        require(count > 0, f"length={length}: must be at most the {len(store)} tokens of the validation split")
        self._count = count if max_batches is None else min(count, max_batches * batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, self._count, self._batch_size):
            tokens = np.zeros((len(self._rows), self._length), np.int32)
            is_target = np.zeros(tokens.shape, np.float32)
            for place, row in enumerate(self._rows):
                if first + row < self._count:
                    tokens[place], is_target[place] = self._windows[first + row], 1
            yield tokens, is_target
