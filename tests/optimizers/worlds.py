"""Small trees of parameters to try optimizers on, and one row for every registered optimizer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxopt_lm import model
from jaxopt_lm.labels import Label
from jaxopt_lm.model import ModelConfig
from jaxopt_lm.optimizers import OPTIMIZERS, OptimizerConfig

LABELS = {
    "embed": Label(("vocab", "embed"), "embedding"),
    "query": Label(("embed", "heads", "head_dim"), "attention"),
    "mlp": Label(("embed", "mlp"), "mlp"),
    "norm": Label(("embed",), "norm"),
    "head": Label(("embed", "vocab"), "head"),
}
"""Of the recorded leaves."""

FIELDS: dict[str, dict[str, Any]] = {
    "adafactor": {},
    "adafactor_big_vision": {"min_dim_size_to_factor": 4},
    "adalayer": {},
    "adalayer_star": {"first_layer": True},
    "adam_mini": {},
    "adamw": {},
    "adan": {},
    "ademamix": {},
    "adopt": {},
    "almvr": {"granularity": "tensor"},
    "frozen": {"calibration_steps": 2},
    "hybrid": {"learning_rate": 0.1, "untrained_roles": ("embedding",)},
    "lamb": {},
    "lars": {"learning_rate": 1.0},
    "layer_adaptive_adamw": {"b1_first": 0.85, "b1_last": 0.95, "max_layer_norm": 1.0, "depth_rule": "inverse_sqrt"},
    "lion": {},
    "mars": {},
    "muon": {},
    "novograd": {},
    "prodigy": {"first_estimate": 1e-3},
    "schedule_free_adamw": {},
    "sgdw": {"dampening": 0.5, "nesterov": True, "learning_rate": 0.1},
    "signum": {},
    "soap": {"interval": 2},
    "sophia": {"interval": 2},
    "sophia_h": {"interval": 2},
    "svrm": {},
}
"""The row of every registered optimizer: fields that make short runs interesting."""


def slice_of(*names):
    """Parametrises over every optimizer; only `names` without --full."""
    every = [name if name in names else pytest.param(name, marks=pytest.mark.full) for name in OPTIMIZERS]
    return pytest.mark.parametrize("name", every)


def config_of(name, **fields):
    return OPTIMIZERS[name](**(FIELDS[name] | fields))


def with_narrow_momenta(config):
    """The config with `mu_dtype` bfloat16, in the configs inside it too."""
    inner = {name: with_narrow_momenta(x) for name, x in vars(config).items() if isinstance(x, OptimizerConfig)}
    return dataclasses.replace(config, mu_dtype="bfloat16", **inner)


TINY = ModelConfig(
    vocab_size=10, num_layers=2, embed_dim=8, num_heads=2, num_kv_heads=1, mlp_dim=12, compute_dtype="float32"
)


def tiny_model(*, scan_layers: bool) -> ModelConfig:
    return dataclasses.replace(TINY, scan_layers=scan_layers)


def random_tree(like, step, dtype=jnp.float32, scale=1.0):
    """Normal draws of the shapes of `like`, other ones at every step."""
    leaves, treedef = jax.tree.flatten(like)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(7), step + 1), len(leaves))
    draws = [scale * jax.random.normal(k, x.shape, jnp.float32) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, [x.astype(dtype) for x in draws])


def tiny_params(dtype=jnp.float32):
    """Parameters and labels of the tiny model, unrolled."""
    config = tiny_model(scan_layers=False)
    return random_tree(model.shapes(config), -1, dtype), model.labels(config)


def update_once(config, labels, state, params, grads, multiplier=1.0):
    """One update with curvature at hand: (updates, state)."""
    return config.make(multiplier, labels).update(
        grads,
        state,
        params,
        sampled_grads=lambda: jax.tree.map(lambda g: 2 * g, grads),
        batch_tokens=100,
        hutchinson=lambda: jax.tree.map(jnp.abs, grads),
    )


def run(config, labels, params, grads, multiplier=1.0):
    """Updates with each of `grads`, a list of trees, under lax.scan: (list of parameters after each, last state).

    Numbers are arguments of the program, so runs that differ in them share its compilation.
    """

    def steps(config, multiplier, params, stacked):
        def step(carry, g):
            moved, state = carry
            updates, state = update_once(config, labels, state, moved, g, multiplier)
            moved = optax.apply_updates(moved, updates)
            return (moved, state), moved

        (_, state), moved = jax.lax.scan(step, (params, config.make(multiplier, labels).init(params)), stacked)
        return [jax.tree.map(lambda x, i=i: x[i], moved) for i in range(len(grads))], state

    return jax.jit(steps)(config, multiplier, params, jax.tree.map(lambda *xs: jnp.stack(xs), *grads))
