"""A user's own class and FromOptax: what the registered optimizers do, these do too."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jaxopt_lm.errors import InputError
from jaxopt_lm.optimizers import (
    AdamWConfig,
    FromOptax,
    HybridConfig,
    MuonConfig,
    OptimizerConfig,
    describe,
    eval_params,
    telemetry,
    telemetry_by_role,
    traceable,
)
from jaxopt_lm.optimizers.own import check_class
from jaxopt_lm.optimizers.sources import load_file
from jaxopt_lm.training.sharding import logical_axes
from tests.optimizers.worlds import LABELS, random_tree, run, tiny_params, with_narrow_momenta
from tests.training.test_sharding import DIVIDED, SHAPES, by_path
from tests.training.test_sharding import LABELS as STACKED
from tests.write_config_dumps import ROOT

pytestmark = pytest.mark.usefixtures("standard_promotion")

Mine = load_file(ROOT / "examples" / "my_optimizer.py").Mine
ADAMW = {"b1": 0.8, "b2": 0.95, "eps": 1e-6, "weight_decay": 0.1}
MUON = {"beta": 0.9, "ns_steps": 3, "nesterov": False}

FUNCTIONS = {
    "adamw": ("optax:adamw", ADAMW, optax.adamw),
    "lion": ("optax:lion", {"b1": 0.8}, optax.lion),
    "muon": ("optax.contrib:muon", MUON, optax.contrib.muon),
    "rmsprop": ("optax:rmsprop", {"decay": 0.8, "momentum": 0.9}, optax.rmsprop),
}
OWN = {
    "Mine": Mine(),
    **{name: FromOptax(spec, {"learning_rate": 1e-2} | a) for name, (spec, a, _) in FUNCTIONS.items()},
}
every_own = pytest.mark.parametrize("name", OWN)


def world(steps=3):
    params, labels = tiny_params()
    return params, labels, [random_tree(params, t) for t in range(steps)]


def assert_close(found, expected, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7), found, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_itself_with_the_schedules_rate(name):
    _, arguments, function = FUNCTIONS[name]
    params, labels, grads = world()
    moved, _ = run(OWN[name], labels, params, grads, multiplier=0.5)
    tx = function(learning_rate=0.5e-2, **arguments)
    state = tx.init(params)
    for g, found in zip(grads, moved, strict=True):
        updates, state = jax.jit(tx.update)(g, state, params)
        params = optax.apply_updates(params, updates)
        assert_close(found, params, rtol=1e-4)


def test_the_example_moves_by_the_sign_where_it_agrees():
    params = {leaf: jnp.ones((2,) * len(label.axes)) for leaf, label in LABELS.items()}
    up = jax.tree.map(jnp.ones_like, params)
    down = jax.tree.map(lambda x: -0.1 * x, up)  # the average stays positive
    config = dataclasses.replace(Mine(), learning_rate=0.5, weight_decay=0.1, decay_roles=("mlp",))
    (first, second), _ = run(config, LABELS, params, [up, down], multiplier=0.5)
    for leaf, label in LABELS.items():
        kept = 1 - 0.25 * 0.1 if label.role == "mlp" else 1.0
        np.testing.assert_allclose(first[leaf], kept - 0.25, rtol=1e-6)
        np.testing.assert_allclose(second[leaf], kept * first[leaf], rtol=1e-6)


@every_own
def test_numbers_are_traced_and_the_rest_is_structure(name):
    """Two members of a population are two runs, and one program serves all numbers."""
    config, (params, labels, grads) = OWN[name], world(1)
    other = jax.tree.map(lambda x: 0.5 * x, config)
    traces = []

    @jax.jit
    @jax.vmap
    def step(config):
        traces.append(1)
        tx = config.make(1.0, labels)
        return tx.update(grads[0], tx.init(params), params)[0]

    both = step(jax.tree.map(lambda a, b: jnp.asarray([a, b]), config, other))
    step(jax.tree.map(lambda a, b: jnp.asarray([b, a]), config, other))
    assert len(traces) == 1
    for i, member in enumerate((config, other)):
        tx = member.make(1.0, labels)
        expected, _ = jax.jit(tx.update)(grads[0], tx.init(params), params)
        assert_close(jax.tree.map(lambda x, i=i: x[i], both), expected, rtol=1e-4)


def test_arguments_that_are_fields():
    config = OWN["muon"]
    leaves = {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(config)}
    assert leaves == {
        ".learning_rate": 1e-2,
        ".weight_decay": 0.0,
        ".beta": 0.9,
        ".eps": 1e-8,
        ".adam_b1": 0.9,
        ".adam_b2": 0.999,
        ".adam_eps_root": 0.0,
        ".adam_weight_decay": 0.0,
    }
    assert (config.ns_steps, config.nesterov) == (3, False)
    assert config == FromOptax(optax.contrib.muon, MUON, learning_rate=1e-2)
    assert jax.tree.structure(config) != jax.tree.structure(dataclasses.replace(config, ns_steps=4))
    assert typing.get_type_hints(type(OWN["rmsprop"]))["momentum"] == float | None
    assert FromOptax("optax:adamw", {"learning_rate": 1, "weight_decay": 0}).weight_decay == 0
    assert 0 in jax.tree.leaves(FromOptax("optax:adamw", {"learning_rate": 1, "weight_decay": 0}))
    assert FromOptax("optax.contrib:muon", {"learning_rate": 1.0, "ns_coeffs": (3.0, -4.0, 2.0)}).ns_coeffs[1] == -4.0


@every_own
def test_it_is_described(name):
    params, labels, _ = world(0)
    text = describe(OWN[name], params, labels)
    bytes_of_state = float(text.splitlines()[-1].split()[1])
    assert bytes_of_state == pytest.approx({"adamw": 8, "muon": 6, "rmsprop": 8}.get(name, 4), abs=0.6)
    assert all(line.endswith("trained") for line in text.splitlines()[:-1])


def test_telemetry_of_an_adam_has_its_effective_rates():
    params, labels, grads = world()
    _, state = run(OWN["adamw"], labels, params, grads, multiplier=0.5)
    found = jax.jit(functools.partial(telemetry, labels=labels))(state, params, grads[-1])
    v = jnp.zeros_like(grads[0]["embed"])
    for g in grads:
        v = 0.95 * v + 0.05 * g["embed"] ** 2
    expected = 0.5e-2 / (jnp.sqrt(v / (1 - 0.95**3)) + 1e-6)
    np.testing.assert_allclose(found.effective_learning_rate["embed"], expected, rtol=1e-4)


@every_own
def test_telemetry_has_the_rate_and_what_the_state_shows(name):
    params, labels, grads = world()
    _, state = run(OWN[name], labels, params, grads, multiplier=0.5)
    lines = telemetry_by_role(telemetry(state, params, grads[-1], labels=labels), labels)
    assert float(lines["learning_rate/mlp"]) == pytest.approx(0.5 * OWN[name].learning_rate)
    assert "cosine_with_sign/mlp" in lines
    assert ("effective_learning_rate/mlp/median" in lines) == (name == "adamw")


@every_own
def test_state_is_wide_and_momenta_are_narrow_where_asked(name):
    params, labels = tiny_params(jnp.bfloat16)
    state = OWN[name].make(1.0, labels).init(params)
    assert {x.dtype for x in jax.tree.leaves(state)} <= {jnp.dtype("float32"), jnp.dtype("int32")}
    narrow = with_narrow_momenta(OWN[name]).make(1.0, labels).init(params)
    assert jnp.dtype("bfloat16") in {x.dtype for x in jax.tree.leaves(narrow)}


def test_mu_dtype_is_refused_where_there_is_no_momentum():
    params, labels, _ = world(0)
    config = FromOptax("optax:adagrad", {"learning_rate": 1e-2}, mu_dtype="bfloat16")
    with pytest.raises(InputError, match="mu_dtype='bfloat16': the state has no momentum, called one of mu, "):
        config.make(1.0, labels).init(params)


@pytest.mark.parametrize("spec", ["optax:adamw", "optax:sgd"], ids=["by its mask", "beside it"])
def test_decay_is_by_role_whether_or_not_the_function_decays(spec):
    config = FromOptax(spec, {"learning_rate": 0.5}, weight_decay=0.25, decay_roles=("mlp", "head"))
    params = {leaf: jnp.ones((2,) * len(label.axes)) for leaf, label in LABELS.items()}
    (moved,), _ = run(config, LABELS, params, [jax.tree.map(jnp.zeros_like, params)])
    for leaf, label in LABELS.items():
        np.testing.assert_allclose(moved[leaf], 1 - 0.5 * 0.25 * (label.role in ("mlp", "head")), rtol=1e-6)


@every_own
def test_state_has_the_axes_of_the_parameters(name):
    state = logical_axes(OWN[name].make(1.0, STACKED).init, SHAPES, STACKED)
    found = {axes for path, axes in by_path(state).items() if axes and path.endswith("/head")}
    assert found == {DIVIDED["head"]}


def test_parts_of_other_optimizers():
    params, labels, grads = world(2)
    adamw = FromOptax("optax:adamw", {"learning_rate": 1e-2, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.0})
    ours = AdamWConfig(learning_rate=1e-2, b2=0.95, eps=1e-8)
    for outer, field in ((MuonConfig, "rest"), (HybridConfig, "adaptive")):
        found, expected = (run(outer(**{field: inner}), labels, params, grads)[0][-1] for inner in (adamw, ours))
        assert_close(found, expected)


def test_schedule_free_parameters_to_evaluate_are_the_average():
    params, labels, grads = world()
    config = FromOptax("optax.contrib:schedule_free_adamw", {"learning_rate": 1e-2})
    moved, state = run(config, labels, params, grads)
    z = optax.tree.get(state, "z")
    expected = jax.tree.map(lambda y, z: (y - 0.1 * z) / 0.9, moved[-1], z)
    assert_close(eval_params(state, moved[-1]), expected)


def branches(learning_rate: float, b1: float = 0.9) -> optax.GradientTransformation:
    return optax.sgd(learning_rate, b1 if b1 > 0 else None)


def returns_nothing(learning_rate: float) -> None:
    del learning_rate


def takes_anything(**fields) -> optax.GradientTransformation:
    return optax.sgd(**fields)


def test_a_function_that_takes_anything_gets_what_is_given():
    config = FromOptax(takes_anything, {"learning_rate": 0.5, "momentum": 0.0, "nesterov": True})
    assert type(config).passed == ("momentum", "nesterov")
    params, labels, grads = world(1)
    (moved,), _ = run(config, labels, params, grads)
    assert_close(moved, jax.tree.map(lambda p, g: p - 0.5 * g, params, grads[0]))


RATE = {"learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("optax:adamw", RATE | {"b3": 0.9}, "alias:adamw: has no argument b3; it takes learning_rate, b1, b2, eps"),
        ("optax:adamw", {"learning_rate": float("nan")}, "adamw.learning_rate=nan: must be finite in float32"),
        ("optax:adamw", RATE | {"b1": float("inf")}, "adamw.b1=inf: must be finite in float32"),
        ("optax:adamw", RATE | {"mask": print}, "mask=<built-in function print>: must be a number"),
        ("optax:scale_by_adam", {}, "scale_by_adam: must take learning_rate"),
        ("optax:noisy_adamw", RATE, "has no noisy_adamw"),
        ("optax:MaskedNode", RATE, "MaskedNode': must be a function"),
        ("optix:adamw", RATE, "'optix:adamw': No module named 'optix'; name a file as FILE.py:NAME"),
        ("none.py:adamw", RATE, "'none.py:adamw': no such file none.py"),
        ("adamw", RATE, "'adamw': must be FILE.py:NAME or MODULE:NAME"),
        ("optax:adamw", {"b1": 0.8}, "alias:adamw: needs learning_rate, which the schedule multiplies"),
        ("optax.contrib:dpsgd", RATE, "dpsgd: needs l2_norm_clip, noise_multiplier, seed"),
        (lambda learning_rate: optax.sgd(learning_rate), RATE, "define it at the top level of a file"),
    ],
    ids=range(13),
)
def test_what_cannot_be_called_is_refused(function, arguments, message):
    with pytest.raises(InputError) as error:
        FromOptax(function, arguments)
    assert message in str(error.value)


def test_restricted_decay_needs_a_mask():
    with pytest.raises(InputError, match=r"undecided.decay_roles=\['mlp'\]: .*undecided takes no mask"):
        FromOptax(undecided, RATE, decay_roles=("mlp",)).make(1.0, LABELS)


def undecided(learning_rate: float, weight_decay: float = 0.1) -> optax.GradientTransformation:
    return optax.adamw(learning_rate, weight_decay=weight_decay)


@pytest.mark.parametrize(
    ("function", "message"),
    [(branches, "decides by the value of a number"), (returns_nothing, "returned NoneType; must return an optax")],
    ids=["branches", "returns nothing"],
)
def test_what_cannot_be_traced_is_one_line(function, message):
    config = FromOptax(function, RATE)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda config: config.make(1.0, LABELS).init({"head": jnp.ones((2, 2))}), config)


def test_a_class_without_its_decorators_is_refused():
    class Plain(AdamWConfig):
        beta: float = 0.5

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class NoTree(AdamWConfig):
        pass

    for cls in (Plain, NoTree):
        with pytest.raises(InputError, match=r"must be decorated: @traceable above @dataclasses\.dataclass\("):
            check_class(cls)
    with pytest.raises(InputError, match=r"@traceable goes above @dataclasses\.dataclass"):
        traceable(Plain)


@pytest.mark.parametrize(
    "hint",
    [dict[str, float], typing.Any, list[int], tuple[int, int], object],
    ids=["dict", "Any", "list", "2", "object"],
)
def test_a_field_that_no_dump_can_hold_is_refused(hint):
    cls = dataclasses.make_dataclass(
        "Odd",
        [("odd", hint, None)],
        bases=(AdamWConfig,),
        frozen=True,
        kw_only=True,
        namespace={"__module__": __name__},
    )
    with pytest.raises(InputError, match=r"^Odd\.odd: is declared .*; a field must be float, int, bool, str"):
        check_class(traceable(cls))


def test_a_field_called_as_dumps_call_the_class_is_refused():
    @traceable
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Odd(OptimizerConfig):
        name: str = "odd"

        def direction(self, labels):
            return optax.identity()

    with pytest.raises(InputError, match=r"Odd\.name: dumps use that name"):
        check_class(Odd)
