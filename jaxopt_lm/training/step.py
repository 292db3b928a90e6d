"""The train step and the evaluation step: pure functions, jitted in `program`.

`train_step(state, batch, hparams) -> (state, metrics)`. The hyperparameters are an argument: the optimizer and the
schedule are built inside the trace from traced numbers, so a sweep vmaps over `hparams` and nothing is recompiled when
a number changes. What the step branches on is in `ModelConfig` and in the structure of `hparams`.
"""

import functools
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxopt_lm import model
from jaxopt_lm.config import TrainConfig
from jaxopt_lm.model import ModelConfig
from jaxopt_lm.optimizers import (
    OptimizerConfig,
    ScheduleConfig,
    applied_rates,
    clip_by_global_norm,
    grad_norms,
    hutchinson,
    sampled_label_grads,
    telemetry_by_role,
)
from jaxopt_lm.optimizers import telemetry as read_telemetry
from jaxopt_lm.optimizers.clipping import global_norm
from jaxopt_lm.optimizers.trees import wide_dtype, widen
from jaxopt_lm.training.loss import Batch, num_targets, summed_losses, target_weights, token_losses

Metrics = dict[str, jax.Array]

_CURVATURE = 1_000_003  # folded into the key: draws of curvature are not those of the parameters


class HParams(NamedTuple):
    """The numbers of a run, as a pytree. Fields as in `TrainConfig`."""

    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    num_train_steps: Any
    z_loss: Any
    max_grad_norm: Any
    seed: Any

    @classmethod
    def of(cls, config: TrainConfig) -> "HParams":
        """The numbers of a config. What means a real number is one, whether it was written 1 or 1.0."""
        numbers = cls(*(getattr(config, name) for name in cls._fields))._replace(seed=np.uint32(config.seed))
        return jax.tree.map_with_path(_real, numbers)

    def multiplier(self, step: jax.Array) -> jax.Array:
        """The schedule's value for the update after `step` updates."""
        return self.schedule.multiplier(step, self.num_train_steps, self.optimizer.calibration_steps)


def _real(path: tuple[Any, ...], number: Any) -> Any:
    """A number, as a float unless it counts steps."""
    counts = str(getattr(path[-1], "name", "")).endswith("_steps")
    return float(number) if isinstance(number, int) and not counts else number


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


def _optimizer(hparams: HParams, multiplier: ArrayLike, labels: Any) -> optax.GradientTransformationExtraArgs:
    tx = hparams.optimizer.make(multiplier, labels)
    return tx if hparams.max_grad_norm is None else optax.chain(clip_by_global_norm(hparams.max_grad_norm), tx)


def init_state(config: ModelConfig, hparams: HParams, params: model.Params | None = None) -> TrainState:
    """The state before the first step: of `params`, or of parameters drawn by the seed."""
    params = model.init(config, jax.random.key(hparams.seed)) if params is None else params
    return TrainState(jnp.zeros((), jnp.int32), params, _optimizer(hparams, 0.0, model.labels(config)).init(params))


def make_train_step(
    config: ModelConfig,
    num_microbatches: int = 1,
    place: model.Placement = model.ONE_DEVICE,
    *,
    telemetry: bool = False,
    token_counts: np.ndarray | None = None,
) -> Callable[[TrainState, Batch, HParams], tuple[TrainState, Metrics]]:
    """The pure train step of a model.

    The loss is the mean over the batch's targets of cross-entropy + z_loss * (log Z)^2; with microbatches it and its
    gradients are still those of the whole batch, summed part by part.

    Args:
      config: of the model.
      num_microbatches: parts of a batch computed one after another; divides the batch.
      place: of the mesh.
      telemetry: whether the optimizer's is among the metrics, under `telemetry/`. A step that has it is a program of
        its own, for those steps where it is due: it keeps gradients and updates whole, and takes longer.
      token_counts: occurrences of every vocabulary entry in the training text, for telemetry by frequency.

    Returns:
      `train_step(state, batch, hparams) -> (state, metrics)`. Metrics are float scalars: `train/loss` (cross-entropy in
      nats) and `train/log_z_squared` before the update, `grads/norm` before clipping, `learning_rate`, `updates/rms`,
      and `params/norm` after the update. `learning_rate` is what was applied: the optimizer's field times the schedule,
      for Prodigy times its estimate too. An optimizer of parts has `learning_rate/PART` beside that of its own field:
      `sgd` and `adaptive` of a hybrid, `matrix` and `rest` of Muon; one whose parameters have multipliers has
      `learning_rate/min` and `learning_rate/max`. Telemetry has what each role was given.
    """
    labels = model.labels(config)

    def train_step(state: TrainState, batch: Batch, hparams: HParams) -> tuple[TrainState, Metrics]:
        objective = _Objective(config, batch, hparams.z_loss, num_microbatches, place)
        (ce, log_z_squared), grads = objective.grads(state.params)
        multiplier = hparams.multiplier(state.step)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(hparams.seed), _CURVATURE), state.step)
        updates, opt_state = _optimizer(hparams, multiplier, labels).update(
            grads,
            state.opt_state,
            state.params,
            sampled_grads=lambda: objective.sampled_grads(state.params, key),
            batch_tokens=num_targets(batch),
            hutchinson=lambda: objective.hutchinson(state.params, key),
        )
        updates_norm = global_norm(updates)
        params = _applied(state.params, updates, updates_norm)
        metrics = {
            "train/loss": ce,
            "train/log_z_squared": log_z_squared,
            "grads/norm": global_norm(grads),
            "updates/rms": updates_norm / optax.tree.size(updates) ** 0.5,
            "params/norm": global_norm(params),
        }
        metrics |= _learning_rates(opt_state, hparams.optimizer.learning_rate * multiplier)
        if telemetry:
            metrics |= _telemetry(labels, token_counts, opt_state, state.params, updates, grads)
        return TrainState(state.step + 1, typing.cast(model.Params, params), opt_state), metrics

    return train_step


