"""Identities that hold between optimizers, whatever the gradients."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxopt_lm import optimizers as o
from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.block_adam import adam_mini_axes, block_mean_square
from jaxopt_lm.optimizers.clipping import layer_square_sums
from jaxopt_lm.optimizers.trees import sum_of_squares
from tests.optimizers.trajectories import D, assert_equal, directions, of_optax, trajectory, world
from tests.optimizers.worlds import LABELS, random_tree, run, tiny_params

pytestmark = pytest.mark.usefixtures("standard_promotion", "x64")

shapes = st.lists(st.integers(1, 4), min_size=0, max_size=4).map(tuple)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(shape=shapes, dtype=st.sampled_from([jnp.float32, jnp.float64]), data=st.data())
def test_blocks_share_the_mean_of_squares(shape, dtype, data):
    """With every axis kept it is optax's Adam; with any axes, Adam on the mean square over the others."""
    kept = tuple(sorted(data.draw(st.sets(st.sampled_from(range(len(shape))))))) if shape else ()
    grads = [jax.random.normal(jax.random.key(i), shape, dtype) for i in range(3)]
    tolerance = {"rtol": 1e-5 if dtype == jnp.float32 else 1e-11}
    whole = directions(o.scale_by_block_adam(0.9, 0.95, 1e-8), grads)
    for mine, other in zip(whole, directions(optax.scale_by_adam(0.9, 0.95, 1e-8), grads), strict=True):
        np.testing.assert_allclose(mine, other, **tolerance)
    blocks = directions(o.scale_by_block_adam(0.9, 0.95, 1e-8, kept), grads)
    m, v = np.zeros(shape), 0.0
    for t, (g, u) in enumerate(zip(grads, blocks, strict=True), 1):
        g = np.asarray(g, np.float64)
        rest = tuple(axis for axis in range(len(shape)) if axis not in kept)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * (g**2).mean(rest, keepdims=True)
        np.testing.assert_allclose(u, (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8), **tolerance)


@pytest.mark.parametrize("rows", [31, 32, 64, 96, 1024, 2048])
def test_sums_of_squares_of_long_columns(rows):
    x = jax.random.normal(jax.random.key(0), (rows, 3), jnp.float64)
    for kept in ((), (0,), (1,), (0, 1)):
        rest = tuple(axis for axis in (0, 1) if axis not in kept)
        np.testing.assert_allclose(sum_of_squares(x, kept), (np.asarray(x) ** 2).sum(rest, keepdims=True), rtol=1e-12)
    y = x.reshape(rows, 1, 3)
    np.testing.assert_allclose(sum_of_squares(y, (2,)), (np.asarray(y) ** 2).sum((0, 1), keepdims=True), rtol=1e-12)


def test_adalayer_star_is_adalayer_off_the_head():
    star, plain = trajectory(o.AdalayerStarConfig(**D)), trajectory(o.AdalayerConfig(**D))
    assert_equal(star, plain, ("embed", "query", "mlp", "norm"))
    assert not np.allclose(star[-1]["head"], plain[-1]["head"])
    first = trajectory(o.AdalayerStarConfig(first_layer=True, **D))
    assert_equal(first, star, ("query", "mlp", "norm", "head"))
    assert not np.allclose(first[-1]["embed"], star[-1]["embed"])


def test_a_tied_embedding_is_the_head():
    tied = {name: label for name, label in LABELS.items() if name != "head"}
    assert o.AdalayerStarConfig().blocks(tied)["embed"] == (0,)
    assert o.AdalayerStarConfig().blocks(LABELS)["embed"] == ()


def test_hybrid_everywhere_and_nowhere():
    adaptive = o.AdamWConfig(weight_decay=0.1, **D)
    everywhere = o.HybridConfig(adaptive=adaptive, adaptive_roles=("embedding", "attention", "mlp", "norm", "head"))
    assert_equal(trajectory(everywhere), trajectory(adaptive))
    nowhere = o.HybridConfig(learning_rate=0.5, b1=0.8, adaptive=adaptive, adaptive_roles=())
    assert_equal(trajectory(nowhere), of_optax(optax.chain(optax.ema(0.8), optax.scale(-0.5))))
    ball = o.HybridConfig(learning_rate=0.5, b1=0.8, sgd="heavy_ball", adaptive=adaptive, adaptive_roles=())
    assert_equal(trajectory(ball), trajectory(o.SgdwConfig(learning_rate=0.5, momentum=0.8)))


