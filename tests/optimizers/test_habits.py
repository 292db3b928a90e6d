"""What people who know optax, Flax nnx and equinox do without thinking."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxopt_lm import optimizers as o
from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers import OPTIMIZERS
from jaxopt_lm.optimizers.labelling import path_name
from tests.optimizers.worlds import FIELDS, LABELS, random_tree, slice_of

pytestmark = pytest.mark.usefixtures("standard_promotion")

VECTORS = [
    (r"norm/(scale|weight|bias)", Label(("mlp",), "norm")),
    (r"up/bias", Label(("mlp",), "mlp")),
    (r"head/bias", Label(("vocab",), "head")),
]
RULES = [
    *VECTORS,
    (r"up/kernel", Label(("embed", "mlp"), "mlp")),
    (r"head/kernel", Label(("mlp", "vocab"), "head")),
]
RULES_EQUINOX = [
    *VECTORS,
    (r"up/weight", Label(("mlp", "embed"), "mlp")),
    (r"head/weight", Label(("vocab", "mlp"), "head")),
]


def make(name, labels, **fields):
    """The optimizer, with fields of its row, so that short runs of it say something."""
    row = {k: v for k, v in FIELDS[name].items() if k != "untrained_roles"}
    return optax.with_extra_args_support(getattr(o, name)(labels=labels, **(row | fields)))


def curvature(grads):
    return {"sampled_grads": lambda: grads, "batch_tokens": 100, "hutchinson": lambda: grads}


def trained(tx, params, grads):
    """Parameters after two updates."""
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(grads, state, params, **curvature(grads))
        params = eqx.apply_updates(params, updates)
    return params


class FlaxNet(nnx.Module):
    def __init__(self, rngs):
        self.up = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)


def train_flax(tx):
    """Parameters before and after two updates by Flax's optimizer."""
    model = FlaxNet(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before, grads = nnx.as_pure(nnx.state(model, nnx.Param)), jax.tree.map(jnp.sin, nnx.state(model, nnx.Param))
    for _ in range(2):
        optimizer.update(model, grads, **curvature(grads))
    return before, nnx.as_pure(nnx.state(model, nnx.Param))


class EquinoxNet(eqx.Module):
    up: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear
    activation: object
    calls: jax.Array

    def __init__(self):
        self.up = eqx.nn.Linear(3, 4, key=jax.random.key(0))
        self.norm = eqx.nn.LayerNorm(4)
        self.head = eqx.nn.Linear(4, 2, key=jax.random.key(1))
        self.activation, self.calls = jax.nn.relu, jnp.zeros((), jnp.int32)

    def __call__(self, x):
        raise AssertionError("an optimizer called the model")


def train_equinox(tx, *, whole):
    model = EquinoxNet()
    before = eqx.filter(model, eqx.is_inexact_array)
    after = trained(tx, model if whole else before, jax.tree.map(jnp.sin, before))
    return before, eqx.filter(after, eqx.is_inexact_array)


def by_path(tree):
    return {path_name(path): x for path, x in jax.tree.leaves_with_path(tree)}


def as_in_a_dict(name, rules, before):
    """What the optimizer makes of the same parameters in a dict, labelled by a tree."""
    params = by_path(before)
    return trained(make(name, o.label_params(params, rules)), params, jax.tree.map(jnp.sin, params))


of_structure = slice_of("adafactor_big_vision", "hybrid", "mars", "soap", "sophia")


@of_structure
def test_flax_optimizer_trains_as_a_dict(name):
    before, after = train_flax(make(name, o.label_params(RULES)))
    expected = as_in_a_dict(name, RULES, before)
    for path, x in by_path(after).items():
        np.testing.assert_allclose(x, expected[path], rtol=1e-5, atol=1e-6, err_msg=path)


@of_structure
def test_equinox_modules_train_as_a_dict(name):
    """Filtered ones and whole ones, labelled by a tree and by a function; nobody calls the model."""
    before, after = train_equinox(make(name, o.label_params(RULES_EQUINOX)), whole=True)
    _, filtered = train_equinox(make(name, o.label_params(before, RULES_EQUINOX)), whole=False)
    expected = as_in_a_dict(name, RULES_EQUINOX, before)
    for path, x in by_path(after).items():
        np.testing.assert_allclose(x, expected[path], rtol=1e-5, atol=1e-6, err_msg=path)
        np.testing.assert_array_equal(x, by_path(filtered)[path])


@slice_of("adafactor", "adalayer", "adamw", "frozen", "hybrid", "lars", "mars", "muon", "novograd", "prodigy", "soap")
def test_every_optimizer_takes_the_trees_of_flax_and_equinox(name):
    """Traced alone: nothing is compiled."""
    before, after = jax.eval_shape(lambda: train_flax(make(name, o.label_params(RULES))))
    assert before == after
    of_tree = o.label_params(eqx.filter(EquinoxNet(), eqx.is_inexact_array), RULES_EQUINOX)
    for labels in (o.label_params(RULES_EQUINOX), of_tree):
        before, after = jax.eval_shape(lambda labels=labels: train_equinox(make(name, labels), whole=True))
        assert by_path(before) == by_path(after)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_inject_hyperparams(name):
    """Every constructor with its defaults; what is set in the state is in force."""
    params = {leaf: jnp.ones((2,) * len(label.axes)) for leaf, label in LABELS.items()}

    def step(rate):
        tx = optax.inject_hyperparams(getattr(o, name))(learning_rate=0.1, labels=LABELS)
        state = tx.init(params)
        state.hyperparams["learning_rate"] = rate
        return tx.update(params, state, params, **curvature(params))[0]

    if name in ("adafactor_big_vision", "lion", "mars"):
        once, twice = step(jnp.asarray(0.1)), step(jnp.asarray(0.2))
        for leaf in LABELS:
            assert np.abs(once[leaf]).max() > 0
            np.testing.assert_allclose(twice[leaf], 2 * np.asarray(once[leaf]), rtol=1e-6)
    else:
        assert jax.eval_shape(step, jnp.asarray(0.1)).keys() == params.keys()


def test_structure_is_not_injected():
    params, labels = {"w": jnp.ones((4, 4))}, o.label_params([("w", Label(("in", "out"), "mlp"))])
    tx = optax.inject_hyperparams(o.adafactor_big_vision)(learning_rate=0.1, min_dim_size_to_factor=4)
    with pytest.raises(o.InputError, match="min_dim_size_to_factor: must be an int, is an array; for optax"):
        tx.init(params)
    tx = optax.inject_hyperparams(o.soap, static_args=("labels", "interval"))(0.1, labels, interval=2)
    assert "interval" not in tx.init(params).hyperparams


OTHER_LABELS = {
    "conv": Label(("height", "width", "in", "out"), "mlp"),
    "conv_torch": Label(("out", "in", "height", "width"), "mlp"),
    "hidden": Label(("in", "out"), "mlp"),
    "bias": Label(("out",), "norm"),
    "classes": Label(("in", "out"), "head"),
}
OTHER_SIZES = {"conv": (3, 3, 2, 4), "conv_torch": (4, 2, 3, 3), "hidden": (4, 6), "bias": (6,), "classes": (6, 5)}
OTHER_PARAMS = random_tree({leaf: jax.ShapeDtypeStruct(OTHER_SIZES[leaf], jnp.float32) for leaf in OTHER_SIZES}, 0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_model_that_is_no_language_model(name):
    """Convolutions, hidden layers of several sizes, classes: every optimizer takes them."""
    shapes = jax.eval_shape(lambda p: trained(make(name, OTHER_LABELS, weight_decay=0.1), p, p), OTHER_PARAMS)
    assert {leaf: x.shape for leaf, x in shapes.items()} == OTHER_SIZES


def test_a_convolution_is_a_matrix():
    """Orthogonalised as [height width in, out]; where `out` comes first, as the transpose of that."""
    tx, plain = o.muon(1.0, OTHER_LABELS), o.muon(1.0, {"w": Label(("in", "out"), "mlp")})
    updates, _ = tx.update(OTHER_PARAMS, tx.init(OTHER_PARAMS), OTHER_PARAMS)
    for leaf, view in (("conv", lambda x: x.reshape(18, 4)), ("conv_torch", lambda x: x.reshape(4, 18).T)):
        matrix = {"w": view(OTHER_PARAMS[leaf])}
        expected, _ = plain.update(matrix, plain.init(matrix), matrix)
        np.testing.assert_allclose(view(updates[leaf]), expected["w"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("out_first", [False, True])
def test_muon_scales_by_the_output(out_first):
    """sqrt(max(1, outputs / inputs)), whichever comes first."""
    label = Label(("out", "in") if out_first else ("in", "out"), "mlp")
    for shape, factor in (((8, 2), 1.0), ((2, 8), 2.0)):
        params = {"w": jnp.eye(*shape).T if out_first else jnp.eye(*shape)}
        tx = o.muon(1.0, {"w": label})
        updates, _ = tx.update(params, tx.init(params), params)
        largest = np.linalg.svd(updates["w"], compute_uv=False)[0]
        square = o.muon(1.0, {"w": label})
        eye = {"w": jnp.eye(2)}
        unit, _ = square.update(eye, square.init(eye), eye)
        np.testing.assert_allclose(largest, factor * np.linalg.svd(unit["w"], compute_uv=False)[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("constructor", "shapes"),
    [
        (o.adalayer, {"conv": (1, 1, 1, 1), "conv_torch": (1, 1, 1, 1), "classes": (1, 1)}),
        (o.adalayer_star, {"conv": (1, 1, 1, 1), "conv_torch": (1, 1, 1, 1), "classes": (1, 5)}),
        (o.adam_mini, {"conv": (1, 1, 1, 4), "conv_torch": (4, 1, 1, 1), "classes": (1, 5)}),
    ],
    ids=["adalayer", "adalayer_star", "adam_mini"],
)
def test_blocks_of_other_axes(constructor, shapes):
    nu = optax.tree.get(constructor(1e-3, OTHER_LABELS).init(OTHER_PARAMS), "nu")
    assert {leaf: nu[leaf].shape for leaf in shapes} == shapes


def test_adafactor_factors_a_convolution():
    state = o.adafactor(1e-3, OTHER_LABELS).init(OTHER_PARAMS)
    assert optax.tree.get(state, "row")["conv"].shape == (18, 1)
    assert optax.tree.get(state, "column")["conv"].shape == (1, 4)


PARAMS = random_tree(
    {leaf: jax.ShapeDtypeStruct((4,) * len(label.axes), jnp.float32) for leaf, label in LABELS.items()}, 0
)
GRADS = jax.tree.map(jnp.cos, PARAMS)
MASKS = [{leaf: leaf == "mlp" for leaf in LABELS}, lambda params: {leaf: leaf == "mlp" for leaf in params}]
INSIDE = {"hybrid": "adaptive", "muon": "rest"}
WITHOUT_LABELS = ("adamw", "lamb", "lars", "novograd", "prodigy")


@slice_of("adamw", "almvr", "hybrid", "lars", "mars", "prodigy")
def test_a_mask_decays_as_roles_do(name):
    """A tree or a function; in a config inside too; and of optimizers that need no labels without any."""

    def after(labels, mask=None, **roles):
        inside = {INSIDE[name]: o.LionConfig(weight_decay=0.5, **roles)} if name in INSIDE else {}
        tx = make(name, labels, weight_decay=0.5, learning_rate=0.1, mask=mask, **roles, **inside)
        return trained(tx, PARAMS, GRADS)

    expected, all_decay = after(LABELS, decay_roles=("mlp",)), after(LABELS, decay_roles=o.ROLES)
    for mask in MASKS:
        for labels in (LABELS, None) if name in WITHOUT_LABELS else (LABELS,):
            jax.tree.map(np.testing.assert_array_equal, after(labels, mask), expected)
    assert not np.allclose(expected["head"], all_decay["head"], rtol=1e-6)


def test_a_mask_may_be_a_prefix_and_must_fit():
    params = {"a": {"x": jnp.ones(2), "y": jnp.ones(2)}, "b": jnp.ones(2)}
    tx = o.adamw(1.0, mask={"a": True, "b": False}, weight_decay=0.5)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["a"]["y"], -0.5)
    np.testing.assert_allclose(updates["b"], 0.0)
    with pytest.raises(o.InputError, match="mask: must have the parameters' structure, or be a prefix of it"):
        o.adamw(1.0, mask={"a": True}).init(params)
    with pytest.raises(o.InputError, match="mask: must be a tree of bools, has float"):
        o.adamw(1.0, mask={"a": 1.0, "b": True}).init(params)


def test_a_label_may_say_that_its_parameter_does_not_decay():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    labels = {"kernel": Label(("in", "out"), "mlp"), "bias": Label(("out",), "mlp", decays=False)}
    tx = o.adamw(1.0, labels, weight_decay=0.5)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.5)
    np.testing.assert_allclose(updates["bias"], 0.0)


def test_a_label_is_heard_by_functions_of_optax():
    params, grads = {"a": jnp.ones(2), "b": jnp.ones(2)}, {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    labels = {"a": Label(("out",), "mlp", decays=False), "b": Label(("out",), "mlp")}
    tx = o.FromOptax("optax:adamw", {"learning_rate": 1.0, "weight_decay": 0.5}).make(1.0, labels)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose([updates["a"], updates["b"]], [[0.0, 0.0], [-0.5, -0.5]])
    with pytest.raises(
        o.InputError, match=r"labels: some say whether their parameter decays, and .*without_mask takes no mask"
    ):
        o.FromOptax(without_mask, {"learning_rate": 1.0, "weight_decay": 0.5}).make(1.0, labels)


def without_mask(learning_rate, weight_decay=0.0):
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate))


def test_momenta_of_a_dtype():
    for dtype in ("bfloat16", jnp.bfloat16, jnp.dtype("bfloat16")):
        assert optax.tree.get(o.adamw(mu_dtype=dtype).init({"w": jnp.ones(2)}), "mu")["w"].dtype == jnp.bfloat16
    with pytest.raises(o.InputError, match="mu_dtype='float16': must be 'bfloat16' or None"):
        o.adamw(mu_dtype=jnp.float16)


def test_python_floats_are_parameters():
    """A function and an integer beside them stay as they are."""
    params, tx = {"a": 1.0, "n": 3, "f": jnp.tanh}, o.sgdw(0.5)
    state = tx.init(params)
    updates, state = tx.update({"a": 2.0, "n": None, "f": None}, state, params)
    assert updates == {"a": -1.0, "n": None, "f": None}
    assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(tx.init({"a": 1.0})))


def test_labels_of_another_type_are_refused_at_init():
    params = nnx.as_pure(nnx.state(FlaxNet(nnx.Rngs(0)), nnx.Param))
    labels = o.label_params(nnx.to_pure_dict(params), RULES)
    with pytest.raises(o.InputError, match="a State of the parameters is a dict in labels: make them from the same t"):
        o.adalayer(1e-3, labels).init(params)
    with pytest.raises(o.InputError, match="a State of the parameters is a dict in labels: make them from the same t"):
        nnx.Optimizer(FlaxNet(nnx.Rngs(0)), o.adalayer(1e-3, labels), wrt=nnx.Param)
    with pytest.raises(o.InputError, match="a list of the parameters is a tuple in labels"):
        o.adalayer(1e-3, (Label(("embed",), "norm"),)).init([jnp.ones(2)])


MLP = {"mlp": jnp.ones((2, 2))}


@pytest.mark.parametrize(
    ("make_state", "message"),
    [
        (lambda: o.adalayer(1e-3, o.label_params(RULES)).init(MLP), "parameter mlp: no rule matches it"),
        (lambda: o.adalayer(1e-3, lambda params: "mlp").init(MLP), "labels: must be a tree of Labels, has str"),
        (lambda: o.adamw(o.label_params(RULES)).init(MLP), "given a count in place of parameters; labels come second"),
        (
            lambda: o.adamw(lambda params: {"w": 1}).init(MLP),
            "learning_rate: its schedule must give a scalar, gives dict",
        ),
        (lambda: o.label_params(MLP), r"rules must be a list of \(regular expression, Label\) pairs"),
        (lambda: o.muon(labels=LABELS, rest=optax.adamw(1e-3)), r"MuonConfig.rest: must be a config, AdamWConfig\("),
        (lambda: o.hybrid(labels=LABELS, adaptive=optax.lion(1e-3)), r"HybridConfig.adaptive: must be a config, AdamW"),
    ],
    ids=["no rule", "no label", "labels first", "function first", "no rules", "rest", "adaptive"],
)
def test_what_is_refused(make_state, message):
    with pytest.raises(o.InputError, match=message):
        make_state()


def test_a_function_of_labels_inside_masked():
    """Rules see the parameters that another transform has too: layers are counted in the whole model."""
    labels = o.label_params([(r"(?P<layer>\d)", LABELS["norm"])])
    params, mask = {str(layer): jnp.ones(2) for layer in range(3)}, {"0": False, "1": True, "2": False}
    tx = optax.masked(o.layer_adaptive_adamw(0.1, labels, weight_decay=0.0), mask)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["1"], -0.11, rtol=1e-5)
    np.testing.assert_array_equal(updates["0"], 1.0)
