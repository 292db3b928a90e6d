"""Telemetry, through everything optax nests; describe; the convention cards."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_lm import model
from jaxopt_lm import optimizers as o
from jaxopt_lm.model import preset
from jaxopt_lm.optimizers import OPTIMIZERS
from jaxopt_lm.optimizers.describe import CARD, card, cards_table
from tests.conftest import GOLDEN
from tests.optimizers.worlds import LABELS, config_of, random_tree, slice_of, tiny_model, tiny_params, update_once

pytestmark = pytest.mark.usefixtures("standard_promotion", "x64")

SHAPES = {"embed": (6, 4), "query": (4, 2, 3), "mlp": (4, 5), "norm": (4,), "head": (4, 6)}
ADAM = {"b1": 0.9, "b2": 0.95, "eps": 0.1}
RATE = 0.01


def world():
    shapes = {leaf: jax.ShapeDtypeStruct(shape, jnp.float64) for leaf, shape in SHAPES.items()}
    return random_tree(shapes, -1, jnp.float64), [random_tree(shapes, t, jnp.float64) for t in range(3)]


def after(tx, params, grads):
    """(state, last updates) after updates with `grads`, at unchanged parameters."""
    state, updates = jax.jit(tx.init)(params), params
    update = jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params)
    return state, updates


def expected_of_adam(grads, leaf):
    """(effective rate, mean of abs(m) / sqrt(v), m) of Adam's, by the formulas."""
    m = v = 0.0
    for g in grads:
        m, v = 0.9 * m + 0.1 * g[leaf], 0.95 * v + 0.05 * g[leaf] ** 2
    m_hat, v_hat = m / (1 - 0.9 ** len(grads)), v / (1 - 0.95 ** len(grads))
    return RATE / (jnp.sqrt(v_hat) + ADAM["eps"]), jnp.mean(jnp.abs(m_hat) / jnp.sqrt(v_hat)), m


MATRICES = {leaf: len(shape) > 1 for leaf, shape in SHAPES.items()}
GIVEN = {"learning_rate": RATE} | ADAM
NESTED = {
    "optax.adam": (optax.adam(RATE, 0.9, 0.95), GIVEN),
    "ours": (o.adamw(RATE, LABELS, **ADAM), {}),
    "block": (optax.chain(o.scale_by_block_adam(**ADAM), optax.scale(-RATE)), GIVEN),
    "chain": (optax.chain(optax.clip_by_global_norm(1e9), o.adamw(RATE, LABELS, **ADAM)), {}),
    "scheduled": (o.adamw(lambda count: 0.5 * RATE * count, LABELS, **ADAM), {}),
    "MultiSteps": (optax.MultiSteps(o.adamw(RATE, LABELS, **ADAM), 1).gradient_transformation(), {}),
    "inject_hyperparams": (optax.inject_hyperparams(optax.adamw)(RATE, 0.9, 0.95, ADAM["eps"]), {}),
    "inject ours": (optax.inject_hyperparams(o.adamw)(RATE, LABELS, **ADAM), {}),
    "partition": (
        optax.partition({True: o.adamw(RATE, LABELS, **ADAM), False: o.adamw(RATE, **ADAM)}, MATRICES),
        {},
    ),
    "masked": (optax.masked(o.adamw(RATE, LABELS, **ADAM), MATRICES), {}),
}


