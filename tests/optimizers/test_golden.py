"""Every optimizer against trajectories recorded from public implementations (`tests/golden/README.md`)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers import AdamWConfig, LionConfig, SgdwConfig, SignumConfig
from tests.conftest import GOLDEN

LABELS = {
    "embed": Label(("vocab", "embed"), "embedding"),
    "query": Label(("embed", "heads", "head_dim"), "attention"),
    "mlp": Label(("embed", "mlp"), "mlp"),
    "norm": Label(("embed",), "norm"),
    "head": Label(("embed", "vocab"), "head"),
}

ROWS = [
    ("adamw_b95_eps1e-15_wd0", AdamWConfig(learning_rate=1.0, b1=0.9, b2=0.95, eps=1e-15)),
    ("adamw_b95_eps1e-15_wd0.1_f32", AdamWConfig(learning_rate=1.0, b1=0.9, b2=0.95, eps=1e-15, weight_decay=0.1)),
    ("lion_b90_b95_wd0", LionConfig(learning_rate=1.0, b1=0.9, b2=0.95)),
    ("signum_b90_wd0", SignumConfig(learning_rate=1.0, b1=0.9)),
    ("sgdw_m98_wd0", SgdwConfig(learning_rate=1.0, momentum=0.98)),
    (
        "sgdw_m90_nesterov_wd0.1",
        SgdwConfig(learning_rate=1.0, momentum=0.9, nesterov=True, weight_decay=0.1),
    ),
]


@pytest.mark.usefixtures("standard_promotion", "x64")
@pytest.mark.parametrize(("name", "config"), ROWS, ids=[name for name, _ in ROWS])
def test_recorded_trajectory(name, config):
    recorded, inputs = np.load(GOLDEN / f"{name}.npz"), np.load(GOLDEN / "inputs.npz")
    dtype = recorded["traj/embed"].dtype
    assert json.loads(str(recorded["meta"]))["dtype"] == dtype
    tolerance = {"rtol": 1e-9, "atol": 1e-11} if dtype == np.float64 else {"rtol": 2e-5, "atol": 5e-6}
    params = {leaf: jnp.asarray(inputs[f"p0/{leaf}"], dtype) for leaf in LABELS}
    opt_state = config.make(0.0, LABELS).init(params)

    @jax.jit
    def update(params, opt_state, grads, multiplier):
        updates, opt_state = config.make(multiplier, LABELS).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    assert (recorded["lr"] == recorded["lr"][0]).all()
    for step in range(20):
        grads = {leaf: jnp.asarray(inputs[f"grad/{leaf}"][step], dtype) for leaf in LABELS}
        params, opt_state = update(params, opt_state, grads, jnp.asarray(recorded["lr"][0, step], dtype))
        for leaf in LABELS:
            np.testing.assert_allclose(
                params[leaf], recorded[f"traj/{leaf}"][step], err_msg=f"{leaf} {step}", **tolerance
            )
