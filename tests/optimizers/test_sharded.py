"""Optimizers on parameters divided over four devices: fake CPU devices, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxopt_lm.optimizers import OPTIMIZERS

CHUNKS = [list(OPTIMIZERS)[i::4] for i in range(4)]  # CI runs the first

CODE = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tests.optimizers.worlds import LABELS, config_of, random_tree, run

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "standard")
# Square matrices: of a rank-deficient one SOAP's eigenbasis is any of many, and rounding chooses.
mesh = jax.make_mesh((2, 2), ("fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
place = {"embed": "fsdp", "vocab": "tensor", "heads": "tensor", "mlp": "tensor"}
shapes = {"embed": (8, 4), "query": (4, 2, 2), "mlp": (4, 4), "norm": (4,), "head": (4, 8)}
shapes = {leaf: jax.ShapeDtypeStruct(shape, jnp.float64) for leaf, shape in shapes.items()}
where = {leaf: NamedSharding(mesh, PartitionSpec(*map(place.get, label.axes))) for leaf, label in LABELS.items()}
params, *grads = (random_tree(shapes, step, jnp.float64) for step in range(-1, 4))
divided = jax.device_put(params, where), [jax.device_put(g, where) for g in grads]
for name in sys.argv[1:]:
    config = config_of(name, weight_decay=0.1)
    (*_, expected), _ = run(config, LABELS, params, grads)
    (*_, found), _ = run(config, LABELS, *divided)
    for leaf in LABELS:
        assert len(found[leaf].sharding.device_set) == 4
        np.testing.assert_allclose(found[leaf], expected[leaf], rtol=1e-8, atol=1e-10, err_msg=f"{name} {leaf}")
"""


@pytest.mark.parametrize("names", [CHUNKS[0], *(pytest.param(x, marks=pytest.mark.full) for x in CHUNKS[1:])])
def test_sharded_equals_unsharded(names):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *names],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
