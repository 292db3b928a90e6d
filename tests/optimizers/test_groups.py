"""Labels from path rules, what follows from them, and how constructors refuse what does not fit."""

import doctest
import inspect
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_lm import optimizers as o
from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers import OPTIMIZERS
from jaxopt_lm.optimizers.groups import as_matrix, matrix_axes, num_layers
from tests.optimizers.worlds import LABELS

pytestmark = pytest.mark.usefixtures("standard_promotion")

PARAMS = {
    "wte": jnp.zeros((6, 4)),
    "blocks": [{"w": jnp.zeros((4, 8)), "g": jnp.zeros(4)}, {"w": jnp.zeros((4, 8)), "g": jnp.zeros(4)}],
    "out": jnp.zeros((4, 6)),
}
RULES = [
    ("wte", Label(("vocab", "embed"), "embedding")),
    (r"blocks/(?P<layer>\d+)/w", Label(("embed", "mlp"), "mlp")),
    (r".*/g", Label(("embed",), "norm")),
    ("out", Label(("embed", "vocab"), "head")),
]


def test_rules_label_anyones_parameters():
    labels = o.label_params(PARAMS, RULES)
    assert jax.tree.structure(labels) == jax.tree.structure(PARAMS)
    assert labels["blocks"][1] == {"w": Label(("embed", "mlp"), "mlp", 1), "g": Label(("embed",), "norm")}
    assert num_layers(PARAMS, labels) == 2


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (RULES[:-1], "parameter out: no rule matches it"),
        ([*RULES, ("head", Label(("embed", "vocab"), "head"))], "rule 'head': it matches no parameter"),
        ([(".*", Label(("embed", "mlp"), "mlp")), *RULES], r"rule '.\*': its axes .* must be as many as those of"),
        (
            [*RULES[:-1], ("out", Label(("vocab", "embed"), "head"))],
            "axis embed of out, shape .4, 6., must have size 4",
        ),
    ],
)
def test_rules_that_do_not_fit(rules, message):
    with pytest.raises(o.InputError, match=message):
        o.label_params(PARAMS, rules)


def test_unknown_roles_and_axes_that_are_no_names():
    with pytest.raises(o.InputError, match="the role is one of embedding"):
        Label(("embed",), "bias")
    for axis in ("", "2d", 3, None):
        with pytest.raises(o.InputError, match="must be a name; those that mean something are layers, vocab"):
            Label((axis,), "mlp")


@pytest.mark.parametrize(
    ("axis", "known"), [("layer", "layers"), ("vocabs", "vocab"), ("embd", "embed"), ("head", "heads")]
)
def test_a_known_axis_misspelt(axis, known):
    with pytest.raises(o.InputError, match=f"axis {axis}: write {known} if that is meant, or choose a name"):
        Label((axis,), "mlp")


def test_a_kernel_is_its_matrix():
    kernel, out = (
        Label(("layers", "embed", "heads", "head_dim"), "attention"),
        Label(("heads", "value_dim", "embed"), "mlp"),
    )
    assert matrix_axes(kernel) == ((1,), (2, 3))
    assert matrix_axes(out) == ((0, 1), (2,))
    assert matrix_axes(Label(("layers", "embed"), "norm")) == ((1,),)
    x = np.arange(2 * 3 * 2 * 5).reshape(2, 3, 2, 5)
    np.testing.assert_array_equal(as_matrix(jnp.asarray(x), kernel), x.reshape(2, 3, 10))
    np.testing.assert_array_equal(as_matrix(jnp.asarray(x[0]), out), x[0].reshape(6, 5))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (1e-3, "labels: must be a tree of Labels, has float"),
        (PARAMS, "labels: must be a tree of Labels, has ArrayImpl"),
        ({"wte": LABELS["embed"]}, "labels: must have the parameters' structure; blocks/0/g is in one of them alone"),
        (None, "labels=None: stacked layers are told apart by axes and roles"),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(o.InputError, match=message):
        o.adalayer(1e-3, labels).init(PARAMS)
    if labels is None:
        o.adamw(1e-3).init(PARAMS)


def test_axes_that_do_not_fit_the_shape():
    labels = o.label_params(PARAMS, RULES) | {"out": Label(("embed",), "head")}
    with pytest.raises(o.InputError, match=r"labels: out has shape \(4, 6\) and axes \('embed',\)"):
        o.adalayer(labels=labels).init(PARAMS)