@pytest.mark.parametrize("name", NESTED)
def test_telemetry_reads_adam_in_any_nesting(name):
    tx, given = NESTED[name]
    params, grads = world()
    state, updates = after(tx, params, grads)
    found = jax.jit(lambda s, p, u: o.telemetry(s, p, u, **given))(state, params, updates)
    for leaf in SHAPES:
        effective, ratio, m = expected_of_adam(grads, leaf)
        if name == "masked" and leaf == "norm":
            assert isinstance(found.effective_learning_rate[leaf], optax.MaskedNode)
            continue
        np.testing.assert_allclose(found.effective_learning_rate[leaf], effective, rtol=1e-6)
        np.testing.assert_allclose(found.learning_rate[leaf], RATE, rtol=1e-6)
        np.testing.assert_allclose(found.abs_m_over_root_v[leaf], ratio, rtol=1e-6)
        u, p = updates[leaf], params[leaf]
        np.testing.assert_allclose(found.update_rms[leaf], jnp.sqrt(jnp.mean(u**2)), rtol=1e-6)
        np.testing.assert_allclose(found.update_to_weight[leaf], optax.tree.norm(u) / optax.tree.norm(p), rtol=1e-6)
        cosine = -jnp.vdot(u, jnp.sign(m)) / optax.tree.norm(u) / m.size**0.5
        np.testing.assert_allclose(found.cosine_with_sign[leaf], cosine, rtol=1e-6)
        assert 0.5 < float(cosine) <= 1


@pytest.mark.parametrize("name", ["adamw", "adafactor", "prodigy"])
def test_momenta_in_bfloat16_are_read_as_numbers(name):
    """Bias corrections and quotients are not rounded to bfloat16 too."""
    params, grads = world()
    state, updates = after(config_of(name, mu_dtype="bfloat16").make(1.0, LABELS), params, grads)
    widened = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.bfloat16 else x, state)
    found, expected = (o.telemetry(x, params, updates) for x in (state, widened))
    for leaf in SHAPES:
        assert found.abs_m_over_root_v[leaf].dtype == jnp.float64
        for mine, exact in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine[leaf], exact[leaf], rtol=1e-6)


def test_sums_over_bfloat16_parameters_are_not_rounded_to_bfloat16():
    params, grads = (jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree) for tree in world())
    state, updates = after(o.adamw(RATE, LABELS, **ADAM), params, grads)
    found = o.telemetry(state, params, updates)
    for leaf in SHAPES:
        u, p = (np.asarray(tree[leaf], np.float64) for tree in (updates, params))
        np.testing.assert_allclose(found.update_rms[leaf], np.sqrt(np.mean(u**2)), rtol=1e-6)
        np.testing.assert_allclose(found.update_to_weight[leaf], np.linalg.norm(u) / np.linalg.norm(p), rtol=1e-6)
        norm = np.linalg.norm(np.asarray(grads[0][leaf], np.float64))
        np.testing.assert_allclose(o.grad_norms(grads[0], LABELS)[LABELS[leaf].role], norm, rtol=1e-6)


def test_a_rate_that_nobody_knows_is_asked_for():
    params, grads = world()
    state, updates = after(optax.adam(RATE), params, grads)
    with pytest.raises(o.InputError, match="telemetry: the state records no learning rate; give learning_rate="):
        o.telemetry(state, params, updates)


def test_signum_has_cosine_one_and_adam_at_equal_decays_is_bounded():
    params, grads = world()
    state, updates = after(o.signum(RATE, LABELS), params, grads)
    np.testing.assert_allclose(list(o.telemetry(state, params, updates).cosine_with_sign.values()), 1, rtol=1e-6)
    state, updates = after(o.adamw(RATE, LABELS, b1=0.9, b2=0.9, eps=1e-15), params, grads)
    assert max(map(float, o.telemetry(state, params, updates).abs_m_over_root_v.values())) <= 1