def test_debiased_sgd_at_ten_is_heavy_ball_at_one():
    """For a constant gradient, once the momentum has filled: at b1 = .9."""
    g = [jnp.ones(3)] * 200
    average, ball = directions(optax.ema(0.9), g)[-1], directions(o.heavy_ball(0.9), g)[-1]
    np.testing.assert_allclose(10 * average, ball, rtol=1e-6)


def test_frozen_everywhere_is_debiased_sgd_with_one_rate_a_block():
    steps, calibration = 8, 3
    params, grads = world(steps)
    config = o.FrozenConfig(calibration_steps=calibration, live_roles=(), b1=0.9, learning_rate=0.01)
    moved = run(config, LABELS, params, grads)[0]
    assert_equal(moved[:calibration], [params] * calibration, atol=0, rtol=0)
    for leaf, kept in config.blocks(LABELS).items():
        squares = sum(block_mean_square(g[leaf], kept) for g in grads[:calibration])
        rate = 0.01 / (jnp.sqrt(squares / (calibration + 1)) + config.eps)
        m, p = 0.0, params[leaf]
        for t, g in enumerate(grads, 1):
            m = 0.9 * m + 0.1 * g[leaf]
            p = p - rate * m / (1 - 0.9**t) if t > calibration else p
            np.testing.assert_allclose(moved[t - 1][leaf], p, rtol=1e-10)


def test_untrained_roles_stay():
    untrained = ("norm", "embedding")
    params, _ = world()
    for config in (
        o.FrozenConfig(calibration_steps=2, untrained_roles=untrained),
        o.HybridConfig(adaptive_roles=("head",), untrained_roles=untrained, weight_decay=0.1),
    ):
        last = trajectory(config)[-1]
        for leaf in ("norm", "embed"):
            np.testing.assert_array_equal(last[leaf], params[leaf])
        assert not np.allclose(last["mlp"], params["mlp"])


def test_constant_gradient():
    g = jax.random.normal(jax.random.key(0), (3, 4), jnp.float64)
    for u in directions(o.scale_by_block_adam(0.9, 0.95, 1e-15), [g] * 5):
        np.testing.assert_allclose(u, np.sign(g), rtol=1e-10)
    for u in directions(o.scale_by_block_adam(0.9, 0.95, 1e-15, ()), [g] * 5):
        np.testing.assert_allclose(u, g / np.sqrt(np.mean(g**2)), rtol=1e-10)


def test_adafactor_is_adam_where_squares_have_rank_one():
    rows, columns = (jnp.exp(jax.random.normal(jax.random.key(i), (n,), jnp.float64)) for i, n in ((0, 4), (1, 5)))
    signs = [jnp.sign(jax.random.normal(jax.random.key(i), (4, 5), jnp.float64)) for i in range(5)]
    grads = [sign * jnp.sqrt(jnp.outer(rows, columns)) for sign in signs]
    label = Label(("embed", "mlp"), "mlp")
    factored = directions(o.scale_by_adafactor(0.9, 0.95, 1e-15, label), grads)
    for mine, other in zip(factored, directions(optax.scale_by_adam(0.9, 0.95, 1e-15), grads), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-10)


def test_adafactor_does_not_underflow():
    """At gradients of 1e-10 the product of row and column means underflows float32; the direction must not."""
    g = 1e-10 * jax.random.normal(jax.random.key(0), (4, 5), jnp.float32)
    (u,) = directions(o.scale_by_adafactor(0.9, 0.95, 1e-15, Label(("embed", "mlp"), "mlp")), [g])
    (scaled,) = directions(o.scale_by_adafactor(0.9, 0.95, 1e-15, Label(("embed", "mlp"), "mlp")), [1e10 * g])
    np.testing.assert_allclose(u, scaled, rtol=1e-3)


