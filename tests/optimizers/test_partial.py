"""Optimizers on a part of the parameters: what they read of the whole model they read from its labels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_lm import optimizers as o
from jaxopt_lm.labels import Label
from tests.optimizers.worlds import config_of, random_tree, slice_of

pytestmark = pytest.mark.usefixtures("standard_promotion")

OUTSIDE = {
    "embed": (Label(("vocab", "embed"), "embedding"), (6, 4)),
    "norm": (Label(("embed",), "norm"), (4,)),
    "head": (Label(("embed", "vocab"), "head"), (4, 6)),
}


def world(numbers=range(4)):
    """(labels, shapes) of a model whose layers have these numbers."""
    layers = {
        f"layer_{n}": {
            "query": (Label(("embed", "heads", "head_dim"), "attention", n), (4, 2, 2)),
            "up": (Label(("embed", "mlp"), "mlp", n), (4, 4)),
        }
        for n in numbers
    }
    leaves, treedef = jax.tree.flatten(OUTSIDE | layers, is_leaf=lambda x: isinstance(x, tuple))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for _, shape in leaves]
    return treedef.unflatten([label for label, _ in leaves]), treedef.unflatten(shapes)


def moves(tx, params, grads):
    """Updates of the last of `grads`, at parameters that stay."""
    state, updates = tx.init(params), params
    update = jax.jit(functools.partial(tx.update, **curvature(params)))
    for g in grads:
        updates, state = update(g, state, params)
    return updates, state


def curvature(like):
    sampled = random_tree(like, 50)
    return {"sampled_grads": lambda: sampled, "batch_tokens": 100, "hutchinson": lambda: sampled}


UPPER = ("layer_2", "layer_3")


@slice_of("adalayer_star", "layer_adaptive_adamw", "mars", "muon", "soap")
def test_half_of_the_layers_train_as_in_the_whole_model(name):
    """Prodigy's one estimate is that of its part; every other optimizer moves a part as it would in the whole."""
    if name == "prodigy":
        pytest.skip("its estimate is one of the parameters that it is given, and so documented")
    labels, shapes = world()
    params, grads = random_tree(shapes, -1), [random_tree(shapes, t, scale=3.0) for t in range(4)]
    fields = {"mean_one": True, "depth_rule": "linear"} if name == "layer_adaptive_adamw" else {}
    tx = config_of(name, weight_decay=0.1, **fields).make(1.0, labels)
    whole, _ = moves(tx, params, grads)
    below = {key: jax.tree.map(lambda _, key=key: key not in UPPER, tree) for key, tree in labels.items()}
    masked, _ = moves(optax.masked(tx, below), params, grads)
    divided, _ = moves(optax.partition({True: tx, False: tx}, below), params, grads)
    for key in labels:
        for found in (masked, divided) if key not in UPPER else (divided,):
            for mine, expected in zip(jax.tree.leaves(found[key]), jax.tree.leaves(whole[key]), strict=True):
                np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-8, err_msg=key)


LINE = o.LayerAdaptiveAdamWConfig(learning_rate=1.0, first_multiplier=1.0, last_multiplier=1.3)


def rates(state, layers):
    recorded = optax.tree.get(state, "ScaleByRateState").learning_rate
    return [float(recorded[layer]["up"]) for layer in layers]


@pytest.mark.parametrize("numbers", [range(4), range(1, 5)], ids=["from 0", "from 1"])
def test_multipliers_are_by_the_position_among_the_layers(numbers):
    labels, shapes = world(numbers)
    params = random_tree(shapes, -1)
    _, state = moves(LINE.make(1.0, labels), params, [params])
    np.testing.assert_allclose(rates(state, [f"layer_{n}" for n in numbers]), [1.0, 1.1, 1.2, 1.3], rtol=1e-6)


def test_multipliers_of_a_part_are_those_of_the_whole():
    labels, shapes = world()
    params = random_tree(shapes, -1)
    below = {key: jax.tree.map(lambda _, key=key: key not in UPPER, tree) for key, tree in labels.items()}
    _, state = moves(optax.masked(LINE.make(1.0, labels), below), params, [params])
    np.testing.assert_allclose(rates(state, ["layer_0", "layer_1"]), [1.0, 1.1], rtol=1e-6)


