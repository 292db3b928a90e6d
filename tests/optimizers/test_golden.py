"""Every optimizer against trajectories recorded from public implementations (`tests/golden/README.md`)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_lm import optimizers as o
from jaxopt_lm.optimizers.config import OptimizerConfig
from jaxopt_lm.optimizers.trees import map_params
from tests.conftest import GOLDEN
from tests.optimizers.worlds import LABELS

RATES = {"learning_rate": 1.0}
D = {"b1": 0.9, "b2": 0.95, "eps": 1e-15} | RATES  # of arXiv 2407.07972
STAR = o.AdalayerStarConfig(**(D | {"learning_rate": 0.01}))  # hybrids: the recorded SGD rate is 100 times this one


def hybrid(adaptive, roles=("norm", "head"), untrained=()):
    return o.HybridConfig(b1=0.9, adaptive=adaptive, adaptive_roles=roles, untrained_roles=untrained, **RATES)


class LeafMultipliers(o.LayerAdaptiveAdamWConfig):
    """The recorded factors of A2's file belong to leaves, not to layers."""

    def rate_multipliers(self, labels):
        factors = {"attention": 1.1, "mlp": 1.05, "head": 1.2}
        return lambda updates: map_params(lambda _, label: factors.get(label.role, 1.0), updates, labels)


A2 = LeafMultipliers(
    b1=0.9,
    b2=0.95,
    weight_decay=0.1,
    eps=0.01,
    eps_min=0.001,
    eps_warmup_steps=8,
    eps_decay_steps=5,
    eps_decay_power=0.5,
    **RATES,
)

ROWS: list[tuple[str, OptimizerConfig]] = [
    ("adafactor_authors_wd0", o.AdafactorConfig(one_scalar_1d=True, **D)),
    ("adafactor_bv_f64", o.AdafactorBigVisionConfig(min_dim_size_to_factor=4, **RATES)),
    ("adalayer_star_wd0", o.AdalayerStarConfig(**D)),
    ("adalayer_star_wd0_f32", o.AdalayerStarConfig(**D)),
    ("adalayer_wd0", o.AdalayerConfig(**D)),
    ("adam_mini_b95_eps1e-8_wd0", o.AdamMiniConfig(b1=0.9, b2=0.95, eps=1e-8, **RATES)),
    ("adamw_b95_eps1e-15_wd0", o.AdamWConfig(**D)),
    ("adamw_b95_eps1e-15_wd0.1_f32", o.AdamWConfig(weight_decay=0.1, **D)),
    ("frozen_adalayer_star_last_norm", o.FrozenConfig(calibration_steps=6, **D)),
    (
        "hybrid_sgd_adafactor_last_norm_wd0",
        hybrid(o.AdafactorConfig(one_scalar_1d=True, **(D | {"learning_rate": 0.01}))),
    ),
    ("hybrid_sgd_adalayer_last_norm_wd0", hybrid(STAR)),
    ("hybrid_sgd_adalayer_last_only_no_norm_training_wd0", hybrid(STAR, ("head",), ("norm",))),
    ("lamb_wd0.1", o.LambConfig(b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.1, **RATES)),
    ("lars_m90_wd0", o.LarsConfig(momentum=0.9, trust_coefficient=0.001, **RATES)),
    ("lion_b90_b95_wd0", o.LionConfig(b1=0.9, b2=0.95, **RATES)),
    ("mars", o.MarsConfig(b1=0.95, b2=0.99, eps=1e-8, gamma=0.025, **RATES)),
    ("mars_wd0.1", o.MarsConfig(b1=0.95, b2=0.99, eps=1e-8, gamma=0.025, weight_decay=0.1, **RATES)),
    ("numpy_adafactor_paper_1d_elementwise_wd0", o.AdafactorConfig(**D)),
    ("numpy_adalayer_alg1_literal_p_minus_half_wd0", o.AdalayerConfig(normalization="paper_algorithm_1", **D)),
    ("numpy_almvr_wd0.1_2d", o.AlmvrConfig(b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1, **RATES)),
    ("numpy_dyneps_layerlr_wd0.1", A2),
    ("numpy_svrm_g0zero_wd0.1", o.SvrmConfig(b1=0.85, b2=0.98, eps=1e-8, gamma=0.3, weight_decay=0.1, **RATES)),
    ("sgdw_m90_nesterov_wd0.1", o.SgdwConfig(momentum=0.9, nesterov=True, weight_decay=0.1, **RATES)),
    ("sgdw_m98_wd0", o.SgdwConfig(momentum=0.98, **RATES)),
    ("signum_b90_wd0", o.SignumConfig(b1=0.9, **RATES)),
    ("soap_max_dim7", o.SoapConfig(b1=0.95, b2=0.95, eps=1e-8, interval=3, max_dim=7, **RATES)),
    ("sophiag_k10_rho0.04_wd0", o.SophiaConfig(b1=0.965, b2=0.99, rho=0.04, interval=10, **RATES)),
    ("sophiah_k5_p0.01_wd0.1", o.SophiaHConfig(b1=0.96, clip=0.01, eps=1e-12, weight_decay=0.1, interval=5, **RATES)),
]