def test_signum_is_lion_with_one_decay():
    signum = o.SignumConfig(b1=0.8, learning_rate=0.01, weight_decay=0.1)
    assert_equal(trajectory(signum), trajectory(o.LionConfig(b1=0.8, b2=0.8, learning_rate=0.01, weight_decay=0.1)))


def test_adam_with_equal_decays_is_bounded_by_signum():
    """Lemma 1 of arXiv 2407.07972: u = sign(m) abs(m / bc) / sqrt(v / bc), at most 1."""
    _, grads = world(10)
    m = v = 0.0
    found = directions(o.scale_by_block_adam(0.9, 0.9, 0.0), [g["mlp"] for g in grads])
    for t, (g, u) in enumerate(zip(grads, found, strict=True), 1):
        m, v = 0.9 * m + 0.1 * g["mlp"], 0.9 * v + 0.1 * g["mlp"] ** 2
        bc = 1 - 0.9**t
        np.testing.assert_allclose(u, jnp.sign(m) * jnp.abs(m / bc) / jnp.sqrt(v / bc), rtol=1e-10)
        assert (jnp.abs(u) <= 1 + 1e-12).all()


def test_sophia_without_threshold_and_before_an_estimate_is_signum():
    signum = trajectory(o.SignumConfig(b1=0.9, learning_rate=0.01), 8)
    assert_equal(trajectory(o.SophiaConfig(b1=0.9, rho=0.0, interval=2, learning_rate=0.01), 8), signum)
    late = trajectory(o.SophiaConfig(b1=0.9, rho=0.5, interval=4, learning_rate=0.01), 8)
    assert_equal(late[:4], signum[:4])
    assert not np.allclose(late[4]["mlp"], signum[4]["mlp"])


def test_sophia_needs_its_estimates():
    params, _ = world()
    for config, word in ((o.SophiaConfig(), "sampled_grads"), (o.SophiaHConfig(), "hutchinson")):
        tx = config.make(1.0, LABELS)
        with pytest.raises(ValueError, match=word):
            tx.update(params, tx.init(params), params)


def test_svrm_is_adam_without_correction_the_gradient_and_its_recursion():
    base = {"b1": 0.85, "b2": 0.98, "eps": 1e-8}
    _, grads = world(6)
    grads = [g["mlp"] for g in grads]
    v = g_prev = m = jnp.zeros_like(grads[0])
    zero, one, some = (directions(o.scale_by_svrm(gamma=gamma, **base), grads) for gamma in (0.0, 1.0, 0.3))
    corrected = directions(optax.scale_by_adam(**base), grads)
    for t, g in enumerate(grads, 1):
        m = 0.85 * m + 0.15 * (g + 0.3 * 0.85 / 0.15 * (g - g_prev))
        v, g_prev = 0.98 * v + 0.02 * g**2, g
        bc = (1 - 0.85**t) / math.sqrt(1 - 0.98**t)
        np.testing.assert_allclose(zero[t - 1], corrected[t - 1] * bc, rtol=1e-5)  # eps is not corrected
        np.testing.assert_allclose(one[t - 1], g / (jnp.sqrt(v) + 1e-8), rtol=1e-10)
        np.testing.assert_allclose(some[t - 1], m / (jnp.sqrt(v) + 1e-8), rtol=1e-10)


def test_svrm_adds_variance_where_gradients_are_independent_noise():
    """Its estimate g + c (g - g_prev), c = gamma b1 / (1 - b1), has 1 + 2 c + 2 c^2 times the gradient's variance.

    10.18 times at its defaults; its average, m, has 2.38 times that of Adam's.
    """
    b1, b2, eps, gamma, draws, steps = 0.85, 0.98, 1e-8, 0.3, 100_000, 60
    noise = np.random.default_rng(0).normal(size=(steps, draws))
    tx = o.scale_by_svrm(b1=b1, b2=b2, eps=eps, gamma=gamma)

    def step(state, g):
        found: Any = tx.update(g, state)
        u, state = found
        return state, (u * (jnp.sqrt(state.nu) + eps), state.mu)

    _, (m, average) = jax.lax.scan(step, tx.init(noise[0]), noise)
    estimate = (m[-1] - b1 * m[-2]) / (1 - b1)
    c = gamma * b1 / (1 - b1)
    assert 1 + 2 * c + 2 * c**2 == pytest.approx(10.18)
    assert np.var(estimate) / np.var(noise[-1]) == pytest.approx(10.18, rel=0.02)
    of_average = (1 - b1) / (1 + b1)
    expected = (1 - gamma) ** 2 * of_average + gamma**2 + 2 * gamma * (1 - gamma) * (1 - b1)
    assert np.var(m[-1]) / np.var(average[-1]) == pytest.approx(expected / of_average, rel=0.02)
    assert expected / of_average == pytest.approx(2.38, abs=0.01)


