"""What every registered optimizer shares, over the table of all of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxopt_lm import model
from jaxopt_lm import optimizers as o
from jaxopt_lm.errors import InputError
from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers import OPTIMIZERS
from jaxopt_lm.optimizers.soap import SoapMatrix
from tests.optimizers.worlds import (
    FIELDS,
    LABELS,
    config_of,
    random_tree,
    run,
    slice_of,
    tiny_model,
    tiny_params,
    update_once,
    with_narrow_momenta,
)

pytestmark = pytest.mark.usefixtures("standard_promotion")

with_structure = slice_of("adafactor", "frozen", "hybrid", "lars", "muon", "schedule_free_adamw")
STEPS = 8  # of every run here: runs that differ in numbers alone share a compilation
sizes = st.integers(1, 5)


def test_every_optimizer_has_a_row():
    assert FIELDS.keys() == OPTIMIZERS.keys()


def some_shapes(vocab, embed, heads, width, mlp):
    shapes = {
        "embed": (vocab, embed),
        "query": (embed, heads, width),
        "mlp": (embed, mlp),
        "norm": (embed,),
        "head": (embed, vocab),
    }
    return {leaf: jax.ShapeDtypeStruct(shape, jnp.float32) for leaf, shape in shapes.items()}


@slice_of("adafactor", "hybrid", "muon", "soap")
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    dims=st.tuples(st.integers(2, 6), sizes, sizes, sizes, sizes),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
)
def test_any_shape_and_dtype(name, dims, dtype):
    """State keeps structure and dtypes, updates have those of the gradients; state is float32 for bfloat16 too."""
    shapes = some_shapes(*dims)
    params, config = random_tree(shapes, -1, dtype), config_of(name, weight_decay=0.1)
    before = jax.eval_shape(config.make(1.0, LABELS).init, params)
    updates, after = jax.eval_shape(lambda s, p, g: update_once(config, LABELS, s, p, g), before, params, params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), before)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), updates) == jax.tree.map(lambda x: (x.shape, x.dtype), params)
    floats = [x.dtype for x in jax.tree.leaves(before) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert set(floats) <= {jnp.dtype(jnp.float32)}


@slice_of("adan", "hybrid", "mars", "prodigy", "soap")
def test_momenta_in_bfloat16_are_rounded_after_an_update_in_float32(name):
    """From momenta of any precision the update is float32's; what is kept is its momenta rounded, all else as it is."""
    shapes, wide = some_shapes(6, 4, 2, 2, 5), config_of(name, weight_decay=0.1)
    if name == "schedule_free_adamw":
        with pytest.raises(InputError, match="schedule_free_adamw keeps no momentum; leave it None"):
            with_narrow_momenta(wide)
        return
    narrow, params = with_narrow_momenta(wide), random_tree(shapes, -1)
    kept, like = (jax.jit(config.make(1.0, LABELS).init)(params) for config in (narrow, wide))
    rounded = [x for x in jax.tree.leaves(kept) if x.dtype == jnp.bfloat16]
    trained = [x for leaf, x in params.items() if name != "hybrid" or leaf != "embed"]
    assert sum(x.size for x in rounded) == sum(x.size for x in trained)
    step = jax.jit(lambda config, state, g: update_once(config, LABELS, state, params, g))
    for t in range(4):
        widened = jax.tree.map(lambda x, y: x.astype(y.dtype), kept, like)
        expected, after = step(wide, widened, random_tree(shapes, t))
        updates, kept = step(narrow, kept, random_tree(shapes, t))
        assert_close(updates, expected, 1e-4, 1e-8)
        for mine, exact in zip(jax.tree.leaves(kept), jax.tree.leaves(after), strict=True):
            tolerance = 2**-8 if mine.dtype == jnp.bfloat16 else 1e-6
            np.testing.assert_allclose(mine.astype(exact.dtype), exact, rtol=tolerance, atol=1e-9)


def test_names_of_parameters_are_not_taken_for_momenta():
    """A user's tree whose nodes are called as momenta are."""

    class Layer(NamedTuple):
        mu: jax.Array
        m: jax.Array

    params = Layer(jnp.ones((2, 3)), jnp.ones((3,)))
    state = config_of("adamw", mu_dtype="bfloat16").make(1.0, None).init(params)
    assert {x.dtype.name for x in jax.tree.leaves(optax.tree.get(state, "nu"))} == {"float32"}
    assert {x.dtype.name for x in jax.tree.leaves(state[0].mu)} == {"bfloat16"}


@slice_of("adafactor", "frozen", "hybrid", "lion", "muon", "schedule_free_adamw", "soap", "sophia")
def test_scan_with_donation_equals_a_loop(name):
    """Updates jitted one by one, their state donated, are those under lax.scan."""
    shapes, config = some_shapes(6, 4, 2, 2, 5), config_of(name, weight_decay=0.1)
    params, grads = random_tree(shapes, -1), [random_tree(shapes, step) for step in range(STEPS)]
    expected, _ = run(config, LABELS, params, grads)
    update = jax.jit(lambda state, p, g: update_once(config, LABELS, state, p, g), donate_argnums=0)
    state = jax.jit(config.make(1.0, LABELS).init)(params)
    for g, after in zip(grads, expected, strict=True):
        updates, state = update(state, params, g)
        params = optax.apply_updates(params, updates)
        assert_close(params, after)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((params, state)))