@slice_of("adafactor", "hybrid", "layer_adaptive_adamw", "soap")
@pytest.mark.parametrize("scan_layers", [False, pytest.param(True, marks=pytest.mark.full)])
def test_telemetry_of_every_optimizer(name, scan_layers):
    """The momentum times the effective rate is the update, where the formula is Adam's; scalars are always finite."""
    unrolled, labels = tiny_params(jnp.float64)
    params = model.stack_layers(unrolled) if scan_layers else unrolled
    labels = model.labels(tiny_model(scan_layers=True)) if scan_layers else labels
    config = config_of(name, weight_decay=0.0)

    @jax.jit
    def measured(grads):
        state, updates = config.make(0.5, labels).init(params), params
        for g in grads:
            updates, state = update_once(config, labels, state, params, g, 0.5)
        found = o.telemetry(state, params, updates)
        return state, updates, found, o.telemetry_by_role(found, labels, np.arange(10))

    state, updates, found, scalars = measured([random_tree(params, t, jnp.float64) for t in range(3)])
    assert all(np.isfinite(x) for x in scalars.values())
    roles = {label.role for label in jax.tree.leaves(labels)}
    assert {f"update_rms/{role}" for role in roles} <= scalars.keys()
    if name != "hybrid":  # it leaves a role untrained
        assert {f"learning_rate/{role}" for role in roles} <= scalars.keys()
    adams = {"adafactor", "adalayer", "adalayer_star", "adam_mini", "adamw", "frozen", "lamb", "layer_adaptive_adamw"}
    if name in adams - {"lamb"}:
        b1s = {"layer_00": 0.85, "layer_01": 0.95} if name == "layer_adaptive_adamw" and not scan_layers else {}
        for path, leaf in (("embed", lambda t: t["embed"]), ("layer_00", lambda t: t["layer_00"]["mlp"]["up"])):
            if path == "layer_00" and scan_layers:
                continue
            m_hat = leaf(optax.tree.get(state, "mu")) / (1 - b1s.get(path, 0.9) ** 3)
            np.testing.assert_allclose(-m_hat * leaf(found.effective_learning_rate), leaf(updates), rtol=1e-6)


def test_telemetry_before_the_first_update_is_finite():
    params, grads = world()
    tx = optax.MultiSteps(o.adamw(RATE, LABELS, **ADAM), 4).gradient_transformation()
    state, updates = after(tx, params, grads[:1])
    found = o.telemetry_by_role(o.telemetry(state, params, updates), LABELS)
    assert all(np.isfinite(x) for x in found.values())


def test_the_given_rate_is_reported_where_no_moment_is_kept():
    params, grads = world()
    state, updates = after(optax.sgd(RATE), params, grads)
    assert o.telemetry(state, params, updates, learning_rate=RATE).learning_rate["mlp"] == RATE


def test_quantiles_of_many_blocks_are_of_all_columns():
    """A rate that depends on the column alone: a stride that meets the columns' number would see few of them."""
    columns = jnp.exp(jax.random.normal(jax.random.key(0), (1, 1024), jnp.float64))
    params = {"mlp": jnp.ones((512, 1024))}
    state, updates = after(o.adamw(learning_rate=1.0), params, [{"mlp": jnp.broadcast_to(columns, (512, 1024))}])
    found = o.telemetry_by_role(o.telemetry(state, params, updates), {"mlp": LABELS["mlp"]})
    expected = np.quantile(1 / columns, [0.25, 0.5, 0.75])
    mine = [found[f"effective_learning_rate/mlp/{name}"] for name in ("q25", "median", "q75")]
    np.testing.assert_allclose(mine, expected, rtol=0.02)


def test_stacked_layers_are_reported_as_unstacked_ones():
    unrolled, labels = tiny_params(jnp.float64)
    unrolled["layer_01"] = jax.tree.map(lambda p: 10 * p, unrolled["layer_01"])
    stacked, stacked_labels = model.stack_layers(unrolled), model.labels(tiny_model(scan_layers=True))
    lines = []
    for params, tree in ((unrolled, labels), (stacked, stacked_labels)):
        state, updates = after(o.adamw(labels=tree), params, [params])

        @jax.jit
        def measured(state, params, updates, tree=tree):
            return o.telemetry_by_role(o.telemetry(state, params, updates, labels=tree), tree)

        lines.append(measured(state, params, updates))
    for name in ("update_rms", "update_to_weight", "cosine_with_sign", "abs_m_over_root_v"):
        for role in ("attention", "mlp", "norm"):
            np.testing.assert_allclose(lines[0][f"{name}/{role}"], lines[1][f"{name}/{role}"], rtol=1e-6)


