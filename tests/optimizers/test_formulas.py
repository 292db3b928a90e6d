"""Formulas by hand where nothing is recorded of them, and that configs pass their numbers on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jaxopt_lm import model
from jaxopt_lm import optimizers as o
from tests.optimizers.trajectories import assert_equal, directions, of_optax, trajectory, world
from tests.optimizers.worlds import LABELS, config_of, random_tree, run, tiny_model, tiny_params

pytestmark = pytest.mark.usefixtures("standard_promotion", "x64")


def test_dampening_spares_the_first_gradient():
    params, (a, b, c) = world(3)
    found = trajectory(o.SgdwConfig(learning_rate=1.0, momentum=0.9, dampening=0.25), 3)
    for leaf, p in params.items():
        m1 = a[leaf]
        m2 = 0.9 * m1 + 0.75 * b[leaf]
        m3 = 0.9 * m2 + 0.75 * c[leaf]
        np.testing.assert_allclose(found[-1][leaf], p - m1 - m2 - m3, rtol=1e-10, atol=1e-12)


def test_big_vision_caps_b2():
    grads = [jax.random.normal(jax.random.key(i), (3,), jnp.float64) for i in range(4)]
    tx = o.scale_by_adafactor_big_vision(0.0, 0.5, 0.8, 1e-30, min_dim_size_to_factor=32)
    v = 0.0
    for t, (g, u) in enumerate(zip(grads, directions(tx, grads), strict=True), 1):
        b2 = min(0.5, 1 - t**-0.8)
        v = b2 * v + (1 - b2) * g**2
        np.testing.assert_allclose(u, g / jnp.sqrt(v), rtol=1e-10)


def test_one_scalar_a_vector_is_one_a_layer():
    unrolled, labels = tiny_params(jnp.float64)
    stacked, stacked_labels = model.stack_layers(unrolled), model.labels(tiny_model(scan_layers=True))
    config = o.AdafactorConfig(one_scalar_1d=True)
    grads = [random_tree(unrolled, step, jnp.float64) for step in range(3)]
    expected, _ = run(config, labels, unrolled, grads)
    found, _ = run(config, stacked_labels, stacked, [model.stack_layers(g) for g in grads])
    for a, b in zip(jax.tree.leaves(found[-1]), jax.tree.leaves(model.stack_layers(expected[-1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)


def test_first_layer_correction_is_one_second_moment_a_row():
    """In NumPy: of the embedding [V, d] by vocabulary entry, a mean over d; of the head [d, V] likewise."""
    params, grads = world(3)
    config = o.AdalayerStarConfig(learning_rate=0.1, b1=0.9, b2=0.95, eps=1e-15, first_layer=True)
    found, _ = run(config, LABELS, params, grads)
    for leaf, kept in (("embed", 1), ("head", 0)):
        p, m, v = np.asarray(params[leaf]), 0.0, 0.0
        for t, g in enumerate((np.asarray(g[leaf]) for g in grads), 1):
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * np.mean(g**2, axis=kept, keepdims=True)
            p = p - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-15)
            np.testing.assert_allclose(found[t - 1][leaf], p, rtol=1e-9, err_msg=f"{leaf} {t}")


@pytest.mark.parametrize("name", ["adam_mini", "almvr"])
def test_norms_do_not_decay_by_default(name):
    params, _ = world(1)
    (moved,), _ = run(
        o.OPTIMIZERS[name](learning_rate=0.5, weight_decay=0.1), LABELS, params, [jax.tree.map(jnp.zeros_like, params)]
    )
    for leaf, label in LABELS.items():
        np.testing.assert_allclose(moved[leaf], params[leaf] * (1.0 if label.role == "norm" else 0.95), rtol=1e-6)


def test_layers_are_clipped_before_their_moments():
    params, labels = tiny_params(jnp.float64)
    grads = [random_tree(params, t, jnp.float64, scale) for t, scale in enumerate((1.0, 0.1, 3.0))]
    plain = o.LayerAdaptiveAdamWConfig(learning_rate=0.01)
    clip = o.clip_by_layer_norm(1.0, labels)
    clipped = [clip.update(g, optax.EmptyState())[0] for g in grads]
    expected, _ = run(plain, labels, params, clipped)
    found, _ = run(dataclasses.replace(plain, max_layer_norm=1.0), labels, params, grads)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_rates_and_eps_are_recorded():
    params, labels = tiny_params(jnp.float64)
    grads = [random_tree(params, t, jnp.float64) for t in range(3)]
    config = o.LayerAdaptiveAdamWConfig(learning_rate=0.01, weight_decay=0.0)
    _, state = run(config, labels, params, grads, 0.5)
    recorded = optax.tree.get(state, "ScaleByRateState")
    np.testing.assert_allclose(recorded.moments["eps"], config.eps_at(jnp.asarray(3)), rtol=1e-6)
    np.testing.assert_allclose(recorded.learning_rate["layer_01"]["mlp"]["up"], 0.5 * 0.01 * 1.2, rtol=1e-6)
    np.testing.assert_allclose(recorded.learning_rate["head"], 0.5 * 0.01, rtol=1e-6)


def test_svrm_has_a_rate_a_role():
    config = o.SvrmConfig(attention_multiplier=1.5, mlp_multiplier=2.0, weight_decay=0.0)
    plain = dataclasses.replace(config, attention_multiplier=1.0, mlp_multiplier=1.0)
    params, _ = world(1)
    (found,), (base,) = trajectory(config, 1), trajectory(plain, 1)
    for leaf, factor in (("query", 1.5), ("mlp", 2.0), ("head", 1.0)):
        np.testing.assert_allclose(found[leaf] - params[leaf], factor * (base[leaf] - params[leaf]), rtol=1e-6)


def test_lars_by_hand():
    params, grads = world(2)
    found = trajectory(
        o.LarsConfig(learning_rate=0.5, momentum=0.9, trust_coefficient=0.01, weight_decay=0.1, decay_roles=("mlp",)), 2
    )
    norm = jnp.linalg.norm
    for leaf, wd in (("mlp", 0.1), ("query", 0.0)):
        p, m = params[leaf], 0.0
        for g, after in zip([g[leaf] for g in grads], found, strict=True):
            m = 0.9 * m + 0.01 * norm(p) / (norm(g) + wd * norm(p)) * (g + wd * p)
            p = p - 0.5 * m
            np.testing.assert_allclose(after[leaf], p, rtol=1e-6)


def test_muon_iterates_as_often_as_it_is_told():
    tx = optax.contrib.muon(0.02, ns_steps=3)
    params, grads = world()
    moved, state = {"mlp": params["mlp"]}, tx.init({"mlp": params["mlp"]})
    for g, after in zip(grads, trajectory(o.MuonConfig(learning_rate=0.02, num_iterations=3)), strict=True):
        updates, state = tx.update({"mlp": g["mlp"]}, state, moved)
        moved = optax.apply_updates(moved, updates)
        np.testing.assert_allclose(after["mlp"], moved["mlp"], rtol=1e-7)


def test_soap_that_rotates_nothing_is_adam_from_the_second_gradient():
    params, grads = world()
    numbers = {"b1": 0.8, "b2": 0.95, "eps": 1e-15}
    soap = trajectory(o.SoapConfig(learning_rate=0.01, max_dim=1, **numbers))
    adam = optax.adam(0.01, **numbers)
    np.testing.assert_array_equal(soap[0]["mlp"], params["mlp"])
    moved, state = params["mlp"], adam.init(params["mlp"])
    for g, after in zip(grads[1:], soap[1:], strict=True):
        updates, state = adam.update(g["mlp"], state)
        moved = moved + updates
        np.testing.assert_allclose(after["mlp"], moved, rtol=1e-9)


def test_prodigy_grows_as_optaxs():
    params, grads = world(1)
    config = o.ProdigyConfig(learning_rate=0.7, weight_decay=0.1, first_estimate=1e-3, growth=2.0)
    tx = optax.contrib.prodigy(0.7, weight_decay=0.1, estim_lr0=1e-3, estim_lr_coef=2.0)
    found, _ = run(config, LABELS, params, grads * 8)
    moved, state = params, tx.init(params)
    for after in found:
        updates, state = jax.jit(tx.update)(grads[0], state, moved)
        moved = optax.apply_updates(moved, updates)
        assert_equal([after], [moved], rtol=1e-8)
    assert float(state.estim_lr) > 1.5e-3


def test_schedule_free_has_its_b1():
    config = o.ScheduleFreeAdamWConfig(learning_rate=0.01, b1=0.8)
    assert_equal(trajectory(config), of_optax(optax.contrib.schedule_free_adamw(0.01, b1=0.8)), rtol=1e-8)


def test_curvature_sees_weighted_predictions_alone():
    x = jax.random.normal(jax.random.key(0), (3, 2), jnp.float64)
    params = {"W": jax.random.normal(jax.random.key(1), (2, 4), jnp.float64)}
    weights = jnp.asarray([0.5, 0.5, 0.0])

    def grads(x):
        return o.sampled_label_grads(lambda p: x @ p["W"], params, jax.random.key(2), weights)["W"]

    np.testing.assert_allclose(grads(x), grads(x.at[2].add(1.0)), rtol=1e-12)
    assert float(jnp.abs(grads(x)).sum()) > 0


def test_telemetry_of_big_vision_has_its_second_moments():
    params, grads = world(3)
    _, state = run(config_of("adafactor_big_vision"), LABELS, params, grads)
    found = o.telemetry(state, params, grads[-1])
    v, decays = 0.0, [min(0.999, 1 - t**-0.8) for t in (1, 2, 3)]
    for b2, g in zip(decays, grads, strict=True):
        v = b2 * v + (1 - b2) * g["norm"] ** 2
    np.testing.assert_allclose(found.second_moment["norm"], v, rtol=1e-6)
    assert found.second_moment["head"].shape == params["head"].shape
