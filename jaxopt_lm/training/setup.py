"""From a config and its tokens to what `fit` takes."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.data.batches import TrainBatches
from jaxopt_lm.data.tokens import TokenStore
from jaxopt_lm.training import sharding
from jaxopt_lm.training.evaluation import Evaluator
from jaxopt_lm.training.loss import Batch
from jaxopt_lm.training.program import Program
from jaxopt_lm.training.step import HParams


class Setup(NamedTuple):
    """What a config becomes before its first step.

    Attributes:
      config: of the run.
      program: what is compiled.
      hparams: its numbers.
      evaluate: makes the evaluations.
      train: the tokens to train on.
      validation: the tokens to evaluate on.
      rows: of a batch, on the devices.
      windows: of the training tokens, batch by batch.
    """

    config: TrainConfig
    program: Program
    hparams: HParams
    evaluate: Evaluator
    train: TokenStore
    validation: TokenStore
    rows: sharding.Rows
    windows: TrainBatches

    @classmethod
    def of(cls, config: TrainConfig, members: int | None = None) -> "Setup":
        """Opens the tokens of a config and builds its program, or finds it; compiles nothing.

        Args:
          config: of a run whose tokens are prepared.
          members: of a population of runs that differ from it in numbers; None: it alone.

        Raises:
          InputError: the config asks for what is not there: tokens, devices, a whole batch or window.
        """
        mesh = sharding.make_mesh(config.mesh)
        config.check_batch_divides(mesh.shape["data"], mesh.shape["fsdp"])
        train, validation = (
            TokenStore(config.data.tokens_dir, split, verify=config.data.verify) for split in ("train", "validation")
        )
        rows = sharding.Rows(mesh, config.global_batch_size)
        windows = TrainBatches(
            train, seed=config.data.seed, batch_size=config.global_batch_size, length=config.length, rows=rows.local
        )
        counts = train.token_counts() if config.logging.telemetry_every_steps else None
        built = Program.of(config, mesh, counts, members)
        evaluate = Evaluator(built, config, validation)
        return cls(config, built, HParams.of(config), evaluate, train, validation, rows, windows)

    def batches(self, step: int) -> Iterator[Batch]:
        """The batches of the steps after `step`, on the devices: in an order that the data's seed alone decides."""
        for tokens in self.windows.from_step(step):
            yield self.rows.place((tokens, np.ones(tokens.shape, np.float32)))
