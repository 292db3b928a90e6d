"""The train step and the evaluation step: pure functions, jitted by whoever calls them.

`train_step(state, batch, hparams) -> (state, metrics)`. The hyperparameters are an argument: the optimizer and the
schedule are built inside the trace from traced numbers, so a sweep vmaps over `hparams` and nothing is recompiled when
a number changes. What the step branches on lies in `ModelConfig` and in the structure of `hparams`.
"""

import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_lm import model
from jaxopt_lm.config import TrainConfig
from jaxopt_lm.model import ModelConfig
from jaxopt_lm.optimizers import OptimizerConfig, ScheduleConfig, clip_by_global_norm
from jaxopt_lm.training.loss import Batch, num_targets, summed_losses

Metrics = dict[str, jax.Array]


class HParams(NamedTuple):
    """The numbers of a run, as a pytree. Fields as in `TrainConfig`."""

    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    num_train_steps: Any
    z_loss: Any
    max_grad_norm: Any

    @classmethod
    def of(cls, config: TrainConfig) -> "HParams":
        return cls(*(getattr(config, name) for name in cls._fields))


class TrainState(NamedTuple):
    """What a step changes.

    Attributes:
      step: updates made so far, an int32 scalar; the only counter that branches.
      params: nested dict of arrays.
      opt_state: the optimizer's state.
    """

    step: jax.Array
    params: model.Params
    opt_state: optax.OptState


def _optimizer(hparams: HParams, multiplier: jax.Array | float, labels: Any) -> optax.GradientTransformation:
    tx = hparams.optimizer.make(multiplier, labels)
    return tx if hparams.max_grad_norm is None else optax.chain(clip_by_global_norm(hparams.max_grad_norm), tx)


def init_state(config: ModelConfig, hparams: HParams, key: jax.Array) -> TrainState:
    """The state before the first step, parameters drawn from `key`."""
    params = model.init(config, key)
    return TrainState(jnp.zeros((), jnp.int32), params, _optimizer(hparams, 0.0, model.labels(config)).init(params))


def make_train_step(
    config: ModelConfig, num_microbatches: int = 1
) -> Callable[[TrainState, Batch, HParams], tuple[TrainState, Metrics]]:
    """The pure train step of a model.

    The loss is the mean over the batch's targets of cross-entropy + z_loss * (log Z)^2; with microbatches it and its
    gradients are still those of the whole batch, summed part by part.

    Args:
      config: of the model.
      num_microbatches: parts of a batch computed one after another; divides the batch.

    Returns:
      `train_step(state, batch, hparams) -> (state, metrics)`. Metrics are float scalars: `train/loss` (cross-entropy in
      nats) and `train/log_z_squared` before the update, `grads/norm` before clipping, `learning_rate`, `updates/rms`,
      and `params/norm` after the update.
    """
    labels = model.labels(config)

    def train_step(state: TrainState, batch: Batch, hparams: HParams) -> tuple[TrainState, Metrics]:
        (ce, log_z_squared), grads = _grads(config, state.params, batch, hparams.z_loss, num_microbatches)
        multiplier = hparams.schedule.multiplier(state.step, hparams.num_train_steps)
        updates, opt_state = _optimizer(hparams, multiplier, labels).update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "train/loss": ce,
            "train/log_z_squared": log_z_squared,
            "grads/norm": optax.tree.norm(grads),
            "learning_rate": hparams.optimizer.learning_rate * multiplier,
            "updates/rms": optax.tree.norm(updates) / optax.tree.size(updates) ** 0.5,
            "params/norm": optax.tree.norm(params),
        }
        return TrainState(state.step + 1, typing.cast(model.Params, params), opt_state), metrics

    return train_step


def _grads(config, params, batch, z_loss, num_microbatches):
    """((cross-entropy, (log Z)^2), gradients), means over the targets of the whole batch."""
    count = num_targets(batch)

    def loss(params, part):
        ce, log_z_squared = summed_losses(model.logits(config, params, part.tokens), part)
        ce, log_z_squared = (total / count.astype(total.dtype) for total in (ce, log_z_squared))
        return ce + z_loss * log_z_squared, (ce, log_z_squared)

    def aux_and_grads(part):
        grads, aux = jax.grad(loss, has_aux=True)(params, part)
        return aux, grads

    if num_microbatches == 1:
        return aux_and_grads(batch)
    # Every num_microbatches-th row, so that a batch divided over devices makes parts that are divided likewise.
    parts = jax.tree.map(lambda x: x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(aux_and_grads, jax.tree.map(lambda x: x[0], parts))
    )
    total, _ = jax.lax.scan(lambda so_far, part: (optax.tree.add(so_far, aux_and_grads(part)), None), zeros, parts)
    return total


def make_eval_step(config: ModelConfig) -> Callable[[model.Params, Batch], tuple[jax.Array, jax.Array]]:
    """`eval_step(params, batch) -> (sum of cross-entropy in nats, number of targets)`."""

    def eval_step(params: model.Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        ce, _ = summed_losses(model.logits(config, params, batch.tokens), batch)
        return ce, num_targets(batch)

    return eval_step