def test_almvr_is_adam_with_eps_inside_and_no_correction_of_the_momentum():
    _, grads = world(6)
    grads = [g["mlp"] for g in grads]
    mine = directions(o.scale_by_block_adam(0.9, 0.95, 0.0, eps_root=1e-3, debias_mean=False), grads)
    other = directions(optax.scale_by_adam(0.9, 0.95, eps=0.0, eps_root=1e-3), grads)
    for t, (u, w) in enumerate(zip(mine, other, strict=True), 1):
        np.testing.assert_allclose(u, w * (1 - 0.9**t), rtol=1e-10)
    tensor = trajectory(o.AlmvrConfig(granularity="tensor", eps=1e-8, b1=0.0, learning_rate=1.0, weight_decay=0.0), 1)
    params, (g,) = world(1)
    expected = params["mlp"] - g["mlp"] / jnp.sqrt(jnp.mean(g["mlp"] ** 2) + 1e-8)
    np.testing.assert_allclose(tensor[0]["mlp"], expected, rtol=1e-10)


def test_layer_adaptive_adamw_without_adaptation_is_adamw():
    params, labels = tiny_params(jnp.float64)
    grads = [random_tree(params, t, jnp.float64) for t in range(4)]
    common = {"b1": 0.9, "b2": 0.95, "learning_rate": 0.01, "weight_decay": 0.1}
    plain = o.LayerAdaptiveAdamWConfig(eps=1e-8, eps_min=1e-8, last_multiplier=1.0, **common)
    mine, _ = run(plain, labels, params, grads)
    other, _ = run(o.AdamWConfig(eps=1e-8, **common), labels, params, grads)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"first_multiplier": 1.0, "last_multiplier": 1.2}, [1.0, 1.05, 1.1, 1.15, 1.2]),
        ({"first_multiplier": 1.0, "last_multiplier": 0.5, "mean_one": True}, [4 / 3, 7 / 6, 1, 5 / 6, 2 / 3]),
        ({"depth_rule": "inverse"}, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]),
        ({"depth_rule": "inverse_sqrt"}, [1, 2**-0.5, 3**-0.5, 0.5, 5**-0.5]),
        ({"depth_rule": "inverse", "mean_one": True}, [x / (137 / 300) for x in (1, 1 / 2, 1 / 3, 1 / 4, 1 / 5)]),
    ],
)
def test_depth_multipliers(fields, expected):
    np.testing.assert_allclose(o.LayerAdaptiveAdamWConfig(**fields).depth_multipliers(5), expected, rtol=1e-12)