def test_layers_numbered_from_1_are_clipped_and_measured_as_those_from_0():
    (labels, shapes), (from_0, _) = world(range(1, 4)), world(range(3))
    grads = random_tree(shapes, 0)

    def renamed(tree):
        return {f"layer_{int(key[-1]) - 1}" if key.startswith("layer") else key: x for key, x in tree.items()}

    clipped, expected = (
        o.clip_by_layer_norm(0.5, tree).update(g, optax.EmptyState())[0]
        for tree, g in ((labels, grads), (from_0, renamed(grads)))
    )
    for mine, right in zip(jax.tree.leaves(renamed(clipped)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-6)
    norms = o.grad_norms(grads, labels)
    assert {name for name in norms if name.startswith("mlp")} == {"mlp", *(f"mlp/layer_0{n}" for n in (1, 2, 3))}
    assert [name for name in norms if name.startswith("head")] == ["head"]
    for n in (1, 2, 3):
        np.testing.assert_allclose(norms[f"mlp/layer_0{n}"], jnp.linalg.norm(grads[f"layer_{n}"]["up"]), rtol=1e-6)


def test_norms_of_a_role_that_some_layers_lack():
    labels, shapes = world(range(3))
    for tree in (labels, shapes):
        del tree["layer_2"]["up"]
    norms = o.grad_norms(random_tree(shapes, 0), labels)
    assert {name for name in norms if name.startswith("mlp/")} == {"mlp/layer_00", "mlp/layer_01"}
    assert "attention/layer_02" in norms


@pytest.mark.parametrize("field", [{}, {"b1_first": 0.8, "b1_last": 0.9}, {"max_layer_norm": 1.0}])
def test_gaps_between_layers_are_refused(field):
    labels, shapes = world((0, 1, 3))
    tx = o.layer_adaptive_adamw(1.0, labels, **field)
    with pytest.raises(o.InputError, match=r"layers are numbered \[0, 1, 3\], which must be without gaps"):
        tx.init(random_tree(shapes, -1))


def test_numbered_and_stacked_layers_are_equally_many():
    labels, shapes = world(range(3))
    labels["stack"] = Label(("layers", "embed"), "norm")
    for depth in (3, 4):
        params = random_tree(shapes | {"stack": jax.ShapeDtypeStruct((depth, 4), jnp.float32)}, -1)
        if depth == 3:
            _, state = moves(LINE.make(1.0, labels), params, [params])
            recorded = optax.tree.get(state, "ScaleByRateState").learning_rate["stack"]
            np.testing.assert_allclose(recorded, [[1.0], [1.15], [1.3]], rtol=1e-6)
        else:
            with pytest.raises(o.InputError, match="3 layers are numbered and 4 stacked; they must be equally many"):
                LINE.make(1.0, labels).init(params)


def test_prodigys_estimate_is_of_its_part():
    labels, shapes = world(range(2))
    params, grads = random_tree(shapes, -1), [random_tree(shapes, 0)] * 6
    config = config_of("prodigy")

    def estimate(tx, mask):
        state, moved = tx.init(params), params
        for g in grads:
            updates, state = jax.jit(tx.update)(g, state, moved)
            moved = jax.tree.map(lambda p, u, m: p + u if m else p, moved, updates, mask)
        return optax.tree.get(state, "estim_lr")

    part = jax.tree.map(lambda label: label.role == "mlp", labels)
    alone = {key: tree for key, tree in params.items() if key.startswith("layer")}
    alone = {key: {"up": tree["up"]} for key, tree in alone.items()}
    state, moved = config.make(1.0, None).init(alone), alone
    for g in grads:
        mine = {key: {"up": g[key]["up"]} for key in alone}
        updates, state = jax.jit(config.make(1.0, None).update)(mine, state, moved)
        moved = optax.apply_updates(moved, updates)
    masked = estimate(optax.masked(config.make(1.0, labels), part), part)
    np.testing.assert_allclose(masked, optax.tree.get(state, "estim_lr"), rtol=1e-5)
    assert masked > 1e-3
