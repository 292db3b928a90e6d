"""Configs as pytrees of their numbers, clipping, and decay by role."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_lm.errors import InputError
from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    AdamWConfig,
    SgdwConfig,
    clip_by_global_norm,
    clip_by_layer_norm,
)
from jaxopt_lm.optimizers.schedules import WarmupStableDecayConfig
from tests.optimizers.worlds import LABELS

pytestmark = pytest.mark.usefixtures("standard_promotion")


def test_numbers_are_leaves_and_choices_are_structure():
    assert jax.tree.leaves(SgdwConfig(learning_rate=1.0, momentum=0.5, weight_decay=0.25, dampening=0.0)) == [
        1.0,
        0.25,
        0.5,
        0.0,
    ]
    assert jax.tree.structure(SgdwConfig()) == jax.tree.structure(SgdwConfig(learning_rate=2.0))
    assert jax.tree.structure(SgdwConfig()) != jax.tree.structure(SgdwConfig(nesterov=True))
    assert jax.tree.leaves(WarmupStableDecayConfig(warmup_steps=3, decay_steps=7)) == [3, 0.1, 0.1, 7]


@pytest.mark.parametrize("name", [*OPTIMIZERS, *SCHEDULES])
def test_a_config_is_rebuilt_from_any_leaves(name):
    """Axes, differences and None stand where numbers do; only making a config checks it."""
    config = (OPTIMIZERS | SCHEDULES)[name]()
    leaves, treedef = jax.tree.flatten(config)
    assert jax.tree.unflatten(treedef, leaves) == config
    assert jax.tree.leaves(jax.tree.map(lambda _: -1, config)) == [-1] * len(leaves)
    assert jax.tree.leaves(jax.tree.map(lambda a, b: a - b, config, config)) == [0] * len(leaves)
    assert jax.tree.leaves(jax.tree.map(lambda _: None, config)) == []
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(config)]
    assert paths[0] in (".learning_rate", ".start_fraction")
    axes = jax.tree.map(lambda _: 0, config)
    stacked = jax.tree.map(lambda x: jnp.asarray([x, 2.0 * x]), config)
    first = jax.vmap(lambda config: jax.tree.leaves(config)[0], in_axes=(axes,))(stacked)
    np.testing.assert_allclose(first, [leaves[0], 2 * leaves[0]], rtol=1e-6)


def test_decay_is_by_role():
    config = AdamWConfig(learning_rate=1.0, weight_decay=0.25, decay_roles=("mlp", "head"))
    params = {leaf: jnp.ones((2,) * len(label.axes)) for leaf, label in LABELS.items()}
    tx = config.make(0.5, LABELS)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    for leaf, label in LABELS.items():
        expected = -0.5 * 0.25 if label.role in ("mlp", "head") else 0.0
        np.testing.assert_allclose(updates[leaf], expected)


@pytest.mark.parametrize(
    ("scale", "expected"), [(1.0, 1.0 / (5.0 + 1e-6)), (1e-3, 1.0)], ids=["above the bound", "below the bound"]
)
def test_clipping_is_torchs(scale, expected):
    grads = {"a": jnp.asarray([3.0]) * scale, "b": jnp.asarray([[4.0]]) * scale}
    clipped, _ = clip_by_global_norm(1.0).update(grads, optax.EmptyState())
    np.testing.assert_allclose(clipped["a"], 3.0 * scale * expected, rtol=1e-7)
    np.testing.assert_allclose(clipped["b"], 4.0 * scale * expected, rtol=1e-7)


def test_clipping_hides_no_nan():
    clipped, _ = clip_by_global_norm(1.0).update({"a": jnp.asarray([jnp.nan, 1.0])}, optax.EmptyState())
    assert not np.isfinite(clipped["a"]).any()


def test_norms_of_bfloat16_gradients_are_summed_in_float32():
    """A sum of ones in bfloat16 ends at 256."""
    grads = {f"{i}": jnp.ones((), jnp.bfloat16) for i in range(600)}
    labels = dict.fromkeys(grads, Label((), "norm", layer=0))
    for clip in (clip_by_global_norm(1.0), clip_by_layer_norm(1.0, labels)):
        clipped, _ = clip.update(grads, optax.EmptyState())
        assert {x.dtype for x in clipped.values()} == {jnp.dtype("bfloat16")}
        norm = np.linalg.norm([float(x) for x in clipped.values()])
        np.testing.assert_allclose(norm, 1.0, rtol=2**-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AdamWConfig(learning_rate=float("nan")),
            "AdamWConfig.learning_rate=nan: must be finite in float32 and in [0, inf)",
        ),
        (lambda: AdamWConfig(b1=1.0), "AdamWConfig.b1=1.0: must be finite in float32 and in [0, 1)"),
        (lambda: AdamWConfig(b2=-0.1), "AdamWConfig.b2=-0.1"),
        (lambda: AdamWConfig(eps=-1e-8), "AdamWConfig.eps=-1e-08"),
        (lambda: AdamWConfig(eps=0.0), "AdamWConfig.eps=0.0: must be finite in float32 and in (0, inf)"),
        (lambda: AdamWConfig(learning_rate=1e300), "AdamWConfig.learning_rate=1e+300"),
        (lambda: AdamWConfig(weight_decay=float("inf")), "AdamWConfig.weight_decay=inf"),
        (lambda: AdamWConfig(decay_roles=("bias",)), "AdamWConfig.decay_roles=['bias']"),
        (lambda: AdamWConfig(mu_dtype="float16"), "AdamWConfig.mu_dtype='float16': must be 'bfloat16' or None"),
        (lambda: SgdwConfig(momentum=1.5), "SgdwConfig.momentum=1.5"),
        (lambda: OPTIMIZERS["lion"](b2=2.0), "LionConfig.b2=2.0"),
        (lambda: OPTIMIZERS["signum"](b1=-1.0), "SignumConfig.b1=-1.0"),
        (
            lambda: SCHEDULES["linear"](end_fraction=1.5),
            "LinearConfig.end_fraction=1.5: must be finite in float32 and in [0, 1]",
        ),
        (lambda: SCHEDULES["constant"](warmup_steps=-1), "ConstantConfig.warmup_steps=-1"),
        (lambda: SCHEDULES["constant"](start_fraction=2.0), "ConstantConfig.start_fraction=2.0"),
        (lambda: SCHEDULES["warmup_stable_decay"](decay_steps=0), "WarmupStableDecayConfig.decay_steps=0"),
        (lambda: SCHEDULES["warmup_stable_decay"](decay_fraction=0.0), "WarmupStableDecayConfig.decay_fraction=0.0"),
        (lambda: SCHEDULES["linear"](warmup_fraction=1.0), "LinearConfig.warmup_fraction=1.0: must be finite"),
        (
            lambda: SCHEDULES["linear"](warmup_fraction=0.1, warmup_steps=5),
            "LinearConfig.warmup_steps=5: warmup_fraction=0.1 is given too; set one of them to None",
        ),
        (
            lambda: SCHEDULES["warmup_stable_decay"](decay_fraction=0.1, decay_steps=5),
            "WarmupStableDecayConfig.decay_steps=5: decay_fraction=0.1 is given too; set one of them to None",
        ),
    ],
)
def test_bad_numbers_are_refused(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
