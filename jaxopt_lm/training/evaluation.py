"""Evaluation: mean cross-entropy over the fixed windows of a split, whole and by how frequent the target is."""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from rich.table import Table

from jaxopt_lm.config import MeshConfig, TrainConfig
from jaxopt_lm.data.batches import EvalBatches
from jaxopt_lm.data.tokens import VOCABULARY, TokenStore
from jaxopt_lm.errors import require, writing
from jaxopt_lm.files import write_atomically
from jaxopt_lm.training import sharding
from jaxopt_lm.training.loss import Batch
from jaxopt_lm.training.program import Program
from jaxopt_lm.training.saved_run import read_run
from jaxopt_lm.training.step import TrainState, make_grouped_eval_step


class Evaluator:
    """Evaluates states of a run, or of a population, on the first windows of a split, always the same.

    The parameters are those that the optimizer says are to be evaluated, see `optimizers.eval_params`.

    Args:
      program: of the run.
      config: of the run; `eval` and `length` say how much is read.
      store: the tokens.

    Raises:
      InputError: the store does not hold one whole window.
    """

    def __init__(self, program: Program, config: TrainConfig, store: TokenStore):
        self._program, self._model, self._store = program, config.model, store
        self._rows = sharding.Rows(program.mesh, config.eval.batch_size)
        self._batches = EvalBatches(
            store,
            batch_size=config.eval.batch_size,
            length=config.length,
            max_batches=config.eval.max_batches,
            rows=self._rows.local,
        )

    def __call__(self, state: TrainState, poll: Callable[[], bool] = lambda: False) -> dict[str, np.ndarray] | None:
        """`eval/loss` in nats per token, `eval/bits_per_byte` of text, and `eval/perplexity` where all are finite.

        Bytes are those of the whole split before the vocabulary's normalisation, which joins white space.

        Args:
          state: of the run.
          poll: whether to stop, asked before every batch; then there are no metrics, None.

        Returns:
          float64 arrays, scalars or [members].
        """
        params, sums = self._program.eval_params(state), []
        for batch in self._placed():
            if poll():
                return None
            sums.append(self._program.evaluate(params, batch))
            sums[-2:-1] = jax.device_get(sums[-2:-1])  # one behind, so that a poll is never far ahead of the device
        ce, count = (
            np.apply_along_axis(math.fsum, 0, np.asarray(column, np.float64)) for column in zip(*sums, strict=True)
        )
        return self._metrics(ce / count)

    def by_frequency(self, state: TrainState, counts: np.ndarray) -> tuple[dict[str, np.ndarray], list["Decile"]]:
        """The same of one run, and the loss of each tenth of the training text, its most frequent tokens first.

        Args:
          state: of the run.
          counts: how often each vocabulary entry occurs in the training text, shape [vocab_size].
        """
        groups = deciles(counts)
        group_of_token = np.full(self._model.vocab_size, 9, np.int32)
        group_of_token[: groups.size] = groups
        mesh = self._program.mesh
        grouped = make_grouped_eval_step(self._model, 10, sharding.placement(mesh))
        step = jax.jit(grouped, out_shardings=sharding.replicated(mesh))
        params = self._program.eval_params(state)
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
        return self._metrics(ce.sum() / targets.sum()), rows

    def _placed(self) -> Iterator[Batch]:
        yield from map(self._rows.place, self._batches)

    def _metrics(self, loss: np.ndarray) -> dict[str, np.ndarray]:
        bits_per_byte = loss / math.log(2) / self._store.split.bytes_per_token
        with np.errstate(over="ignore"):
            perplexity = np.exp(loss)
        rest = {} if np.isinf(perplexity).any() else {"eval/perplexity": perplexity}
        return {"eval/loss": loss, "eval/bits_per_byte": bits_per_byte} | rest


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
    """The tenth of the text to which each vocabulary entry belongs: 0 for the most frequent, 9 for the rarest, int32.

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


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate_run` found.

    Attributes:
      step: of the checkpoint.
      task: whose tokens.
      split: of the task.
      metrics: `eval/loss`, `eval/perplexity`, `eval/bits_per_byte`, `eval/unigram_entropy`.
      deciles: by frequency in the run's training text, the most frequent first.
    """

    step: int
    task: str
    split: str
    metrics: dict[str, float]
    deciles: list[Decile]

    def table(self) -> Table:
        """For a terminal."""
        values = "  ".join(f"{name.removeprefix('eval/')} {value:.4f}" for name, value in self.metrics.items())
        table = Table(
            "tenth of the training text", title=f"step {self.step}, {self.split} of {self.task}", caption=values
        )
        for column in ("entries", "share of training", "share of targets", "loss, nats"):
            table.add_column(column, justify="right")
        for number, row in enumerate(self.deciles, 1):
            loss = "" if row.loss is None else f"{row.loss:.4f}"
            table.add_row(str(number), f"{row.entries:,}", f"{row.train_share:.1%}", f"{row.target_share:.1%}", loss)
        return table

    def write(self, workdir: str | os.PathLike) -> Path:
        """Writes the same as JSON into the folder of the run; where to."""
        path = Path(workdir, "evaluations", f"step_{self.step}_{self.task}_{self.split}.json")
        with writing(path):
            path.parent.mkdir(exist_ok=True)
        fields = dataclasses.asdict(self) | {"deciles": [row._asdict() for row in self.deciles]}
        write_atomically(path, (json.dumps(fields, indent=2) + "\n").encode())
        return path


def evaluate_run(
    workdir: str | os.PathLike,
    *,
    step: int | None = None,
    tokens_dir: str | None = None,
    split: str = "validation",
    max_batches: int | None = None,
) -> Evaluation:
    """Evaluates a checkpoint of a run, on one device.

    Args:
      workdir: folder of the run.
      step: of the checkpoint; None: the newest.
      tokens_dir: prepared tokens; None: the run's.
      split: train or validation.
      max_batches: at most so many batches; None: the whole split.

    Raises:
      InputError: no such run, checkpoint or tokens, damaged ones, or tokens of another vocabulary.
    """
    run = read_run(workdir, step)
    config = dataclasses.replace(run.config, eval=dataclasses.replace(run.config.eval, max_batches=max_batches))
    trained_on = TokenStore(config.data.tokens_dir, "train", verify=True)
    run.check_tokens(trained_on.manifest)
    store = TokenStore(tokens_dir or config.data.tokens_dir, split, verify=True)
    ours, theirs = trained_on.manifest.vocabulary_sha256, store.manifest.vocabulary_sha256
    require(
        ours == theirs,
        f"tokens_dir={tokens_dir}: its vocabulary is not the run's; prepare it with "
        f"--vocabulary={Path(config.data.tokens_dir, VOCABULARY)} --vocab_size={trained_on.manifest.vocab_size}",
    )
    evaluator = Evaluator(Program.of(config, sharding.make_mesh(MeshConfig(data=1))), config, store)
    found, rows = evaluator.by_frequency(run.state, trained_on.token_counts())
    metrics = {name: float(value) for name, value in found.items()}
    metrics["eval/unigram_entropy"] = store.split.unigram_entropy
    return Evaluation(run.step, store.manifest.source["task"], split, metrics, rows)