def test_by_role_summarises_blocks():
    params, grads = world()
    state, updates = after(o.adalayer_star(RATE, LABELS), params, grads)
    found = o.telemetry(state, params, updates)
    scalars = o.telemetry_by_role(found, LABELS, np.asarray([5, 0, 3, 9, 1]))
    blocks = np.ravel(found.effective_learning_rate["head"])
    assert blocks.size == 6
    for name, q in (("min", 0), ("q25", 0.25), ("median", 0.5), ("q75", 0.75), ("max", 1)):
        np.testing.assert_allclose(scalars[f"effective_learning_rate/head/{name}"], np.quantile(blocks, q), rtol=1e-6)
    v = np.ravel(found.second_moment["head"])
    by_frequency = [scalars[f"head_second_moment/tenth_{i}"] for i in range(4)]
    np.testing.assert_allclose(by_frequency, v[[4, 2, 0, 3]], rtol=1e-6)  # 1 and 5 do not occur


def test_blocks_without_a_gradient_are_counted_and_left_out_of_quantiles():
    """Their lr / (0 + eps), 1e6 here, was the largest rate of an embedding with a token that never occurred."""
    params, grads = world()
    for g in grads:
        g["embed"] = g["embed"].at[jnp.asarray([1, 4])].set(0)
        g["norm"] = jnp.zeros_like(g["norm"])
    state, updates = after(o.adamw(RATE, LABELS, **ADAM), params, grads)
    found = o.telemetry(state, params, updates)
    scalars = o.telemetry_by_role(found, LABELS)
    effective, _, _ = expected_of_adam(grads, "embed")
    seen = jnp.delete(effective, jnp.asarray([1, 4]), axis=0)
    np.testing.assert_array_equal(found.effective_learning_rate["embed"][1], 0.0)
    for name, q in (("min", 0), ("q25", 0.25), ("median", 0.5), ("q75", 0.75), ("max", 1)):
        mine = scalars[f"effective_learning_rate/embedding/{name}"]
        np.testing.assert_allclose(mine, np.quantile(seen, q), rtol=1e-6)
        assert scalars[f"effective_learning_rate/norm/{name}"] == 0
    shares = {role: float(scalars[f"without_gradient/{role}"]) for role in ("embedding", "norm", "mlp")}
    assert shares == pytest.approx({"embedding": 1 / 3, "norm": 1.0, "mlp": 0.0})


INSIDE = o.HybridConfig(adaptive=o.MuonConfig(learning_rate=0.02), adaptive_roles=("attention", "mlp", "norm"))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (o.AdamWConfig(learning_rate=0.25), {"": 0.125}),
        (o.FrozenConfig(learning_rate=0.25, calibration_steps=1), {"": 0.125}),
        (o.ScheduleFreeAdamWConfig(learning_rate=0.25), {"": 0.125}),
        (o.HybridConfig(adaptive=o.AdamWConfig(learning_rate=1e-3)), {"sgd": 5.0, "adaptive": 5e-4}),
        (o.MuonConfig(rest=o.AdamWConfig(learning_rate=4e-3)), {"matrix": 0.01, "rest": 2e-3}),
        (INSIDE, {"sgd": 5.0, "adaptive/matrix": 0.01, "adaptive/rest": 0.5 * o.AdamWConfig().learning_rate}),
        (o.SvrmConfig(learning_rate=0.2, attention_multiplier=1.5, mlp_multiplier=0.5), {"min": 0.05, "max": 0.15}),
    ],
    ids=["one part", "frozen", "schedule-free", "hybrid", "Muon", "Muon in a hybrid", "multipliers"],
)
def test_rates_applied_by_each_part(config, expected):
    """Half of each peak, as the schedule says."""
    params, grads = world()
    tx = optax.chain(optax.clip(1.0), config.make(0.5, LABELS))
    state, _ = after(tx, params, grads)
    found = o.applied_rates(state)
    assert {name: float(rate) for name, rate in found.items()} == pytest.approx(expected, rel=1e-6)