pytestmark = pytest.mark.usefixtures("standard_promotion", "x64", "optimized")


def rows_of(file, step, dtype):
    return {leaf: jnp.asarray(file[step], dtype) for leaf, file in file.items()}


def drive(name, config, steps=20):
    """The trajectory of `config` on the recorded inputs at the recorded rates: per step a dict of parameters."""
    recorded, inputs, hess = (np.load(GOLDEN / f"{file}.npz") for file in (name, "inputs", "hess_inputs"))
    dtype = recorded["traj/embed"].dtype
    grads, sampled, hutchinson = (
        {leaf: file[f"{key}/{leaf}"] for leaf in LABELS}
        for file, key in ((inputs, "grad"), (hess, "gnb_grad"), (hess, "hutch"))
    )
    params = {leaf: jnp.asarray(inputs[f"p0/{leaf}"], dtype) for leaf in LABELS}
    opt_state = config.make(0.0, LABELS).init(params)

    @jax.jit
    def update(params, opt_state, grads, multiplier, sampled, signed):
        curvature = {"sampled_grads": lambda: sampled, "batch_tokens": 5120, "hutchinson": lambda: signed}
        updates, opt_state = config.make(multiplier, LABELS).update(grads, opt_state, params, **curvature)
        return optax.apply_updates(params, updates), opt_state

    for step in range(steps):
        rate = jnp.asarray(recorded["lr"][0, step], dtype)
        rows = rows_of(grads, step, dtype), rate, rows_of(sampled, step - 1, dtype), rows_of(hutchinson, step, dtype)
        params, opt_state = update(params, opt_state, *rows)
        yield step, params, recorded, opt_state


def tolerance(recorded):
    wide = recorded["traj/embed"].dtype == np.float64
    return {"rtol": 1e-9, "atol": 1e-11} if wide else {"rtol": 2e-5, "atol": 5e-6}


@pytest.mark.parametrize(("name", "config"), ROWS, ids=[name for name, _ in ROWS])
def test_recorded_trajectory(name, config):
    for step, params, recorded, _ in drive(name, config):
        assert json.loads(str(recorded["meta"]))["dtype"] == recorded["traj/embed"].dtype == params["embed"].dtype
        for leaf in LABELS:
            np.testing.assert_allclose(
                params[leaf], recorded[f"traj/{leaf}"][step], err_msg=f"{leaf} {step}", **tolerance(recorded)
            )


def test_every_file_has_a_row():
    trajectories = {path.stem for path in GOLDEN.glob("*.npz") if "traj/embed" in np.load(path)}
    assert trajectories == {name for name, _ in ROWS}


@pytest.mark.parametrize("name", ["adalayer_wd0", "adalayer_star_wd0", "frozen_adalayer_star_last_norm"])
def test_recorded_state(name):
    *_, (_, _, recorded, opt_state) = drive(name, dict(ROWS)[name])
    for moment in ("mu", "nu"):
        found = optax.tree.get(opt_state, moment)
        for leaf in LABELS:
            expected = recorded[f"state/{'m' if moment == 'mu' else 'v'}/{leaf}"]
            np.testing.assert_allclose(found[leaf].reshape(expected.shape), expected, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize(
    ("name", "config", "leaf"),
    [
        ("numpy_adalayer_alg1_literal_p_minus_half_wd0", o.AdalayerConfig(**D), "mlp"),
        ("numpy_adafactor_paper_1d_elementwise_wd0", o.AdafactorConfig(one_scalar_1d=True, **D), "norm"),
        ("numpy_dyneps_layerlr_wd0.1", A2.__class__(**(A2.__dict__ | {"eps_continuous": True})), "mlp"),
    ],
    ids=["Algorithm 1 is a misprint", "a vector's one scalar", "eps does not jump"],
)
def test_the_other_reading_is_missed(name, config, leaf):
    """What a flag chooses between really differs."""
    *_, (step, params, recorded, _) = drive(name, config)
    assert not np.allclose(params[leaf], recorded[f"traj/{leaf}"][step], rtol=1e-4)
