"""What optax has, and what only some optimizers have: averages to evaluate, estimates of curvature."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jaxopt_lm import optimizers as o
from tests.conftest import GOLDEN
from tests.optimizers.trajectories import D, assert_equal, of_optax, trajectory, world
from tests.optimizers.worlds import LABELS, run

pytestmark = pytest.mark.usefixtures("standard_promotion", "x64")

OF_OPTAX = [
    (o.AdoptConfig(learning_rate=0.01), optax.contrib.adopt(0.01, eps=1e-6)),
    (
        o.AdEMAMixConfig(learning_rate=0.01, weight_decay=0.1),
        optax.contrib.ademamix(0.01, weight_decay=0.1, alpha=5.0),
    ),
    (o.AdanConfig(learning_rate=0.01, weight_decay=0.1), optax.adan(0.01, weight_decay=0.1)),
    (o.NovoGradConfig(learning_rate=0.01, weight_decay=0.1), optax.novograd(0.01, weight_decay=0.1)),
    (
        o.ProdigyConfig(learning_rate=0.7, weight_decay=0.1, first_estimate=1e-3),
        optax.contrib.prodigy(0.7, weight_decay=0.1, estim_lr0=1e-3),
    ),
    (
        o.ScheduleFreeAdamWConfig(learning_rate=0.01, weight_decay=0.1),
        optax.contrib.schedule_free_adamw(0.01, weight_decay=0.1),
    ),
    (o.LambConfig(learning_rate=0.01, weight_decay=0.1), optax.lamb(0.01, weight_decay=0.1)),
    (o.LarsConfig(learning_rate=0.5), optax.lars(0.5)),
    (o.AdamWConfig(weight_decay=0.1, **D), optax.adamw(0.01, b2=0.95, eps=1e-15, weight_decay=0.1)),
    (o.LionConfig(learning_rate=0.01, weight_decay=0.1), optax.lion(0.01, b1=0.9, b2=0.95, weight_decay=0.1)),
]


@pytest.mark.parametrize(("config", "tx"), OF_OPTAX, ids=[type(config).__name__ for config, _ in OF_OPTAX])
def test_what_optax_has_is_optaxs(config, tx):
    assert_equal(trajectory(config), of_optax(tx), rtol=1e-8)


@pytest.mark.parametrize("consistent_rms", [None, 0.2])
def test_muon_is_optaxs_on_matrices(consistent_rms):
    """A per-head kernel as its matrix [d, H*K], AdamW on what is neither attention nor MLP."""
    rest = o.AdamWConfig(learning_rate=0.01, b2=0.95, eps=1e-8)
    config = o.MuonConfig(learning_rate=0.02, weight_decay=0.1, consistent_rms=consistent_rms, rest=rest)
    mine = trajectory(config)
    params, grads = world()
    flat = [{"query": tree["query"].reshape(4, 6), "mlp": tree["mlp"]} for tree in (params, *grads)]
    tx = optax.contrib.muon(0.02, weight_decay=0.1, consistent_rms=consistent_rms)
    moved, state = flat[0], tx.init(flat[0])
    for g, after in zip(flat[1:], mine, strict=True):
        updates, state = tx.update(g, state, moved)
        moved = optax.apply_updates(moved, updates)
        np.testing.assert_allclose(after["query"].reshape(4, 6), moved["query"], rtol=1e-7)
        np.testing.assert_allclose(after["mlp"], moved["mlp"], rtol=1e-7)
    assert_equal(mine, trajectory(rest), ("embed", "norm", "head"))


def test_evaluated_parameters():
    """Schedule-free evaluates its average, through any nesting; every other optimizer what it trains."""
    params, grads = world()
    config = o.ScheduleFreeAdamWConfig(learning_rate=0.1)
    trained, state = run(config, LABELS, params, grads)
    tx = optax.contrib.schedule_free_adamw(0.1)
    other, moved = tx.init(params), params
    for g in grads:
        updates, other = tx.update(g, other, moved)
        moved = optax.apply_updates(moved, updates)
    expected = optax.contrib.schedule_free_eval_params(other, moved)
    assert_equal([o.eval_params((optax.EmptyState(), state), trained[-1])], [expected], rtol=1e-8)
    assert not np.allclose(expected["mlp"], trained[-1]["mlp"])
    hybrid = o.HybridConfig(adaptive=config, adaptive_roles=("mlp",), learning_rate=0.1)
    trained, state = run(hybrid, LABELS, params, grads)
    evaluated = o.eval_params(state, trained[-1])
    np.testing.assert_allclose(evaluated["mlp"], expected["mlp"], rtol=1e-8)
    np.testing.assert_array_equal(evaluated["head"], trained[-1]["head"])
    trained, state = run(o.AdamWConfig(**D), LABELS, params, grads)
    assert o.eval_params(state, trained[-1]) is trained[-1]


def test_estimators_of_curvature():
    """One recorded draw, exact expectations by enumeration, exact diagonals."""
    z = np.load(GOLDEN / "gnb.npz")
    x, params = jnp.asarray(z["X"]), {"W1": jnp.asarray(z["W1"]), "W2": jnp.asarray(z["W2"])}

    def logits(p):
        return jnp.tanh(x @ p["W1"]) @ p["W2"]

    def loss(p):
        return -jnp.mean(jax.nn.log_softmax(logits(p))[jnp.arange(3), jnp.asarray(z["y"])])

    keys = jax.random.split(jax.random.key(0), 40_000)
    drawn = jax.vmap(lambda key: o.sampled_label_grads(logits, params, key))(keys)
    signed = jax.vmap(lambda key: o.hutchinson(loss, params, key))(keys)
    diagonal = {"W1": z["hess_diag"][:6].reshape(2, 3), "W2": z["hess_diag"][6:].reshape(3, 3)}
    for leaf in params:
        np.testing.assert_allclose(3 * jnp.mean(drawn[leaf] ** 2, 0), z[f"expected_h_{leaf}"], rtol=0.08, atol=2e-3)
        np.testing.assert_allclose(jnp.mean(signed[leaf], 0), diagonal[leaf], rtol=0.08, atol=5e-3)
        labels_of_draw = [np.allclose(g, z[f"one_draw_grad_{leaf}"], rtol=1e-9) for g in drawn[leaf][:300]]
        assert any(labels_of_draw)
    weights = jnp.asarray([0.5, 0.5, 0.0])
    both = [o.sampled_label_grads(logits, params, key, w) for key in keys[:1] for w in (weights, 2 * weights)]
    np.testing.assert_allclose(both[1]["W1"], 2 * both[0]["W1"], rtol=1e-9)
    first_two = jnp.asarray([1 / 3, 1 / 3, 0.0]), jnp.asarray([0.0, 0.0, 1 / 3])
    parts = [o.sampled_label_grads(logits, params, keys[0], w)["W2"] for w in first_two]
    np.testing.assert_allclose(parts[0] + parts[1], drawn["W2"][0], rtol=1e-9)
