"""Does a test notice when a formula is wrong? Applies wrong formulas to the package, one at a time.

    python -m tests.mutations [--jobs=2] [--only=SUBSTRING]

A mutation replaces one piece of text of one file of `jaxopt_lm`, in a copy of the package and its tests. A line says
which test failed, and how long its tests took. SURVIVED: none did. INVALID: the run broke, or failed by something other
than an assertion, which shows nothing. Either makes the exit code 1. First the same tests run on a copy that nothing
was done to, and must pass. All that runs lies in a temporary folder.
"""

import argparse
import collections
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One wrong formula.

    Attributes:
      file: in jaxopt_lm; in jaxopt_lm/optimizers where it names no folder.
      old: what is replaced; occurs there exactly once.
      new: what replaces it.
      what: what is wrong now.
      tests: `FILE -k EXPRESSION`, the file in tests, likewise: tests quick to run, of which one must fail.
    """

    file: str
    old: str
    new: str
    what: str
    tests: str


MUTATIONS = (
    # AdamW
    Mutation(
        "adamw.py",
        "scale_by_block_adam(self.b1, self.b2, self.eps)",
        "scale_by_block_adam(self.b2, self.b1, self.eps)",
        "AdamW: betas swapped",
        "test_golden.py -k adamw_b95_eps1e-15_wd0",
    ),
    Mutation(
        "adamw.py",
        "scale_by_block_adam(self.b1, self.b2, self.eps)",
        "scale_by_block_adam(self.b1, self.b2, 0.0, eps_root=self.eps)",
        "AdamW: eps inside the root",
        "test_identities.py -k layer_adaptive_adamw_without",
    ),
    Mutation(
        "adamw.py",
        "scale_by_block_adam(self.b1, self.b2, self.eps)",
        "scale_by_block_adam(self.b1, self.b2, self.eps, debias_mean=False)",
        "AdamW: no bias correction of m",
        "test_golden.py -k adamw_b95_eps1e-15_wd0",
    ),
    # What every optimizer shares: decay, the schedule's multiplier, the rate
    Mutation(
        "config.py",
        "                self.direction(labels),\n                self.decay(labels),\n",
        "                self.decay(labels),\n                self.direction(labels),\n",
        "decay added to the gradients instead of the directions",
        "test_golden.py -k adamw_b95_eps1e-15_wd0.1",
    ),
    Mutation(
        "config.py",
        "optax.add_decayed_weights(self.weight_decay, self.decay_mask(labels))",
        "optax.add_decayed_weights(-self.weight_decay, self.decay_mask(labels))",
        "decay with the wrong sign",
        "test_golden.py -k sgdw_m90",
    ),
    Mutation(
        "config.py",
        "optax.add_decayed_weights(self.weight_decay, self.decay_mask(labels))",
        "optax.add_decayed_weights(self.weight_decay / self.learning_rate, self.decay_mask(labels))",
        "decay not scaled by the peak rate",
        'test_identities.py -k "AdamWConfig and not ScheduleFree"',
    ),
    Mutation(
        "config.py",
        "                self.decay(labels),\n"
        "                scale_by_rate("
        "self.learning_rate * multiplier, self.rate_multipliers(labels), self.moments()),\n",
        "                scale_by_rate("
        "self.learning_rate * multiplier, self.rate_multipliers(labels), self.moments()),\n"
        "                optax.add_decayed_weights(-self.weight_decay, self.decay_mask(labels)),\n",
        "decay not scaled by the rate at all",
        "test_golden.py -k sgdw_m90",
    ),
    Mutation(
        "config.py",
        "return label.role in self.decay_roles if label.decays is None else label.decays",
        "return True if label.decays is None else label.decays",
        "roles that must not decay do",
        "test_golden.py -k almvr",
    ),
    Mutation(
        "config.py",
        "scale_by_rate(self.learning_rate * multiplier,",
        "scale_by_rate(self.learning_rate,",
        "the schedule is not applied",
        "test_golden.py -k lion",
    ),
    Mutation(
        "config.py",
        "optax.with_extra_args_support(at(state.count))",
        "optax.with_extra_args_support(at(next_count(state.count)))",
        "a constructor's schedule off by one step",
        "test_telemetry.py -k scheduled",
    ),
    Mutation(
        "rates.py",
        "-r.astype(u.dtype) * u",
        "r.astype(u.dtype) * u",
        "uphill",
        "test_golden.py -k signum",
    ),
    Mutation(
        "rates.py",
        "map_params(lambda _, m: rate * scalar(m), updates, multipliers(updates))",
        "map_params(lambda _, m: scalar(m), updates, multipliers(updates))",
        "a parameter's multiplier instead of the rate times it",
        "test_golden.py -k svrm",
    ),
    Mutation(
        "rates.py",
        "        state = in_force(updates, next_count(state.count))\n        rate = state.learning_rate\n",
        "        before, state = state, in_force(updates, next_count(state.count))\n"
        "        rate = state.learning_rate\n"
        "        state = state._replace(learning_rate=before.learning_rate)\n",
        "the recorded rate is the last update's",
        "test_telemetry.py -k scheduled",
    ),
    Mutation(
        "rates.py",
        "map_params(lambda u, r: -r.astype(u.dtype) * u, updates, rates), state",
        "map_params(lambda u, r: -r.astype(u.dtype) * u, updates, rates), state._replace(\n"
        "            learning_rate=jax.tree.map(lambda r: jnp.full_like(r, learning_rate), rate)\n"
        "        )",
        "the recorded rate lacks the multipliers",
        "test_formulas.py -k recorded",
    ),
    Mutation(
        "rates.py",
        "x(count) if callable(x) else x",
        "x(count - 1) if callable(x) else x",
        "the recorded eps is the last update's",
        "test_formulas.py -k recorded",
    ),
    # SGDW
    Mutation(
        "sgdw.py",
        "jnp.where(state.count == 0, 1, one_minus(dampening, m.dtype))",
        "jnp.where(state.count < 0, 1, one_minus(dampening, m.dtype))",
        "SGDW: the first buffer dampened",
        "test_formulas.py -k dampening",
    ),
    Mutation(
        "sgdw.py",
        "heavy_ball(self.momentum, self.dampening, nesterov",
        "heavy_ball(self.momentum, nesterov",
        "SGDW: dampening not passed on",
        "test_formulas.py -k dampening",
    ),
    Mutation(
        "sgdw.py",
        "one_minus(dampening, m.dtype)",
        "one_minus(momentum, m.dtype)",
        "SGDW: an average instead of a sum",
        "test_golden.py -k sgdw_m98",
    ),
    Mutation(
        "sgdw.py",
        "decay_and_add(m, g, momentum), updates, mu)",
        "decay_and_add(m, g, momentum), updates, state.mu)",
        "SGDW: Nesterov looks ahead with the buffer before this gradient",
        "test_golden.py -k sgdw_m90_nesterov",
    ),
    Mutation(
        "sgdw.py",
        "nesterov=self.nesterov",
        "nesterov=False",
        "SGDW: no Nesterov",
        "test_golden.py -k sgdw_m90_nesterov",
    ),
    # Lion and Signum
    Mutation(
        "lion.py",
        "scale_by_lion(self.b1, self.b2)",
        "scale_by_lion(self.b2, self.b1)",
        "Lion: betas swapped",
        "test_golden.py -k lion",
    ),
    Mutation(
        "lion.py",
        "scale_by_lion(self.b1, self.b2)",
        "scale_by_lion(self.b2, self.b2)",
        "Lion: the sign of the momentum alone",
        "test_golden.py -k lion",
    ),
    Mutation(
        "lion.py",
        "scale_by_lion(self.b1, self.b1)",
        "scale_by_lion(0.0, self.b1)",
        "Signum: the sign of the gradient",
        "test_golden.py -k signum",
    ),
    Mutation(
        "lion.py",
        "scale_by_lion(self.b1, self.b1)",
        "scale_by_lion(1 - self.b1, 1 - self.b1)",
        "Signum: b1 and 1 - b1 swapped",
        "test_golden.py -k signum",
    ),
    # Adafactor
    Mutation(
        "adafactor.py",
        "sum_of_squares(g, (kept,)) / max(g.shape[1 - kept], 1)",
        "sum_of_squares(g, (kept,))",
        "Adafactor: row and column sums for means",
        "test_golden.py -k adafactor_authors",
    ),
    Mutation(
        "adafactor.py",
        "sum_of_squares(g, (kept,)) / max(g.shape[1 - kept], 1)",
        "sum_of_squares(g, (kept,)) / max(g.shape[kept], 1)",
        "Adafactor: divided by the length of the wrong axis",
        "test_golden.py -k adafactor_authors",
    ),
    Mutation(
        "adafactor.py",
        "mean = jnp.mean(row, axes, keepdims=True)",
        "mean = jnp.sum(row, axes, keepdims=True)",
        "Adafactor: r c / sum(r) for r c / mean(r)",
        "test_golden.py -k adafactor_authors",
    ),
    Mutation(
        "adafactor.py",
        "jnp.where(mean == 0, 0.0, row / mean) * column",
        "jnp.where(mean == 0, 0.0, row * column / mean)",
        "Adafactor: underflow of r c",
        "test_identities.py -k underflow",
    ),
    Mutation(
        "adafactor.py",
        "m_hat / (jnp.sqrt(v_hat) + jnp.asarray(eps).astype(m.dtype))",
        "m_hat / jnp.sqrt(v_hat + jnp.asarray(eps).astype(m.dtype))",
        "Adafactor: eps inside the root",
        "test_identities.py -k underflow",
    ),
    Mutation(
        "adafactor.py",
        "m / bias_correction(b1, count, m.dtype), v / bias_correction(b2, count, m.dtype)",
        "m / bias_correction(b1, count, m.dtype), v",
        "Adafactor: no bias correction of v",
        "test_golden.py -k adafactor_authors",
    ),
    Mutation(
        "adafactor.py",
        "kept = stacked if one_scalar_1d else tuple(range(g.ndim))",
        "kept = tuple(range(g.ndim)) if one_scalar_1d else stacked",
        "Adafactor: one_scalar_1d inverted",
        "test_golden.py -k adafactor_paper",
    ),
    Mutation(
        "adafactor.py",
        'stacked = (0,) if label.axes[:1] == ("layers",) else ()',
        "stacked = ()",
        "Adafactor: stacked vectors share their one scalar",
        "test_groups.py -k one_scalar",
    ),
    Mutation(
        "adafactor.py",
        "1 - step ** -jnp.asarray(decay_rate)",
        "1 - (step + 1) ** -jnp.asarray(decay_rate)",
        "big_vision's Adafactor: t off by one",
        "test_golden.py -k adafactor_bv",
    ),
    Mutation(
        "adafactor.py",
        "mean = jnp.mean(r, found[0], keepdims=True)",
        "mean = jnp.mean(r, found[1], keepdims=True)",
        "big_vision's Adafactor: mean of the rows' factors over the wrong axis",
        "test_golden.py -k adafactor_bv",
    ),
    Mutation(
        "adafactor.py",
        "shape[order[-2]] >= min_dim_size_to_factor",
        "shape[order[-1]] >= min_dim_size_to_factor",
        "big_vision's Adafactor: the longer axis decides on factoring",
        "test_golden.py -k adafactor_bv",
    ),
    Mutation(
        "adafactor.py",
        "jnp.minimum(jnp.asarray(b2_cap), 1",
        "jnp.maximum(jnp.asarray(b2_cap), 1",
        "big_vision's Adafactor: the cap of b2 is its floor",
        "test_golden.py -k adafactor_bv",
    ),
    Mutation(
        "adafactor.py",
        "jnp.minimum(jnp.asarray(b2_cap), 1 - step ** -jnp.asarray(decay_rate))",
        "1 - step ** -jnp.asarray(decay_rate)",
        "big_vision's Adafactor: b2 not capped",
        "test_formulas.py -k big_vision_caps",
    ),
    # Blocks: Adalayer, Adalayer*, Adam-mini
    Mutation(
        "block_adam.py",
        'size if normalization == "mean" else math.sqrt(size)',
        'math.sqrt(size) if normalization == "mean" else size',
        "Adalayer: Algorithm 1 as printed instead of the mean",
        "test_golden.py -k adalayer_wd0",
    ),
    Mutation(
        "block_adam.py",
        'total / (size if normalization == "mean" else math.sqrt(size))',
        "total",
        "Adalayer: the sum of squares for their mean",
        "test_golden.py -k adalayer_wd0",
    ),
    Mutation(
        "block_adam.py",
        "m_hat = m / bias_correction(b, count, m.dtype)",
        "m_hat = m",
        "Adalayer: no bias correction of m",
        "test_golden.py -k adalayer_wd0",
    ),
    Mutation(
        "block_adam.py",
        "v / bias_correction(b2, count, v.dtype)",
        "v / bias_correction(b, count, v.dtype)",
        "Adalayer: bias correction of v with b1",
        "test_golden.py -k adalayer_wd0",
    ),
    Mutation(
        "block_adam.py",
        "m_hat / (jnp.sqrt(v_hat + inside) + outside)",
        "m_hat / jnp.sqrt(v_hat + inside + outside)",
        "Adam by blocks: eps inside the root",
        "test_golden.py -k adam_mini",
    ),
    Mutation(
        "block_adam.py",
        'apart = {"head": ("vocab", "out")}',
        'apart = {"head": ("embed",)}',
        "Adalayer*: mean over the head's vocabulary axis",
        "test_golden.py -k adalayer_star_wd0",
    ),
    Mutation(
        "block_adam.py",
        'apart = {"head": ("vocab", "out")}',
        "apart = {}",
        "Adalayer*: one second moment for the head",
        "test_golden.py -k adalayer_star_wd0",
    ),
    Mutation(
        "block_adam.py",
        '({"embedding": ("vocab",)} if tied or first_layer else {})',
        '({"embedding": ("vocab",) if tied else ("embed",)} if tied or first_layer else {})',
        "Adalayer*: the first-layer correction by column",
        "test_formulas.py -k first_layer",
    ),
    Mutation(
        "block_adam.py",
        "if tied or first_layer else",
        "if first_layer else",
        "Adalayer*: a tied embedding is no head",
        "test_identities.py -k tied",
    ),
    Mutation(
        "block_adam.py",
        "if tied or first_layer else",
        "if tied else",
        "Adalayer*: no first-layer correction",
        "test_identities.py -k adalayer_star",
    ),
    Mutation(
        "block_adam.py",
        'if axis in ("heads", "kv_heads"))',
        'if axis in ("head_dim",))',
        "Adam-mini: a block per dimension of the heads",
        "test_golden.py -k adam_mini",
    ),
    Mutation(
        "block_adam.py",
        "return (*stacked, *output_axes(label))",
        "return (*stacked, *groups[0])",
        "Adam-mini: a block per input neuron",
        "test_golden.py -k adam_mini",
    ),
    Mutation(
        "block_adam.py",
        'if "head_dim" in label.axes:',
        'if label.role == "attention":',
        "Adam-mini: values and outputs by head",
        "test_identities.py -k adam_mini",
    ),
    Mutation(
        "block_adam.py",
        "if axis not in others)",
        "if axis in others)",
        "Adam-mini: a block per dimension of embedding and head",
        "test_golden.py -k adam_mini",
    ),
    Mutation(
        "block_adam.py",
        '    eps: float = 1e-8\n    decay_roles: tuple[str, ...] = ("embedding", "attention", "mlp", "head")\n',
        "    eps: float = 1e-8\n",
        "Adam-mini: norms decay",
        "test_formulas.py -k norms_do_not",
    ),
    # Frozen
    Mutation(
        "block_adam.py",
        "1 / (count + 1).astype(v.dtype)",
        "1 / count.astype(v.dtype)",
        "frozen: sum / T for sum / (T + 1)",
        "test_golden.py -k frozen",
    ),
    Mutation(
        "block_adam.py",
        "jnp.where(count <= steps, average,",
        "jnp.where(count < steps, average,",
        "frozen: T - 1 updates of calibration",
        "test_golden.py -k frozen",
    ),
    Mutation(
        "block_adam.py",
        "ema(v, square, b2) if live else v)",
        "v if live else ema(v, square, b2))",
        "frozen: live and frozen roles swapped",
        "test_golden.py -k frozen",
    ),
    Mutation(
        "block_adam.py",
        "v / bias_correction(b2, count, v.dtype) if calibration is None else v",
        "v / bias_correction(b2, count, v.dtype)",
        "frozen: v bias-corrected",
        "test_golden.py -k frozen",
    ),
    Mutation(
        "config.py",
        "jnp.where(count >= jnp.asarray(steps), multiplier, 0.0)",
        "jnp.where(count > jnp.asarray(steps), multiplier, 0.0)",
        "frozen: T + 1 updates at rate 0",
        "test_golden.py -k frozen",
    ),
    Mutation(
        "config.py",
        "jnp.where(count >= jnp.asarray(steps), multiplier, 0.0)",
        "jnp.where(count >= jnp.asarray(steps) - 1, multiplier, 0.0)",
        "frozen: the last calibration batch steps, as released",
        "test_identities.py -k frozen_everywhere",
    ),
    Mutation(
        "frozen.py",
        "None if label.role in self.untrained_roles else self",
        "self",
        "frozen: untrained roles move",
        "test_identities.py -k untrained",
    ),
    # Hybrids
    Mutation(
        "hybrid.py",
        "self.adaptive.make(multiplier, labels)",
        "dataclasses.replace(self.adaptive, learning_rate=self.learning_rate).make(multiplier, labels)",
        "hybrid: one rate for two",
        "test_golden.py -k hybrid_sgd_adalayer_last_norm",
    ),
    Mutation(
        "hybrid.py",
        "self.adaptive.make(multiplier, labels)",
        "self.adaptive.make(1.0, labels)",
        "hybrid: the adaptive part follows no schedule",
        "test_golden.py -k hybrid_sgd_adalayer_last_norm",
    ),
    Mutation(
        "hybrid.py",
        "debiased_ema(self.b1)",
        "optax.ema(self.b1, debias=False)",
        "hybrid: SGD's average not bias-corrected",
        "test_golden.py -k hybrid_sgd_adalayer_last_norm",
    ),
    Mutation(
        "hybrid.py",
        'heavy_ball(self.b1) if self.sgd == "heavy_ball" else debiased_ema(self.b1)',
        "heavy_ball(self.b1)",
        "hybrid: heavy ball for the bias-corrected average",
        "test_golden.py -k hybrid_sgd_adafactor",
    ),
    Mutation(
        "hybrid.py",
        'return "adaptive" if label.role in self.adaptive_roles else "sgd"',
        'return "sgd" if label.role in self.adaptive_roles else "adaptive"',
        "hybrid: roles swapped",
        "test_golden.py -k hybrid_sgd_adafactor",
    ),
    Mutation(
        "hybrid.py",
        'return "untrained"\n',
        'return "sgd"\n',
        "hybrid: untrained roles move",
        "test_golden.py -k no_norm_training",
    ),
    Mutation(
        "hybrid.py",
        "held(self.calibration_steps, at, multiplier)",
        "at(multiplier)",
        "hybrid: SGD moves while the adaptive part is calibrated",
        "test_groups.py -k calibration_inside",
    ),
    # Sophia
    Mutation(
        "sophia.py",
        "(state.count > 0) & (state.count % interval == 0)",
        "(state.count + 1) % interval == 0",
        "Sophia-G: estimate one step early, before the step",
        "test_golden.py -k sophiag",
    ),
    Mutation(
        "sophia.py",
        "(state.count > 0) & (state.count % interval == 0)",
        "(state.count > 1) & (state.count % interval == 1)",
        "Sophia-G: estimate one step late",
        "test_golden.py -k sophiag",
    ),
    Mutation(
        "sophia.py",
        "due = (state.count > 0) & (state.count % interval == 0)",
        "due = state.count % interval == 0",
        "Sophia-G: an estimate before the first step",
        "test_golden.py -k sophiag",
    ),
    Mutation(
        "sophia.py",
        "(scale * h + 1e-15), 1.0)\n\n"
        "        state = ScaleBySophiaState(next_count(state.count), mu, hessian)\n"
        "        return map_params(direction, mu, hessian), state",
        "(scale * h + 1e-15), 1.0)\n\n"
        "        after = ScaleBySophiaState(next_count(state.count), mu, hessian)\n"
        "        return map_params(direction, mu, state.hessian), after",
        "Sophia-G: the step before the estimate of its update",
        "test_golden.py -k sophiag",
    ),
    Mutation(
        "sophia.py",
        "jax.tree.map(jnp.square, widen(sampled_grads()))",
        "jax.tree.map(jnp.abs, widen(sampled_grads()))",
        "Sophia-G: sampled gradients not squared",
        "test_golden.py -k sophiag",
    ),
    Mutation(
        "sophia.py",
        "(jnp.asarray(rho).astype(m.dtype)) * jnp.asarray(batch_tokens).astype(m.dtype)",
        "jnp.asarray(rho).astype(m.dtype)",
        "Sophia-G: no factor of the batch's tokens",
        "test_golden.py -k sophiag",
    ),
    Mutation(
        "sophia.py",
        "_estimated(state.count % interval == 0,",
        "_estimated((state.count + 1) % interval == 0,",
        "Sophia-H: estimates at t = k, 2 k, … instead of 1, k + 1, …",
        "test_golden.py -k sophiah",
    ),
    Mutation(
        "sophia.py",
        "-bound, bound)\n\n"
        "        state = ScaleBySophiaState(next_count(state.count), mu, hessian)\n"
        "        return map_params(direction, mu, hessian), state",
        "-bound, bound)\n\n"
        "        after = ScaleBySophiaState(next_count(state.count), mu, hessian)\n"
        "        return map_params(direction, mu, state.hessian), after",
        "Sophia-H: h after the step",
        "test_golden.py -k sophiah",
    ),
    Mutation(
        "sophia.py",
        "lambda: widen(hutchinson()), b2)",
        "lambda: jax.tree.map(jnp.abs, widen(hutchinson())), b2)",
        "Sophia-H: estimates without their signs",
        "test_golden.py -k sophiah",
    ),
    Mutation(
        "sophia.py",
        "m / jnp.maximum(h, least)",
        "m / (h + least)",
        "Sophia-H: eps added to h instead of its least value",
        "test_golden.py -k sophiah",
    ),
    # ALMVR
    Mutation(
        "block_adam.py",
        "if debias_mean else m",
        "if debias_mean else m * (1 - b)",
        "ALMVR: m not corrected and smaller",
        "test_golden.py -k almvr",
    ),
    Mutation(
        "almvr.py",
        "0.0, blocks, eps_root=self.eps",
        "self.eps, blocks",
        "ALMVR: eps outside the root",
        "test_golden.py -k almvr",
    ),
    Mutation(
        "almvr.py",
        ", debias_mean=False",
        "",
        "ALMVR: bias correction of m",
        "test_golden.py -k almvr",
    ),
    Mutation(
        "almvr.py",
        "scale_by_block_adam(self.b1, self.b2,",
        "scale_by_block_adam(self.b2, self.b1,",
        "ALMVR: betas swapped",
        "test_golden.py -k almvr",
    ),
    Mutation(
        "almvr.py",
        'self.granularity == "tensor"',
        'self.granularity == "element"',
        "ALMVR: granularities swapped",
        "test_golden.py -k almvr",
    ),
    Mutation(
        "almvr.py",
        '("embedding", "attention", "mlp", "head")',
        '("embedding", "attention", "mlp", "norm", "head")',
        "ALMVR: norms decay",
        "test_golden.py -k almvr",
    ),
    # Layer-adaptive AdamW
    Mutation(
        "layer_adaptive.py",
        "(least, base) if self.eps_continuous else (base, least)",
        "(base, least) if self.eps_continuous else (least, base)",
        "layer-adaptive: branches of eps's warmup swapped",
        "test_golden.py -k dyneps",
    ),
    Mutation(
        "layer_adaptive.py",
        "t - warmup if self.eps_continuous else t",
        "t if self.eps_continuous else t - warmup",
        "layer-adaptive: branches of eps's decay swapped",
        "test_golden.py -k dyneps",
    ),
    Mutation(
        "layer_adaptive.py",
        "jnp.where(t < warmup,",
        "jnp.where(t <= warmup,",
        "layer-adaptive: eps jumps a step late",
        "test_identities.py -k eps_over_time",
    ),
    Mutation(
        "layer_adaptive.py",
        "jnp.maximum(late, least))",
        "late)",
        "layer-adaptive: eps falls below its minimum",
        "test_identities.py -k eps_over_time",
    ),
    Mutation(
        "block_adam.py",
        "floor = eps(count) if callable(eps) else eps",
        "floor = eps(state.count) if callable(eps) else eps",
        "layer-adaptive: eps of the step before",
        "test_golden.py -k dyneps",
    ),
    Mutation(
        "layer_adaptive.py",
        "jnp.arange(1, layers + 1, dtype",
        "jnp.arange(2, layers + 2, dtype",
        "layer-adaptive: depth off by one",
        "test_identities.py -k depth_multipliers",
    ),
    Mutation(
        "layer_adaptive.py",
        "max(layers - 1, 1)",
        "layers",
        "layer-adaptive: the line ends a layer early",
        "test_identities.py -k depth_multipliers",
    ),
    Mutation(
        "layer_adaptive.py",
        "s / jnp.mean(s) if self.mean_one",
        "s / jnp.sum(s) if self.mean_one",
        "layer-adaptive: multipliers with sum 1 for mean 1",
        "test_identities.py -k depth_multipliers",
    ),
    Mutation(
        "layer_adaptive.py",
        '-0.5 if self.depth_rule == "inverse_sqrt" else -1.0',
        '-1.0 if self.depth_rule == "inverse_sqrt" else -0.5',
        "layer-adaptive: 1 / l and 1 / sqrt(l) swapped",
        "test_identities.py -k depth_multipliers",
    ),
    Mutation(
        "layer_adaptive.py",
        "_line(first, last, num_layers(updates, labels))",
        "_line(last, first, num_layers(updates, labels))",
        "layer-adaptive: b1 from the last layer to the first",
        "test_identities.py -k a_layer_has_its_rate",
    ),
    Mutation(
        "layer_adaptive.py",
        "one = jnp.ones(())",
        "one = jnp.asarray(self.first_multiplier)",
        "layer-adaptive: embedding and head at the first layer's rate",
        "test_identities.py -k a_layer_has_its_rate",
    ),
    Mutation(
        "layer_adaptive.py",
        "optax.chain(clip_by_layer_norm(self.max_layer_norm, labels), adam)",
        "optax.chain(adam, clip_by_layer_norm(self.max_layer_norm, labels))",
        "layer-adaptive: directions clipped instead of gradients",
        "test_formulas.py -k clipped_before",
    ),
    # SVRM
    Mutation(
        "svrm.py",
        "ema(g, m, gamma) /",
        "ema(m, g, gamma) /",
        "SVRM: gamma and 1 - gamma swapped",
        "test_golden.py -k svrm",
    ),
    Mutation(
        "svrm.py",
        "(jnp.sqrt(v) + jnp.asarray(eps).astype(v.dtype))",
        "jnp.sqrt(v + jnp.asarray(eps).astype(v.dtype))",
        "SVRM: eps inside the root",
        "test_golden.py -k svrm",
    ),
    Mutation(
        "svrm.py",
        '{"attention": self.attention_multiplier, "mlp": self.mlp_multiplier}',
        '{"attention": self.mlp_multiplier, "mlp": self.attention_multiplier}',
        "SVRM: the factors of attention and MLP swapped",
        "test_golden.py -k svrm",
    ),
    Mutation(
        "svrm.py",
        "scale_by_svrm(self.b1, self.b2,",
        "scale_by_svrm(self.b2, self.b1,",
        "SVRM: betas swapped",
        "test_golden.py -k svrm",
    ),
    Mutation(
        "svrm.py",
        '"mlp": self.mlp_multiplier',
        '"mlp": 1.0',
        "SVRM: the MLP's factor not passed on",
        "test_formulas.py -k svrm",
    ),
    # LARS and LAMB
    Mutation(
        "trust_ratio.py",
        "ratio = c * p_norm / (g_norm + wd * p_norm)",
        "ratio = c * g_norm / (p_norm + wd * g_norm)",
        "LARS: the ratio upside down",
        "test_golden.py -k lars",
    ),
    Mutation(
        "trust_ratio.py",
        "optax.chain(ratio if labels is None else per_layer(ratio, labels), heavy_ball(self.momentum))",
        "optax.chain(heavy_ball(self.momentum), ratio if labels is None else per_layer(ratio, labels))",
        "LARS: the momentum scaled instead of the gradients",
        "test_golden.py -k lars",
    ),
    Mutation(
        "trust_ratio.py",
        "(g + wd * p) * jnp.where",
        "g * jnp.where",
        "LARS: no decay",
        "test_formulas.py -k lars",
    ),
    Mutation(
        "trust_ratio.py",
        "self.weight_decay, self.decay_mask(labels))\n        return optax.chain(ratio if",
        "self.weight_decay)\n        return optax.chain(ratio if",
        "LARS: roles that must not decay do",
        'test_table.py -k "decay_is_by_role and lars"',
    ),
    Mutation(
        "trust_ratio.py",
        "scale_by_lars_ratio(self.trust_coefficient,",
        "scale_by_lars_ratio(0.001,",
        "LARS: its coefficient not passed on",
        "test_formulas.py -k lars",
    ),
    Mutation(
        "trust_ratio.py",
        "            optax.add_decayed_weights(self.weight_decay, self.decay_mask(labels)),\n"
        "            ratio if labels is None else per_layer(ratio, labels),\n",
        "            ratio if labels is None else per_layer(ratio, labels),\n"
        "            optax.add_decayed_weights(self.weight_decay, self.decay_mask(labels)),\n",
        "LAMB: decay after the ratio",
        "test_golden.py -k lamb",
    ),
    Mutation(
        "trust_ratio.py",
        "optax.add_decayed_weights(self.weight_decay, self.decay_mask(labels))",
        "optax.add_decayed_weights(self.weight_decay)",
        "LAMB: roles that must not decay do",
        'test_table.py -k "decay_is_by_role and lamb"',
    ),
    Mutation(
        "trust_ratio.py",
        "scale_by_block_adam(self.b1, self.b2, self.eps)",
        "scale_by_block_adam(self.b1, self.b2, 0.0, eps_root=self.eps)",
        "LAMB: eps inside the root",
        "test_golden.py -k lamb",
    ),
    Mutation(
        "trust_ratio.py",
        "            ratio if labels is None else per_layer(ratio, labels),\n",
        "            ratio,\n",
        "LAMB: one norm for all stacked layers",
        'test_table.py -k "stacked_layers and lamb"',
    ),
    # Muon
    Mutation(
        "muon.py",
        "if not self.nesterov",
        "if self.nesterov",
        "Muon: no Nesterov",
        "test_identities.py -k muon",
    ),
    Mutation(
        "muon.py",
        "max(1.0, columns / max(rows, 1)) ** 0.5",
        "max(1.0, rows / max(columns, 1)) ** 0.5",
        "Muon: rows and columns swapped in the scale",
        "test_identities.py -k muon",
    ),
    Mutation(
        "muon.py",
        "* max(rows, columns) ** 0.5",
        "* min(rows, columns) ** 0.5",
        "Muon: the shorter side in the consistent scale",
        "test_identities.py -k muon",
    ),
    Mutation(
        "muon.py",
        '("attention", "mlp")',
        '("attention", "mlp", "head")',
        "Muon: the head too",
        "test_identities.py -k muon",
    ),
    Mutation(
        "muon.py",
        "ns_steps=self.num_iterations",
        "ns_steps=5",
        "Muon: iterations not passed on",
        "test_formulas.py -k muon",
    ),
    # SOAP
    Mutation(
        "soap.py",
        "x = _t(s.left_basis) @ x if s.left.size else x",
        "x = s.left_basis @ x if s.left.size else x",
        "SOAP: rotation by the transposed basis",
        "test_golden.py -k soap",
    ),
    Mutation(
        "soap.py",
        "jnp.sqrt(bias_correction(b2, state.count, g.dtype)) / bias_correction(b1, state.count, g.dtype)",
        "jnp.sqrt(bias_correction(b2, state.count + 1, g.dtype)) / bias_correction(b1, state.count + 1, g.dtype)",
        "SOAP: bias correction counts the first update",
        "test_golden.py -k soap",
    ),
    Mutation(
        "soap.py",
        "turn = state.count % interval == 0",
        "turn = (state.count + 1) % interval == 0",
        "SOAP: bases turn a step early",
        "test_golden.py -k soap",
    ),
    Mutation(
        "soap.py",
        "ema(s.nu, jnp.square(rotated), b2)",
        "ema(s.nu, jnp.square(g), b2)",
        "SOAP: second moment of gradients that are not rotated",
        "test_golden.py -k soap",
    ),
    Mutation(
        "soap.py",
        "s._replace(left_basis=basis, nu=jnp.take_along_axis(s.nu, order[..., :, None], -2))",
        "s._replace(left_basis=basis)",
        "SOAP: nu not ordered with its basis",
        "test_golden.py -k soap",
    ),
    Mutation(
        "soap.py",
        "jnp.linalg.qr(a @ jnp",
        "jnp.linalg.qr(jnp",
        "SOAP: no power iteration",
        "test_golden.py -k soap",
    ),
    Mutation(
        "soap.py",
        "state.count == 0,",
        "state.count < 0,",
        "SOAP: the first update steps",
        "test_golden.py -k soap",
    ),
    Mutation(
        "soap.py",
        "scale_by_soap(self.b1, self.b2,",
        "scale_by_soap(self.b2, self.b1,",
        "SOAP: betas swapped",
        "test_formulas.py -k soap",
    ),
    # MARS
    Mutation(
        "mars.py",
        "* (g - previous)",
        "* (previous - g)",
        "MARS: the correction with the wrong sign",
        "test_golden.py -k mars",
    ),
    Mutation(
        "mars.py",
        "return map_params(corrected, updates, state.previous), ReduceVarianceState(updates)",
        "return (c := map_params(corrected, updates, state.previous)), ReduceVarianceState(c)",
        "MARS: the last corrected gradient for the last gradient",
        "test_golden.py -k mars",
    ),
    Mutation(
        "mars.py",
        "c / jnp.maximum(jnp.linalg.norm(c), 1.0)",
        "c",
        "MARS: corrected gradients not clipped",
        "test_golden.py -k mars",
    ),
    Mutation(
        "mars.py",
        "b1=self.vector_b1, b2=self.vector_b2",
        "b1=self.b1, b2=self.b2",
        "MARS: vectors with the decays of matrices",
        "test_golden.py -k mars",
    ),
    # On optax's shelf
    Mutation(
        "adopt.py",
        "scale_by_adopt(self.b1, self.b2, self.eps)",
        "scale_by_adopt(self.b2, self.b1, self.eps)",
        "ADOPT: betas swapped",
        "test_identities.py -k AdoptConfig",
    ),
    Mutation(
        "ademamix.py",
        "scale_by_ademamix(self.b1, self.b2, self.b3, self.alpha, self.eps)",
        "scale_by_ademamix(self.b1, self.b3, self.b2, self.alpha, self.eps)",
        "AdEMAMix: b2 and b3 swapped",
        "test_identities.py -k AdEMAMixConfig",
    ),
    Mutation(
        "adan.py",
        "scale_by_adan(self.b1, self.b2, self.b3,",
        "scale_by_adan(self.b1, self.b3, self.b2,",
        "Adan: b2 and b3 swapped",
        "test_identities.py -k AdanConfig",
    ),
    Mutation(
        "novograd.py",
        "self.eps, weight_decay=weight_decay)",
        "self.eps)",
        "NovoGrad: no decay",
        "test_identities.py -k NovoGradConfig",
    ),
    Mutation(
        "novograd.py",
        '"decayed" if self.decays(label) else "undecayed"',
        '"decayed"',
        "NovoGrad: roles that must not decay do",
        'test_table.py -k "decay_is_by_role and novograd"',
    ),
    Mutation(
        "prodigy.py",
        "-applied * self.weight_decay",
        "-rate * self.weight_decay",
        "Prodigy: decay not scaled by the estimated rate",
        "test_identities.py -k prodigy",
    ),
    Mutation(
        "prodigy.py",
        "applied = estimated * prodigy_correction(self.b1, self.b2, next_count(before.count), dtype)",
        "applied = estimated",
        "Prodigy: decay without the rate's bias correction",
        "test_identities.py -k prodigy",
    ),
    Mutation(
        "prodigy.py",
        "-applied * self.weight_decay",
        "-applied / before.estim_lr * after.estim_lr * self.weight_decay",
        "Prodigy: decay by the estimate after the update",
        "test_formulas.py -k prodigy",
    ),
    Mutation(
        "prodigy.py",
        "growth=self.growth",
        "growth=1.0",
        "Prodigy: the estimate grows without its factor",
        "test_formulas.py -k prodigy",
    ),
    Mutation(
        "prodigy.py",
        "decay_mask, dtype = self.decay_mask(labels),",
        "decay_mask, dtype = None,",
        "Prodigy: roles that must not decay do",
        'test_table.py -k "decay_is_by_role and prodigy"',
    ),
    Mutation(
        "schedule_free.py",
        "g / (jnp.sqrt(v / bias_correction(decay, count, v.dtype)) + as_dtype_of(eps, v))",
        "g / (jnp.sqrt(v) + as_dtype_of(eps, v))",
        "schedule-free: no bias correction",
        "test_identities.py -k ScheduleFreeAdamWConfig",
    ),
    Mutation(
        "schedule_free.py",
        "optax.contrib.schedule_free(base, rate, self.b1)",
        "optax.contrib.schedule_free(base, rate)",
        "schedule-free: b1 not passed on",
        "test_formulas.py -k schedule_free",
    ),
    Mutation(
        "schedule_free.py",
        "(y - (1 - b1) * z) / b1",
        "(y - b1 * z) / (1 - b1)",
        "eval_params: b1 and 1 - b1 swapped",
        "test_identities.py -k evaluated_parameters",
    ),
    Mutation(
        "schedule_free.py",
        "y if is_masked(z) else ((y - (1 - b1) * z) / b1).astype(y.dtype)",
        "y if is_masked(z) else z",
        "eval_params: the iterate for its average",
        "test_identities.py -k evaluated_parameters",
    ),
    # Clipping
    Mutation(
        "clipping.py",
        "(global_norm(updates) + 1e-6)",
        "global_norm(updates)",
        "clipping: no 1e-6",
        "test_config.py -k clipping",
    ),
    Mutation(
        "clipping.py",
        "scale = jnp.minimum(1.0, max_norm",
        "scale = jnp.maximum(0.0, max_norm",
        "clipping: small gradients grow to the bound",
        "test_config.py -k clipping",
    ),
    Mutation(
        "clipping.py",
        "layers.at[positions[label.layer]].add(",
        "layers.at[positions[label.layer]].set(",
        "clipping by layer: the norm of a layer's last tensor alone",
        "test_identities.py -k clipping_by_layer",
    ),
    Mutation(
        "clipping.py",
        "max_norm / (jnp.sqrt(squares) + 1e-6)",
        "max_norm / (squares + 1e-6)",
        "clipping by layer: squared norms",
        "test_identities.py -k clipping_by_layer",
    ),
    Mutation(
        "clipping.py",
        "jnp.sum(jnp.square(x), tuple(range(1, x.ndim)))",
        "jnp.sum(jnp.square(x))",
        "clipping by layer: stacked layers share a norm",
        'test_table.py -k "stacked_layers and layer_adaptive"',
    ),
    # Arithmetic
    Mutation(
        "trees.py",
        "-jnp.expm1(count.astype(dtype) * ",
        "-jnp.expm1((count + 1).astype(dtype) * ",
        "bias correction: t off by one",
        "test_golden.py -k adalayer_wd0",
    ),
    Mutation(
        "trees.py",
        "-jnp.expm1(count.astype(dtype) * ",
        "jnp.exp(count.astype(dtype) * ",
        "bias correction: b^t for 1 - b^t",
        "test_golden.py -k adalayer_wd0",
    ),
    Mutation(
        "trees.py",
        "decay_and_add(old, one_minus(decay, old.dtype) * new, decay)",
        "decay_and_add(old, jnp.asarray(decay).astype(old.dtype) * new, one_minus(decay, old.dtype))",
        "averages: decay and 1 - decay swapped",
        "test_golden.py -k sophiah",
    ),
    Mutation(
        "trees.py",
        "decay_and_add(old, one_minus(decay, old.dtype) * new, decay)",
        "decay_and_add(old, new, decay)",
        "averages: sums",
        "test_golden.py -k almvr",
    ),
    Mutation(
        "trees.py",
        "1 - np.asarray(decay, np.float64)",
        "1 - np.asarray(decay, np.float32)",
        "digits: 1 - decay of a rounded decay",
        "test_decays.py -k averages",
    ),
    Mutation(
        "trees.py",
        "(jnp.asarray(rest) * old + added if rest.any() else added)",
        "added",
        "digits: averages decay by a rounded decay",
        "test_decays.py -k averages",
    ),
    Mutation(
        "trees.py",
        "np.log(np.asarray(decay, np.float64))",
        "np.log(np.asarray(decay, np.float32))",
        "digits: bias correction of a rounded decay",
        "test_decays.py -k bias_corrections",
    ),
    Mutation(
        "groups.py",
        "{number: position for position, number in enumerate(numbers)}",
        "{number: number for number in numbers}",
        "layers: numbered from 1 counted from 0",
        "test_partial.py -k position",
    ),
    Mutation(
        "trees.py",
        "sum(x.reshape(-1, _ROWS, *x.shape[1:])[:, i] for i in range(_ROWS))",
        "sum(x.reshape(-1, _ROWS, *x.shape[1:])[:, i] for i in range(_ROWS - 1))",
        "sums of squares: one row of 32 left out",
        "test_identities.py -k sums_of_squares",
    ),
    Mutation(
        "trees.py",
        "jnp.sum(jnp.square(x), reduced, keepdims=True)",
        "jnp.square(jnp.sum(x, reduced, keepdims=True))",
        "sums of squares: squares of sums",
        "test_golden.py -k adalayer_wd0",
    ),
    # Momenta in bfloat16
    Mutation(
        "trees.py",
        "x.astype(like.dtype), state, computed_in)",
        "x, state, computed_in)",
        "bfloat16 momenta: the update is computed in bfloat16",
        'test_table.py -k "momenta_in_bfloat16 and (lars or adopt or novograd)"',
    ),
    Mutation(
        "trees.py",
        "return _narrow_momenta(_copied(inner.init(wide), wide), wide, mu_dtype)",
        "return inner.init(wide)",
        "bfloat16 momenta: they are not",
        'test_table.py -k "momenta_in_bfloat16 and svrm"',
    ),
    Mutation(
        "trees.py",
        '"m1", "m",',
        '"m1", "m2", "m",',
        "bfloat16 momenta: AdEMAMix's slow average too",
        'test_table.py -k "momenta_in_bfloat16 and ademamix"',
    ),
    Mutation(
        "trees.py",
        "is_leaf=lambda node: structure(node) == below",
        "is_leaf=None",
        "bfloat16 momenta: names of parameters are taken for them",
        "test_table.py -k names_of_parameters",
    ),
    Mutation(
        "mars.py",
        '"decay_roles", "mu_dtype", "eps")',
        '"decay_roles", "eps")',
        "bfloat16 momenta: not those of MARS's vectors",
        'test_table.py -k "momenta_in_bfloat16 and mars"',
    ),
    Mutation(
        "telemetry.py",
        "part._replace(mu=widen(part.mu))",
        "part",
        "telemetry: bfloat16 momenta are bias-corrected in bfloat16",
        "test_telemetry.py -k momenta_in_bfloat16",
    ),
    # Axes, layers, groups
    Mutation(
        "groups.py",
        "label.role in roles and len(matrix_axes(label)) == 2",
        "label.role in roles",
        "is_matrix: vectors too",
        "test_golden.py -k mars",
    ),
    Mutation(
        "groups.py",
        "joins = axis in _HEAD_AXES and groups and label.axes[groups[-1][-1]] in _HEAD_AXES",
        'joins = axis in ("heads", "kv_heads") and groups',
        "matrix_axes: a per-head kernel is the matrix [d * H, K]",
        "test_golden.py -k adafactor_authors",
    ),
    Mutation(
        "groups.py",
        'split = 1 if label.axes[groups[0][0]] == "out" else len(groups) - 1',
        "split = len(groups) - 1",
        "matrix_axes: a convolution whose output comes first is split before its last axis",
        "test_habits.py -k convolution",
    ),
    Mutation(
        "groups.py",
        'return groups[0] if label.axes[groups[0][0]] == "out" else groups[-1]',
        "return groups[-1]",
        "output_axes: the last, where the first is",
        "test_habits.py -k muon_scales",
    ),
    Mutation(
        "groups.py",
        "lambda _: groups)",
        "groups)",
        "partition: optax calls an equinox module",
        'test_habits.py -k "equinox_modules and frozen"',
    ),
    Mutation(
        "labelling.py",
        "dataclasses.replace(label, decays=bool(flag))",
        "label",
        "a mask of what decays is not heard",
        'test_habits.py -k "a_mask_decays and lars"',
    ),
    Mutation(
        "groups.py",
        'names = ("layers", *by_role.get(label.role, ()))',
        "names = by_role.get(label.role, ())",
        "axes_kept: stacked layers share a second moment",
        'test_table.py -k "stacked_layers and adalayer_star"',
    ),
    Mutation(
        "groups.py",
        "per_layer.reshape(-1, *(1,) * (x.ndim - 1))",
        "per_layer[::-1].reshape(-1, *(1,) * (x.ndim - 1))",
        "by_layer: stacked layers from the last to the first",
        'test_table.py -k "stacked_layers and layer_adaptive"',
    ),
    Mutation(
        "groups.py",
        '        lambda label: "stacked" if label.axes[:1] == ("layers",) else "single",\n',
        '        lambda label: "single",\n',
        "per_layer: stacked layers as one tensor",
        'test_table.py -k "stacked_layers and lars"',
    ),
    Mutation(
        "groups.py",
        "len(layer_positions(labels)),",
        "max(len(layer_positions(labels)) - 1, 0),",
        "num_layers: one too few",
        "test_groups.py -k rules_label",
    ),
    Mutation(
        "groups.py",
        "per_layer[positions[label.layer]]",
        "per_layer[positions[label.layer] - 1]",
        "by_layer: layers off by one",
        "test_identities.py -k a_layer_has_its_rate",
    ),
    # Curvature
    Mutation(
        "curvature.py",
        "(jax.vmap(jax.random.categorical) if per_row else jax.random.categorical)(key, logits)",
        "jnp.argmax(logits, -1)",
        "Gauss-Newton-Bartlett: the likeliest label for a draw",
        "test_identities.py -k estimators",
    ),
    Mutation(
        "curvature.py",
        "jnp.full(labels.shape, 1 / labels.size)",
        "jnp.full(labels.shape, 1.0)",
        "Gauss-Newton-Bartlett: the gradient of the summed loss",
        "test_identities.py -k estimators",
    ),
    Mutation(
        "curvature.py",
        "if weights is None else weights",
        "if weights is None else jnp.full(labels.shape, 1 / labels.size)",
        "Gauss-Newton-Bartlett: weights ignored",
        "test_identities.py -k estimators",
    ),
    Mutation(
        "curvature.py",
        "jax.tree.map(jnp.multiply, z, product)",
        "jax.tree.map(jnp.multiply, product, product)",
        "Hutchinson: (H z)^2 for z * (H z)",
        "test_identities.py -k estimators",
    ),
    # Schedules
    Mutation(
        "schedules.py",
        "s, total = s + 1 - lead, total - lead",
        "s, total = s - lead, total - lead",
        "schedules: s from 0",
        "test_schedules.py -k recorded_cosine",
    ),
    Mutation(
        "schedules.py",
        "s, total = s + 1 - lead, total - lead",
        "s, total = s + 1, total",
        "schedules: run during the calibration",
        "test_schedules.py -k recorded_calibration",
    ),
    Mutation(
        "schedules.py",
        "s, total = s + 1 - lead, total - lead",
        "s, total = s + 1 - lead, total",
        "schedules: longer by the calibration",
        "test_schedules.py -k recorded_calibration",
    ),
    Mutation(
        "schedules.py",
        "(1 - self.start_fraction) * s / jnp.maximum(w, 1)",
        "(1 - self.start_fraction) * (s - 1) / jnp.maximum(w, 1)",
        "schedules: warmup a step late",
        "test_schedules.py -k warmup_is_linear",
    ),
    Mutation(
        "schedules.py",
        "return rounded(fraction * total)",
        "return fraction * total",
        "schedules: a fraction's steps not rounded",
        "test_schedules.py -k fraction",
    ),
    Mutation(
        "schedules.py",
        "self.warmup_fraction, total, jnp.round",
        "self.warmup_fraction, total + lead, jnp.round",
        "schedules: a fraction of the calibration too",
        "test_schedules.py -k fraction",
    ),
    # Telemetry
    Mutation(
        "telemetry.py",
        "x / bias_correction(decay, count, x.dtype)",
        "x",
        "telemetry: moments not bias-corrected",
        "test_telemetry.py -k optax.adam",
    ),
    Mutation(
        "telemetry.py",
        "_cosine(-u, jnp.sign(m))",
        "_cosine(u, jnp.sign(m))",
        "telemetry: cosine of the update, not of its negative",
        "test_telemetry.py -k signum",
    ),
    Mutation(
        "telemetry.py",
        '"q25": 0.25',
        '"q25": 0.75',
        "telemetry: quartiles swapped",
        "test_telemetry.py -k by_role",
    ),
    # The decoder
    Mutation(
        "model/decoder.py",
        "q_BLHK = self.q_norm(_join_heads(q_BLHK), place).reshape(q_BLHK.shape)",
        "q_BLHK = jax.nn.standardize(q_BLHK, epsilon=1e-5) * self.q_norm.scale[...].reshape(1, 1, *q_BLHK.shape[2:])",
        "query-key norm: queries per head",
        "model/test_decoder.py -k recorded_query_key_norm",
    ),
    Mutation(
        "model/decoder.py",
        "            k_BLGK = self.k_norm(_join_heads(k_BLGK), place).reshape(k_BLGK.shape)\n        elif",
        "            k_BLGK = self.k_norm(_join_heads(rotary(k_BLGK, c.rope_theta)), place).reshape(k_BLGK.shape)\n"
        "            mixed_BLHK = causal_attention(rotary(q_BLHK, c.rope_theta), k_BLGK, v_BLGK)\n"
        "            return _dot(_join_heads(mixed_BLHK), _used(self.out, dtype, place).reshape(-1, c.embed_dim))\n"
        "        elif",
        "query-key norm: keys after the rotation",
        "model/test_decoder.py -k recorded_query_key_norm",
    ),
    Mutation(
        "model/decoder.py",
        'if self.config.norm == "layernorm":',
        'if self.config.norm == "layernorm" and self.scale.get_metadata()["axes"] == ("embed",):',
        "query-key norm: the mean is not subtracted",
        "model/test_decoder.py -k recorded_query_key_norm",
    ),
    Mutation(
        "model/decoder.py",
        "self.k_norm(_join_heads(k_BLGK), place)",
        "self.q_norm(_join_heads(k_BLGK), place)",
        "query-key norm: keys with the queries' scale",
        "model/test_decoder.py -k recorded_query_key_norm",
    ),
    Mutation(
        "model/decoder.py",
        "+ self.config.norm_eps)",
        '+ (1e-6 if self.scale.get_metadata()["axes"] == ("heads",) else 1e-5))',
        "query-key norm: eps 1e-6",
        "model/test_decoder.py -k recorded_query_key_norm",
    ),
    Mutation(
        "model/decoder.py",
        "(jnp.arange(half, dtype=wide.dtype) / half)",
        "(jnp.arange(half, dtype=wide.dtype) / (2 * half))",
        "RoPE: exponents half as large",
        "model/test_decoder.py -k recorded_query_key_norm",
    ),
    Mutation(
        "model/decoder.py",
        "first, second = wide[..., :half], wide[..., half:]",
        "first, second = wide[..., ::2], wide[..., 1::2]",
        "RoPE: pairs of neighbours, not of halves",
        "model/test_decoder.py -k recorded_query_key_norm",
    ),
    Mutation(
        "model/decoder.py",
        "preferred_element_type=wide) * width**-0.5",
        "preferred_element_type=wide) * (heads * width) ** -0.5",
        "attention: scaled by the width of all heads",
        "model/test_decoder.py -k recorded_query_key_norm",
    ),
    Mutation(
        "model/decoder.py",
        "approximate=False",
        "approximate=True",
        "GELU: by tanh",
        "model/test_decoder.py -k recorded_query_key_norm",
    ),
    Mutation(
        "model/decoder.py",
        "self.mlp(self.mlp_norm(x_BLD, place), place)",
        "self.mlp(self.attention_norm(x_BLD, place), place)",
        "block: the MLP has the attention's norm",
        "model/test_decoder.py -k recorded_query_key_norm",
    ),
    Mutation(
        "model/decoder.py",
        "(layer + 1).astype(dtype)",
        "(layer + 2).astype(dtype)",
        "inverse layer scale: from two",
        "model/test_decoder.py -k inverse_layer_scale",
    ),
    Mutation(
        "model/decoder.py",
        "2 * (np.arange(config.num_layers) + 1.0)",
        "2 * np.arange(config.num_layers) + 1.0",
        "init: depth off by one half",
        "model/test_decoder.py -k init_statistics",
    ),
    Mutation(
        "model/decoder.py",
        "_out_std(config, config.mlp_dim)[layer]",
        "_out_std(config, config.embed_dim)[layer]",
        "init: the MLP's output by its other width",
        "model/test_decoder.py -k init_statistics",
    ),
    Mutation(
        "model/decoder.py",
        "truncated_normal(key, -3, 3,",
        "truncated_normal(key, -2, 2,",
        "init: truncated at 2 sigma",
        "model/test_decoder.py -k init_statistics",
    ),
    Mutation(
        "model/decoder.py",
        "_used(self.embed, dtype, place).astype(_wide(dtype))",
        "_used(self.embed, dtype, place)",
        "embedding: its gradient is summed in bfloat16",
        "training/test_step.py -k bfloat16_are",
    ),
    Mutation(
        "model/decoder.py",
        "wide = x.astype(_wide(x.dtype))",
        "wide = x",
        "norms: computed in bfloat16",
        "model/test_decoder.py -k 'rounded or in_bfloat16'",
    ),
    Mutation(
        "model/decoder.py",
        "wide = x_BLHK.astype(_wide(x_BLHK.dtype))",
        "wide = x_BLHK",
        "RoPE: angles in bfloat16",
        "model/test_decoder.py -k 'rounded or in_bfloat16'",
    ),
    Mutation(
        "model/decoder.py",
        "    wide = _wide(q_BLHK.dtype)\n",
        "    wide = q_BLHK.dtype\n",
        "attention: logits and softmax in bfloat16",
        "model/test_decoder.py -k 'rounded or in_bfloat16'",
    ),
    Mutation(
        "model/decoder.py",
        "_dot(x_BLD, head_DV, preferred_element_type=_wide(dtype))",
        "_dot(x_BLD, head_DV).astype(_wide(dtype))",
        "head: logits rounded to bfloat16",
        "model/test_decoder.py -k 'rounded or in_bfloat16'",
    ),
    # Loss, step, evaluation
    Mutation(
        "training/step.py",
        "batch_tokens=num_targets(batch)",
        "batch_tokens=batch.tokens.size",
        "Sophia-G: n counts all tokens, not targets",
        "training/test_step.py -k sophia_divides",
    ),
    Mutation(
        "training/loss.py",
        "probability_TV * (d_ce_T + d_log_z_T)[:, None]",
        "probability_TV * d_ce_T[:, None]",
        "loss: no gradient of z-loss",
        "training/test_loss.py -k 'values or count'",
    ),
    Mutation(
        "training/loss.py",
        "jnp.roll(batch.is_target.at[:, 0].set(0), -1, axis=1)",
        "jnp.roll(batch.is_target, -1, axis=1)",
        "loss: the last position predicts the first token",
        "training/test_loss.py -k 'values or count'",
    ),
    Mutation(
        "training/loss.py",
        "jnp.sum(batch.is_target[:, 1:])",
        "jnp.sum(batch.is_target)",
        "loss: column 0 counts as a target",
        "training/test_loss.py -k 'values or count'",
    ),
    Mutation(
        "training/loss.py",
        "jnp.sum(jnp.square(log_z_T) * weight_T)",
        "jnp.sum(jnp.square(log_z_T)) * jnp.mean(weight_T)",
        "z-loss: of padding too",
        "training/test_loss.py -k 'values or count'",
    ),
    Mutation(
        "training/step.py",
        "ce + self.z_loss * log_z_squared, (ce",
        "ce + log_z_squared, (ce",
        "step: z-loss without its weight",
        "training/test_step.py -k metrics_say",
    ),
    Mutation(
        "model/decoder.py",
        "embed_VD.astype(dtype).T if",
        "jax.lax.stop_gradient(embed_VD).astype(dtype).T if",
        "tied embedding: no gradient of the head",
        "model/huggingface/test_exchange.py -k recorded_logits",
    ),
    Mutation(
        "training/step.py",
        "_CURVATURE), state.step)",
        "_CURVATURE), 0)",
        "step: the same draws of curvature at every step",
        'training/test_step.py -k "sophia_divides or rows_without or every_estimate"',
    ),
    Mutation(
        "training/step.py",
        "count = num_targets(self.batch)\n        ce",
        "count = num_targets(part)\n        ce",
        "microbatches: each a mean of its own",
        "training/test_step.py -k microbatches_are",
    ),
    Mutation(
        "training/step.py",
        "target_weights(part) / count, index",
        "target_weights(part) / self.batch.tokens.size, index",
        "Sophia-G: sampled gradients of a mean over all tokens",
        'training/test_step.py -k "sophia_divides or rows_without or every_estimate"',
    ),
    Mutation(
        "training/step.py",
        "index + self.num_parts * jnp.arange(len(part.tokens))",
        "jnp.arange(len(part.tokens))",
        "microbatches: rows of two parts draw alike",
        "training/test_step.py -k estimates_are",
    ),
    Mutation(
        "training/step.py",
        "hparams.multiplier(state.step)",
        "hparams.multiplier(state.step + 1)",
        "step: the schedule a step early",
        'training/test_step.py -k "metrics_say or calibration"',
    ),
    Mutation(
        "training/step.py",
        "self.num_train_steps, self.optimizer.calibration_steps)",
        "self.num_train_steps, 0)",
        "step: the schedule runs during the calibration",
        "training/test_step.py -k calibration",
    ),
    Mutation(
        "training/step.py",
        '"params/norm": global_norm(params)',
        '"params/norm": global_norm(state.params)',
        "metrics: the parameters' norm before the update",
        "training/test_step.py -k metrics_say",
    ),
    Mutation(
        "training/step.py",
        "return ce, num_targets(batch)",
        "return ce, jnp.sum(batch.is_target)",
        "evaluation: column 0 counts as a target",
        "training/test_step.py -k evaluation_is",
    ),
)


def within(folder: str, file: str) -> str:
    """The path of a mutation's file or tests, which lie in the folder `optimizers` unless they name another."""
    return f"{folder}/{file}" if "/" in file else f"{folder}/optimizers/{file}"