@pytest.mark.parametrize("field", ["adaptive_roles", "untrained_roles"])
def test_roles_nobody_has(field):
    tied = {name: label for name, label in LABELS.items() if name not in ("head", "norm")}
    roles = {"adaptive_roles": ("embedding",)} | {field: ("head",)}
    with pytest.raises(o.InputError, match="no parameter has the role head; there are"):
        o.hybrid(1.0, tied, **roles)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_constructors_show_their_fields(name):
    """The rate and the labels by position, every field of the config by name, with its default and its doc."""
    construct, fields, hints = getattr(o, name), vars(OPTIMIZERS[name]()), typing.get_type_hints(OPTIMIZERS[name])
    parameters = inspect.signature(construct).parameters
    by_position = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert by_position == ["learning_rate", "labels"]
    ints = {k: None for k in fields if hints[k] is int and not k.endswith("_steps")}
    assert {k: p.default for k, p in parameters.items()} == fields | {"labels": None, "mask": None} | ints
    documented = re.findall(r"^      (\w+): ", construct.__doc__.split("Args:")[1].split("\n\n")[0], re.MULTILINE)
    assert documented == list(parameters)
    for k in ints:
        assert re.search(rf"^      {k}: .*; None: {fields[k]}\.$", construct.__doc__, re.MULTILINE)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_examples_of_constructors(name):
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(o, name), name, globs={})
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize(
    "first",
    [LABELS, LABELS["embed"], [1e-3], np.ones(2), "1e-3", None],
    ids=["labels", "label", "list", "array", "str", "None"],
)
def test_what_is_no_rate_is_refused(first):
    message = f"learning_rate: must be a number or a schedule, is {type(first).__name__}; give labels second, or as"
    with pytest.raises(o.InputError, match=message):
        o.adamw(first)


def test_constructors_stand_in_a_chain():
    tx = optax.chain(optax.clip_by_global_norm(1.0), o.adalayer_star(1e-3, o.label_params(PARAMS, RULES)))
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Label(("embed", "layers", "mlp"), "mlp"), "layers is the first axis"),
        (lambda: Label(("layers", "embed"), "norm", 1), "layers is the first axis"),
        (lambda: matrix_axes(Label(("heads", "embed", "head_dim"), "attention")), "put the axes of the heads side by"),
        (
            lambda: o.LayerAdaptiveAdamWConfig(b1_first=0.5),
            "LayerAdaptiveAdamWConfig.b1_first=0.5, b1_last=None: give both or neither",
        ),
        (lambda: o.HybridConfig(adaptive=optax.adam(1e-3)), "HybridConfig.adaptive: must be a config"),
        (lambda: o.adamw(decay_roles=("mlp",)), "labels=None: what decays is chosen by axes and roles"),
        (lambda: o.FrozenConfig(calibration_steps=0), "FrozenConfig.calibration_steps=0"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(o.InputError, match=message):
        make()


def test_a_calibration_inside_holds_the_whole():
    """Nothing moves while a part is calibrated, whoever drives the optimizer."""
    params = {leaf: jnp.ones((4,) * len(label.axes)) for leaf, label in LABELS.items()}
    frozen = o.FrozenConfig(calibration_steps=3)
    for config in (o.HybridConfig(learning_rate=1.0, adaptive=frozen), o.MuonConfig(rest=frozen), frozen):
        assert config.calibration_steps == 3
        tx, moved = config.make(1.0, LABELS), params
        state = tx.init(params)
        for step in range(4):
            updates, state = tx.update(params, state, moved)
            moved = optax.apply_updates(moved, updates)
            still = [np.array_equal(moved[leaf], params[leaf]) for leaf in LABELS]
            assert all(still) if step < 3 else not any(still), (type(config), step)


def test_stacks_of_different_depth_are_refused():
    params = {"a": jnp.zeros((2, 4)), "b": jnp.zeros((3, 4))}
    with pytest.raises(o.InputError, match=r"stacked layers must be equally many everywhere; there are \[2, 3\]"):
        o.adalayer(1e-3, dict.fromkeys(params, Label(("layers", "embed"), "norm"))).init(params)


def test_one_scalar_a_vector_and_layer():
    stacked, label = jnp.asarray([1.0, 3.0]), Label(("layers",), "norm")
    tx = o.scale_by_adafactor(0.0, 0.5, 1e-15, label, one_scalar_1d=True)
    (u, state) = tx.update(stacked, tx.init(stacked))
    np.testing.assert_allclose(u, [1.0, 1.0], rtol=1e-6)
    assert state.row.shape == (2,)