def _applied(params, updates, norm):
    """The new parameters; where the updates' global norm is no number, the old ones.

    As each new parameter depends on the norm, all else that reads the old ones is known to be done when they are
    written. XLA would otherwise copy every parameter first, for the norm of updates that it computes from them twice.
    """
    made = norm >= 0
    return jax.tree.map(lambda new, old: jnp.where(made, new, old), optax.apply_updates(params, updates), params)


def _learning_rates(opt_state, scheduled):
    """What the optimizer's parts applied; of several the scheduled rate is that of the config that has the others."""
    applied = applied_rates(opt_state)
    named = {f"learning_rate/{part}": rate for part, rate in applied.items() if part}
    return {"learning_rate": applied.get("", scheduled)} | named


def _telemetry(labels, token_counts, opt_state, params, updates, grads):
    found = read_telemetry(opt_state, params, updates, labels=labels)
    norms = {f"grads_norm/{name}": value for name, value in grad_norms(grads, labels).items()}
    lines = telemetry_by_role(found, labels, token_counts) | norms
    return {f"telemetry/{name}": value for name, value in lines.items()}


class _Objective(NamedTuple):
    """The loss of a batch as sums over its parts: gradients, and what Sophia estimates curvature from.

    Sums are float32 or wider, also where parameters, and so the gradients of one part, are not.
    """

    config: ModelConfig
    batch: Batch
    z_loss: Any
    num_parts: int
    place: model.Placement

    def _logits(self, params, tokens):
        return model.logits(self.config, params, tokens, self.place)

    def _pinned(self, grads):
        """Gradients, placed as the parameters are."""
        return jax.tree.map(lambda g, label: self.place.pin(g, label.axes), grads, model.labels(self.config))

    def _loss(self, params, part):
        """(Loss, (cross-entropy, (log Z)^2)), the part's share of means over the targets of the whole batch."""
        count = num_targets(self.batch)
        ce, log_z_squared = summed_losses(self._logits(params, part.tokens), part)
        ce, log_z_squared = (total / count.astype(total.dtype) for total in (ce, log_z_squared))
        return ce + self.z_loss * log_z_squared, (ce, log_z_squared)

    def grads(self, params):
        """((cross-entropy, (log Z)^2), gradients)."""

        def of_part(part, _):
            grads, aux = jax.grad(self._loss, has_aux=True)(params, part)
            return aux, self._pinned(grads)

        return self._sum(of_part)

    def sampled_grads(self, params, key):
        """Gradients of the mean cross-entropy on labels drawn from the model, the same for any number of parts."""
        count = num_targets(self.batch)

        def of_part(part, index):
            weights, rows = target_weights(part) / count, index + self.num_parts * jnp.arange(len(part.tokens))
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
            return self._pinned(sampled_label_grads(lambda p: self._logits(p, part.tokens), params, keys, weights))

        return self._sum(of_part)

    def hutchinson(self, params, key):
        """z * (H z), H the loss's Hessian; every part has the same z."""
        return self._sum(lambda part, _: self._pinned(hutchinson(lambda p: self._loss(p, part)[0], params, key)))

    def _sum(self, of_part):
        """Sum of `of_part(part, index)` over the parts, one after another."""
        if self.num_parts == 1:
            return widen(of_part(self.batch, 0))
        # Every num_parts-th row, so that a batch divided over devices makes parts that are divided likewise.
        parts = jax.tree.map(lambda x: x.reshape(-1, self.num_parts, *x.shape[1:]).swapaxes(0, 1), self.batch)
        first = jax.tree.map(lambda x: x[0], parts)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, wide_dtype(x.dtype)), jax.eval_shape(of_part, first, 0))
        indexed = parts, jnp.arange(self.num_parts)
        total, _ = jax.lax.scan(lambda so_far, xs: (optax.tree.add(so_far, widen(of_part(*xs))), None), zeros, indexed)
        return total


def make_eval_step(
    config: ModelConfig, place: model.Placement = model.ONE_DEVICE
) -> Callable[[model.Params, Batch], tuple[jax.Array, jax.Array]]:
    """`eval_step(params, batch) -> (sum of cross-entropy in nats, number of targets)`."""

    def eval_step(params: model.Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        ce, _ = summed_losses(model.logits(config, params, batch.tokens, place), batch)
        return ce, num_targets(batch)

    return eval_step


def make_grouped_eval_step(
    config: ModelConfig, num_groups: int, place: model.Placement = model.ONE_DEVICE
) -> Callable[[model.Params, Batch, np.ndarray], tuple[jax.Array, jax.Array]]:
    """`eval_step(params, batch, group_of_token) -> (sums of cross-entropy, numbers of targets)`, both [num_groups].

    `group_of_token`, int32 [vocab_size], says in which group a target counts.
    """

    def eval_step(params: model.Params, batch: Batch, group_of_token: np.ndarray) -> tuple[jax.Array, jax.Array]:
        logits_BLV = model.logits(config, params, batch.tokens, place)
        targets_T = jnp.roll(batch.tokens, -1, axis=1).reshape(-1)
        ce_T, _ = token_losses(logits_BLV.reshape(targets_T.size, -1), targets_T)
        member_TG = jax.nn.one_hot(jnp.asarray(group_of_token)[targets_T], num_groups, dtype=ce_T.dtype)
        member_TG = member_TG * target_weights(batch).astype(ce_T.dtype).reshape(-1, 1)
        return jnp.sum(ce_T[:, None] * member_TG, axis=0), jnp.sum(member_TG, axis=0)

    return eval_step