class Outcome(NamedTuple):
    """What a run of pytest said.

    Attributes:
      code: its exit code: 0 all passed, 1 some failed; 2 and more: it did not come that far.
      failed: the first test that failed; empty for none.
      message: why.
      output: all it printed.
    """

    code: int
    failed: str
    message: str
    output: str

    @property
    def caught(self) -> bool:
        """Whether an assertion failed: not an import, a fixture or an operation on shapes that do not fit."""
        return self.code == 1 and self.message.startswith(("AssertionError", "assert "))


def check_pieces(folder: Path) -> None:
    """Ends the script unless every mutation changes the one place it is meant for."""
    counts = [(folder / within("jaxopt_lm", mutation.file)).read_text().count(mutation.old) for mutation in MUTATIONS]
    wrong = [
        f"mutation {number} ({mutation.what}): its old text occurs {count} times in {mutation.file}, not once"
        for number, (mutation, count) in enumerate(zip(MUTATIONS, counts, strict=True), 1)
        if count != 1
    ]
    if wrong:
        sys.exit("\n".join(wrong))


def copy_of_the_project(folder: Path) -> None:
    """The package, its tests and pytest's settings; recorded trajectories by a link."""
    for name in ("jaxopt_lm", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("golden", "__pycache__"))
    (folder / "tests" / "golden").symlink_to(ROOT / "tests" / "golden")
    shutil.copy(ROOT / "pyproject.toml", folder)


