"""Evaluation: mean cross-entropy over the fixed windows of a split, whole and by how frequent the target is."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.data.batches import EvalBatches
from jaxopt_lm.data.tokens import TokenStore
from jaxopt_lm.optimizers import eval_params
from jaxopt_lm.training import sharding
from jaxopt_lm.training.loss import Batch
from jaxopt_lm.training.step import TrainState, make_eval_step, make_grouped_eval_step


class Evaluator:
    """Evaluates states of a run on the first windows of a split, always the same.

    The parameters are those that the optimizer says are to be evaluated, see `eval_params`.

    Args:
      config: of the run; `eval` and `length` say how much is read.
      store: the tokens.
      mesh: the devices.

    Raises:
      InputError: the store does not hold one whole window.
    """

    def __init__(self, config: TrainConfig, store: TokenStore, mesh: jax.sharding.Mesh):
        self._model, self._store, self._mesh = config.model, store, mesh
        self._batches = EvalBatches(
            store, batch_size=config.eval.batch_size, length=config.length, max_batches=config.eval.max_batches
        )
        self._step = jax.jit(make_eval_step(config.model))

    def __call__(self, state: TrainState) -> dict[str, float]:
        """`eval/loss` in nats per token, `eval/bits_per_byte` of text, and `eval/perplexity` where it is finite.

        Bytes are those of the whole split before the vocabulary's normalisation, which joins white space.
        """
        params = eval_params(state.opt_state, state.params)
        sums = [self._step(params, batch) for batch in self._placed()]
        ce, count = (math.fsum(float(x) for x in column) for column in zip(*sums, strict=True))
        return self._metrics(ce / count)

    def by_frequency(self, state: TrainState, counts: np.ndarray) -> tuple[dict[str, float], list["Decile"]]:
        """The same, and the loss of each tenth of the training text, its most frequent tokens first.

        Args:
          state: of the run.
          counts: how often each vocabulary entry occurs in the training text, shape [vocab_size].
        """
        groups = deciles(counts)
        group_of_token = np.full(self._model.vocab_size, 9, np.int32)
        group_of_token[: groups.size] = groups
        step = jax.jit(make_grouped_eval_step(self._model, 10))
        params = eval_params(state.opt_state, state.params)
        sums = [jax.device_get(step(params, batch, group_of_token)) for batch in self._placed()]
        ce, targets = (np.sum(np.asarray(column, np.float64), axis=0) for column in zip(*sums, strict=True))
        rows = [
            Decile(
                entries=int(np.sum(groups == i)),
                train_share=float(counts[groups == i].sum() / counts.sum()),
                target_share=float(targets[i] / targets.sum()),
                loss=float(ce[i] / targets[i]) if targets[i] else None,
            )
            for i in range(10)
        ]
        return self._metrics(float(ce.sum() / targets.sum())), rows

    def _placed(self) -> Iterator[Batch]:
        for batch in self._batches:
            yield sharding.place(batch, self._mesh)

    def _metrics(self, loss: float) -> dict[str, float]:
        bits_per_byte = loss / math.log(2) / self._store.split.bytes_per_token
        perplexity = {"eval/perplexity": math.exp(loss)} if loss < 700 else {}  # beyond, exp overflows
        return {"eval/loss": loss, "eval/bits_per_byte": bits_per_byte} | perplexity


class Decile(NamedTuple):
    """A group of vocabulary entries and what the model loses on them.

    Attributes:
      entries: how many.
      train_share: of the training tokens.
      target_share: of the evaluated targets.
      loss: mean cross-entropy in nats; None where no target is among them.
    """

    entries: int
    train_share: float
    target_share: float
    loss: float | None


def deciles(counts: np.ndarray) -> np.ndarray:
    """The tenth of the text in which each vocabulary entry lies: 0 for the most frequent, 9 for the rarest, int32.

    Entries are laid end to end by falling frequency; an entry belongs to the tenth that holds its middle. Very frequent
    entries are wider than a tenth and may leave one empty. Entries that never occur are in the last.

    Args:
      counts: occurrences of each entry, shape [vocab_size], not all zero.
    """
    order = np.argsort(-counts, kind="stable")
    ends = np.cumsum(counts[order])
    middles = (ends - counts[order] / 2) / ends[-1]
    groups = np.empty(counts.size, np.int32)
    groups[order] = np.minimum(10 * middles, 9)
    groups[counts == 0] = 9
    return groups
