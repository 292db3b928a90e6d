"""jaxopt_lm's own step, as `train` runs it."""

import importlib.metadata
from typing import Any

import jax
import numpy as np
import serve

from jaxopt_lm import model
from jaxopt_lm.config import DataConfig, TrainConfig
from jaxopt_lm.model import ModelConfig
from jaxopt_lm.optimizers import AdamWConfig
from jaxopt_lm.optimizers.schedules import ConstantConfig
from jaxopt_lm.training import HParams, Program
from jaxopt_lm.training.sharding import Rows


def config_of(size: serve.Size) -> TrainConfig:
    """Defaults, in float32; z_loss is a number of the step, which computes (log Z)^2 whatever it is."""
    heads = size.width // serve.HEAD
    return TrainConfig(
        workdir="none",
        model=ModelConfig(
            vocab_size=size.vocabulary,
            num_layers=size.depth,
            embed_dim=size.width,
            num_heads=heads,
            num_kv_heads=heads,
            mlp_dim=4 * size.width,
            compute_dtype="float32",
        ),
        data=DataConfig(vocab_size=size.vocabulary),
        optimizer=AdamWConfig(
            learning_rate=serve.LEARNING_RATE, b1=serve.B1, b2=serve.B2, eps=serve.EPS, weight_decay=serve.WEIGHT_DECAY
        ),
        schedule=ConstantConfig(),
        global_batch_size=size.batch,
        length=size.length,
        max_grad_norm=serve.MAX_NORM,
        z_loss=0.0,
    )


def nested(named: dict[str, np.ndarray]) -> dict[str, Any]:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    tree: dict[str, Any] = {}
    for name, x in named.items():
        *folders, last = name.split("/")
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
        at[last] = x
    return tree


class Ours(serve.Peer):
    def __init__(self, size: serve.Size, weights: dict[str, np.ndarray] | None):
        config = config_of(size)
        self._program, self._hparams = Program.of(config), HParams.of(config)
        params = None if weights is None else jax.device_put(nested(weights))
        self._state = jax.block_until_ready(self._program.init(self._hparams, params))
        self._rows = Rows(self._program.mesh, size.batch)
        self._is_target = np.ones((size.batch, size.length), np.float32)
        self.facts = {
            "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")},
            "threads": serve.cores(),
            "num_params": model.num_params(config.model),
        }

    def step(self, tokens):
        batch = self._rows.place((tokens, self._is_target))
        self._state, metrics = jax.block_until_ready(self._program.step(self._state, batch, self._hparams))
        return float(metrics["train/loss"]), float(metrics["grads/norm"])

    def params_norm(self):
        return serve.norm(jax.tree.leaves(self._state.params))


if __name__ == "__main__":
    serve.main(Ours)