def test_a_layer_has_its_rate_decay_and_momentum():
    """One step from zero state: u = g / (abs(g) + eps), whatever b1; the second shows b1."""
    params, labels = tiny_params(jnp.float64)
    fields = {"first_multiplier": 0.5, "last_multiplier": 2.0, "b1_first": 0.5, "b1_last": 0.8, "b1": 0.9, "b2": 0.95}
    config = o.LayerAdaptiveAdamWConfig(learning_rate=0.1, weight_decay=0.3, eps=1e-8, eps_min=1e-8, **fields)
    g1, g2 = (random_tree(params, t, jnp.float64) for t in range(2))
    (p1, p2), _ = run(config, labels, params, [g1, g2])
    for (where, b1), rate in zip((("layer_00", 0.5), ("layer_01", 0.8), (None, 0.9)), (0.05, 0.2, 0.1), strict=True):
        pick = (lambda tree: tree["head"]) if where is None else (lambda tree, w=where: tree[w]["mlp"]["up"])
        p, a, b = (pick(tree) for tree in (params, g1, g2))
        first = p * (1 - rate * 0.3) - rate * a / (jnp.abs(a) + 1e-8)
        np.testing.assert_allclose(pick(p1), first, rtol=1e-9)
        m = (b1 * (1 - b1) * a + (1 - b1) * b) / (1 - b1**2)
        v = (0.95 * 0.05 * a**2 + 0.05 * b**2) / (1 - 0.95**2)
        np.testing.assert_allclose(pick(p2), first * (1 - rate * 0.3) - rate * m / (jnp.sqrt(v) + 1e-8), rtol=1e-9)


def test_eps_over_time():
    config = o.LayerAdaptiveAdamWConfig()
    np.testing.assert_allclose(config.eps_at(jnp.asarray(100)), 5.5e-9, rtol=1e-12)
    np.testing.assert_allclose(config.eps_at(jnp.asarray(199)), 1e-8 * 0.005 + 1e-9 * 0.995, rtol=1e-12)
    np.testing.assert_allclose(config.eps_at(jnp.asarray(200)), 1e-8 / 2**0.1, rtol=1e-12)  # 9.3e-9: the jump
    np.testing.assert_allclose(config.eps_at(jnp.asarray(10**15)), 1e-9, rtol=1e-12)
    smooth = o.LayerAdaptiveAdamWConfig(eps_continuous=True)
    values = [float(smooth.eps_at(jnp.asarray(t))) for t in (1, 199, 200, 201, 400)]
    np.testing.assert_allclose(values, [1.045e-9, 9.955e-9, 1e-8, 1e-8 / 1.005**0.1, 1e-8 / 2**0.1], rtol=1e-10)


def test_clipping_by_layer():
    params, labels = tiny_params(jnp.float64)
    grads = random_tree(params, 0, jnp.float64)
    grads = grads | {"layer_01": jax.tree.map(lambda g: 1e-3 * g, grads["layer_01"])}
    clipped, _ = o.clip_by_layer_norm(1.0, labels).update(grads, optax.EmptyState())
    layers, outside = layer_square_sums(grads, labels)
    norms = {"layer_00": optax.tree.norm(grads["layer_00"]), "layer_01": optax.tree.norm(grads["layer_01"])}
    np.testing.assert_allclose(jnp.sqrt(layers), list(norms.values()), rtol=1e-12)
    rest = {name: g for name, g in grads.items() if name not in norms}
    np.testing.assert_allclose(jnp.sqrt(outside), optax.tree.norm(rest), rtol=1e-12)
    for name, g in grads.items():
        scale = min(1.0, 1.0 / (float(norms.get(name, optax.tree.norm(rest))) + 1e-6))
        for a, b in zip(jax.tree.leaves(clipped[name]), jax.tree.leaves(g), strict=True):
            np.testing.assert_allclose(a, scale * b, rtol=1e-12)
    assert float(norms["layer_01"]) < 1 < float(norms["layer_00"])


@pytest.mark.parametrize(
    ("axes", "role", "kept"),
    [
        (("vocab", "embed"), "embedding", (0,)),
        (("embed", "vocab"), "head", (1,)),
        (("embed", "heads", "head_dim"), "attention", (1,)),
        (("layers", "embed", "kv_heads", "head_dim"), "attention", (0, 2)),
        (("embed", "kv_heads", "value_dim"), "attention", (1, 2)),
        (("layers", "heads", "value_dim", "embed"), "attention", (0, 3)),
        (("embed", "mlp"), "mlp", (1,)),
        (("layers", "mlp", "embed"), "mlp", (0, 2)),
        (("embed",), "norm", ()),
        (("length", "embed"), "embedding", (0,)),
        (("layers", "embed"), "norm", (0,)),
    ],
)
def test_adam_mini_partition(axes, role, kept):
    assert adam_mini_axes(Label(axes, role)) == kept