def assert_close(mine, other, rtol=2e-4, atol=2e-5):
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@slice_of("frozen", "hybrid", "layer_adaptive_adamw", "soap", "sophia")
def test_every_number_is_traced_and_one_program_serves_all(name):
    """Changing any number compiles nothing; members of a vmapped population equal their solo runs."""
    shapes, base = some_shapes(6, 4, 2, 2, 5), config_of(name, weight_decay=0.1)
    params, grads = random_tree(shapes, -1), [random_tree(shapes, step, scale=0.1) for step in range(3)]
    traces = []

    def last(config):
        traces.append(None)
        return run(config, LABELS, params, grads, 0.5)[0][-1]

    leaves, treedef = jax.tree.flatten(base)
    changed = [
        treedef.unflatten([*leaves[:i], (0.9 * x if isinstance(x, float) else x + 1), *leaves[i + 1 :]])
        for i, x in enumerate(leaves)
    ]
    program = jax.jit(last)
    alone = [program(config) for config in (base, *changed)]
    assert len(traces) == 1
    together = jax.jit(jax.vmap(last))(jax.tree.map(lambda *xs: jnp.asarray(xs), base, *changed))
    for member, solo in enumerate(alone):
        assert_close(jax.tree.map(lambda x, i=member: x[i], together), solo)


@slice_of("frozen", "hybrid", "layer_adaptive_adamw", "prodigy", "sophia")
def test_a_schedule_for_every_number(name):
    """A constructor takes a schedule for any number; one that is constant changes nothing, the rate's is applied."""
    shapes, labels = some_shapes(6, 4, 2, 2, 5), LABELS
    params, grads = random_tree(shapes, -1), [random_tree(shapes, step) for step in range(3)]
    config = config_of(name, weight_decay=0.1)
    numbers = {k: v for k, v in vars(config).items() if isinstance(v, float)}
    constant = {k: (lambda count, v=v: jnp.asarray(v, jnp.float32)) for k, v in numbers.items()}
    construct = getattr(o, name)

    def drive(tx):
        @jax.jit
        def step(state, moved, g):
            curvature = {"sampled_grads": lambda: g, "batch_tokens": 100, "hutchinson": lambda: g}
            updates, state = optax.with_extra_args_support(tx).update(g, state, moved, **curvature)
            return state, optax.apply_updates(moved, updates)

        state, moved = tx.init(params), params
        for g in grads:
            state, moved = step(state, moved, g)
        return moved

    plain = drive(construct(labels=labels, **vars(config)))
    scheduled = drive(construct(labels=labels, **(vars(config) | constant)))
    assert_close(scheduled, plain)
    still = drive(construct(labels=labels, **(vars(config) | silent(config))))
    assert_close(still, params, 1e-6, 1e-6)


def silent(config):
    """Every peak rate as a schedule that is 0."""
    nested = {k: v for k, v in vars(config).items() if isinstance(v, o.OptimizerConfig)}
    still = {k: type(v)(**(vars(v) | silent(v))) for k, v in nested.items()}
    return {"learning_rate": lambda count: jnp.zeros(())} | still


@with_structure
def test_decay_is_by_role_and_scaled_by_the_rate(name):
    """Decay moves the roles that decay and no others, in proportion to the rate."""
    shapes = some_shapes(6, 4, 2, 2, 5)
    params, steps = random_tree(shapes, -1), 3 if name == "frozen" else 1
    grads = [random_tree(shapes, 0, scale=1e-3)] * steps
    fields = {"decay_roles": ("mlp",)} | ({"first_layer": False} if name == "adalayer_star" else {})
    moved = [
        run(config_of(name, weight_decay=wd, **fields), LABELS, params, grads, rate)[0][-1]
        for wd, rate in ((0.0, 0.1), (0.1, 0.1), (0.0, 0.05), (0.1, 0.05))
    ]
    by_decay, by_half = (jax.tree.map(jnp.subtract, a, b) for a, b in ((moved[1], moved[0]), (moved[3], moved[2])))
    for leaf in ("embed", "query", "norm", "head"):
        np.testing.assert_array_equal(by_decay[leaf], 0)
    assert float(jnp.abs(by_decay["mlp"]).max()) > 0
    if name not in ("lamb", "lars"):  # theirs is inside the ratio
        np.testing.assert_allclose(by_decay["mlp"], 2 * by_half["mlp"], rtol=0.05, atol=1e-6)


@slice_of("adamw", "hybrid", "lars", "muon", "prodigy", "schedule_free_adamw", "soap", "svrm")
def test_at_rate_zero_nothing_moves(name):
    shapes = some_shapes(6, 4, 2, 2, 5)
    params, fields = random_tree(shapes, -1), {"first_estimate": 1e-6} if name == "prodigy" else {}
    grads = [random_tree(shapes, step) for step in range(STEPS)]
    moved = run(config_of(name, weight_decay=0.1, **fields), LABELS, params, grads, 0.0)[0]
    assert_close(moved[-1], params, 1e-6, 1e-7)