def test_the_rate_of_prodigy_has_its_estimate():
    """The rate by which an update without decay is Adam's: here of a first step, whose Adam is the sign."""
    params, grads = world()
    config = o.ProdigyConfig(learning_rate=0.5, first_estimate=1e-3, eps=1e-12)
    state, updates = after(config.make(1.0, LABELS), params, grads[:1])
    (rate,) = o.applied_rates(state).values()
    np.testing.assert_allclose(rate, 0.5e-3, rtol=1e-6)
    np.testing.assert_allclose(updates["mlp"], -rate * jnp.sign(grads[0]["mlp"]), rtol=1e-5)


def test_gradient_norms_by_role_and_layer():
    for scan_layers in (False, True):
        unrolled, labels = tiny_params(jnp.float64)
        grads = model.stack_layers(unrolled) if scan_layers else unrolled
        labels = model.labels(tiny_model(scan_layers=True)) if scan_layers else labels
        found = o.grad_norms(grads, labels)
        np.testing.assert_allclose(found["head"], optax.tree.norm(unrolled["head"]))
        np.testing.assert_allclose(found["mlp/layer_01"], optax.tree.norm(unrolled["layer_01"]["mlp"]))
        np.testing.assert_allclose(
            sum(found[role] ** 2 for role in ("embedding", "attention", "mlp", "norm", "head")),
            optax.tree.norm(unrolled) ** 2,
        )


def test_describe_says_what_each_parameter_gets():
    params, labels = tiny_params()
    text = o.describe(o.AdalayerStarConfig(weight_decay=0.1, decay_roles=("head",)), params, labels)
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert re.search(r"head +\(8, 10\) +head +\(1, 10\) +10 +x1 +0.1 +trained", lines["head"])
    assert re.search(r"\(10, 8\) +embedding +\(1, 1\) +1 +x1 +0 +trained", lines["embed"])
    size = 4 * (optax.tree.size(params) + 9 + len(jax.tree.leaves(params)) + 2) + 4 * 8  # m, v, counts; numbers
    assert lines["state:"] == f"state: {size / optax.tree.size(params):.3f} bytes a parameter"
    layered = o.describe(config_of("layer_adaptive_adamw", depth_rule="linear"), params, labels)
    assert re.search(r"layer_01/mlp/up .* x1.2 +0.1 ", layered)
    assert re.search(r"layer_00/mlp/up .* x1 +0.1 ", layered)
    hybrid = o.describe(config_of("hybrid"), params, labels)
    assert re.search(r"embed .*embedding .*untrained", hybrid)
    foreign = o.describe(optax.adamw(1e-3), params).splitlines()
    assert foreign[0].split() == ["parameter", "shape"]
    assert foreign[-1].startswith("state: 8.0")
    with pytest.raises(o.InputError, match="labels"):
        o.describe(o.AdalayerConfig(), params)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_convention_cards(name):
    """Complete, and its bytes of state are those that the state has."""
    found = card(OPTIMIZERS[name])
    assert list(found) == list(CARD)
    config = preset("150m", scan_layers=True)
    tx = OPTIMIZERS[name]().make(1.0, model.labels(config))
    measured = o.state_bytes(tx, model.shapes(config))
    claimed = [float(x) for x in re.findall(r"\b(\d+)\b(?! \()", found["State"])]
    if name == "soap":
        assert measured > 8
    else:
        assert min(claimed) - 0.01 <= measured <= max(claimed) + 0.03, (measured, found["State"])


def test_docs_have_the_cards():
    docs = GOLDEN.parents[1] / "docs" / "optimizers.md"
    assert docs.read_text() == cards_table(OPTIMIZERS), "python -m jaxopt_lm.optimizers > docs/optimizers.md"