def run_tests(folder: Path, selection: tuple[str, str]) -> Outcome:
    """pytest -x in a copy. A thread has its own compilation cache: JAX reads what another process half wrote."""
    cache = folder.parent / threading.current_thread().name
    file, expression = selection
    saved = folder.with_name(f"{folder.name}_{Path(file).name}.xml")
    command = [sys.executable, "-m", "pytest", "-x", "--full", within("tests", file), "-k", expression]
    settings = {"JAX_PLATFORMS": "cpu", "JAXOPT_LM_TEST_CACHE": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    settings["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    done = subprocess.run(
        [*command, f"--junitxml={saved}"],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    failed, message = first_failure(saved) if saved.exists() else ("", "")
    return Outcome(done.returncode, failed, message, done.stdout + done.stderr)


def first_failure(report: Path) -> tuple[str, str]:
    """(test, message) of the first failure in a report in JUnit's format, or empty strings."""
    for case in ElementTree.parse(report).iter("testcase"):
        for failure in (*case.iter("failure"), *case.iter("error")):
            name = f"{case.get('classname', '').rpartition('.')[2]}.py::{case.get('name')}"
            return name, failure.get("message", "")
    return "", ""


def run_mutation(original: Path, number: int, mutation: Mutation) -> tuple[Outcome, float]:
    """(What the tests said, seconds) of a copy of the original with one formula wrong."""
    start = time.monotonic()
    folder = original.parent / str(number)
    shutil.copytree(original, folder, symlinks=True)
    path = folder / within("jaxopt_lm", mutation.file)
    path.write_text(path.read_text().replace(mutation.old, mutation.new))
    outcome = run_tests(folder, selection_of(mutation))
    shutil.rmtree(folder)
    return outcome, time.monotonic() - start


def selection_of(mutation: Mutation) -> tuple[str, str]:
    """(File, expression) of the tests of a mutation."""
    file, _, expression = shlex.split(mutation.tests)
    return file, expression


def union(mutations: Iterable[Mutation]) -> list[tuple[str, str]]:
    """One selection a file that selects what any of the mutations does."""
    expressions = collections.defaultdict(dict)
    for file, expression in map(selection_of, mutations):
        expressions[file][expression] = None
    return [(file, " or ".join(f"({each})" for each in found)) for file, found in expressions.items()]


def verdict(outcome: Outcome) -> str:
    """The failing test, SURVIVED, or INVALID and why."""
    if outcome.caught:
        return outcome.failed
    if outcome.code == 0:
        return "SURVIVED"
    lines = (outcome.message or outcome.output).strip().splitlines() or ["no output"]
    return f"INVALID (pytest's exit code {outcome.code}, {outcome.failed or 'no test'}: {lines[0]})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--only", default="", help="mutations whose file, description or tests contain this")
    args = parser.parse_args()
    chosen = {
        number: mutation
        for number, mutation in enumerate(MUTATIONS, 1)
        if args.only in f"{mutation.file} {mutation.what} {mutation.tests}"
    }
    if not chosen:
        parser.error(f"--only={args.only}: no mutation has it")
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(args.jobs, "compiled") as pool:
        original = Path(root, "original")
        copy_of_the_project(original)
        check_pieces(original)
        start = time.monotonic()
        if not control_passes(original, pool, chosen.values()):
            return 1
        print(f"control: passed, {time.monotonic() - start:.0f} s", flush=True)
        caught = sum(outcomes(original, pool, chosen))
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(f"{len(chosen)} wrong formulas, {caught} caught, {minutes} min {seconds} s")
    return 0 if caught == len(chosen) else 1


def control_passes(original: Path, pool: ThreadPoolExecutor, mutations: Iterable[Mutation]) -> bool:
    """Whether all that the mutations select passes where nothing was done; without it no failure means anything."""
    selections = union(mutations)
    for (file, _), outcome in zip(selections, pool.map(partial(run_tests, original), selections), strict=True):
        if outcome.code != 0:
            print(outcome.output, f"control: {file} fails without a mutation, so nothing can be said", sep="\n")
            return False
    return True


def outcomes(original: Path, pool: ThreadPoolExecutor, chosen: dict[int, Mutation]) -> Iterator[bool]:
    """Runs the mutations and prints a line for each; whether it was caught."""
    results = pool.map(partial(run_mutation, original), chosen.keys(), chosen.values())
    for (number, mutation), (outcome, seconds) in zip(chosen.items(), results, strict=True):
        print(f"{number:3d}  {mutation.file}  {mutation.what}  {verdict(outcome)}  {seconds:.0f} s", flush=True)
        yield outcome.caught


if __name__ == "__main__":
    sys.exit(main())