@slice_of(
    "adafactor", "adalayer", "adam_mini", "hybrid", "lars", "muon", "novograd", "schedule_free_adamw", "soap", "sophia"
)
def test_dead_rows_stay_put(name):
    """A row without gradients keeps its bits, nothing becomes NaN; schedule-free rebuilds it, within an ulp a step."""
    shapes = some_shapes(6, 4, 2, 2, 5)
    params = random_tree(shapes, -1)
    grads = [random_tree(shapes, step) for step in range(STEPS)]
    for g in grads:
        g["embed"], g["head"] = g["embed"].at[3].set(0), g["head"].at[:, 3].set(0)
    fields = {} if name == "hybrid" else {"weight_decay": 0.0}
    moved = run(config_of(name, **fields), LABELS, params, grads)[0][-1]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(moved))
    for before, after in ((params["embed"][3], moved["embed"][3]), (params["head"][:, 3], moved["head"][:, 3])):
        if name == "schedule_free_adamw":
            np.testing.assert_allclose(after, before, rtol=8 * 1.2e-7)
        else:
            np.testing.assert_array_equal(after, before)
    if name != "hybrid":
        assert not np.allclose(moved["embed"][2], params["embed"][2], atol=1e-7)


@slice_of("adafactor", "adalayer", "adopt", "lamb", "lion", "mars", "muon", "prodigy", "schedule_free_adamw", "soap")
def test_nan_is_never_hidden(name):
    """After one NaN gradient entry, that entry's parameter is non-finite at every later step."""
    shapes = some_shapes(6, 4, 2, 2, 5)
    params, config = random_tree(shapes, -1), config_of(name)
    trained = "head" if name == "hybrid" else "mlp"
    state = jax.jit(config.make(1.0, LABELS).init)(params)
    update = jax.jit(lambda state, p, g: update_once(config, LABELS, state, p, g))
    for step in range(6):
        grads = random_tree(shapes, step)
        if step == 1:
            grads[trained] = grads[trained].at[1, 2].set(jnp.nan)
        updates, state = update(state, params, grads)
        params = optax.apply_updates(params, updates)
        assert np.isfinite(params[trained][1, 2]) == (step < 1), step


@with_structure
def test_zero_size_and_scalar_parameters(name):
    labels = LABELS | {"empty": Label(("embed", "mlp"), "mlp"), "gain": Label((), "norm")}
    shapes = some_shapes(6, 4, 2, 2, 5) | {
        "empty": jax.ShapeDtypeStruct((0, 3), jnp.float32),
        "gain": jax.ShapeDtypeStruct((), jnp.float32),
    }
    params = random_tree(shapes, -1)
    moved, state = run(config_of(name), labels, params, [random_tree(shapes, step) for step in range(4)])
    assert moved[-1]["empty"].shape == (0, 3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((moved[-1], state)))
    assert float(moved[-1]["gain"]) != float(params["gain"])


@slice_of("adafactor", "layer_adaptive_adamw", "muon", "novograd", "soap")
def test_stacked_layers_train_as_unstacked_ones(name):
    """Trajectories agree, and so do the entries of state each parameter has."""
    unrolled, labels = tiny_params()
    stacked, stacked_labels = model.stack_layers(unrolled), model.labels(tiny_model(scan_layers=True))
    config = config_of(name, weight_decay=0.1)
    grads = [random_tree(unrolled, step) for step in range(5)]
    expected, state = run(config, labels, unrolled, grads)
    found, stacked_state = run(config, stacked_labels, stacked, [model.stack_layers(g) for g in grads])
    for a, b in zip(found, expected, strict=True):
        assert_close(a, model.stack_layers(b), 1e-4, 1e-5)
    large = [sum(x.size for x in jax.tree.leaves(s) if x.size > 1) for s in (state, stacked_state)]
    assert abs(large[0] - large[1]) <= 2 * len(jax.tree.leaves(unrolled))  # a scalar a tensor, stacked, is an array


@pytest.mark.parametrize("name", ["muon", "soap"])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_matrix_state_is_of_attention_and_mlp_alone(name, scan_layers):
    config = tiny_model(scan_layers=scan_layers)
    params, labels = random_tree(model.shapes(config), 0), model.labels(config)
    state = config_of(name).make(1.0, labels).init(params)
    inner = optax.tree.get(state, "inner_states")["matrix"]
    trees = optax.tree.get(inner, "mu") if name == "muon" else optax.tree.get(inner, "matrices")
    leaves = jax.tree.leaves(trees, is_leaf=lambda x: isinstance(x, optax.MaskedNode | SoapMatrix))
    for label, leaf in zip(jax.tree.leaves(labels), leaves, strict=True):
        assert isinstance(leaf, optax.MaskedNode) == (label.role not in ("attention", "mlp")), label
