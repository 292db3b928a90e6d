"""The table of rules, and the axes of any optimizer's state, found by asking."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers import adafactor, adalayer_star, adam_mini, lion, soap
from jaxopt_lm.training.sharding import RULES, logical_axes, spec

LABELS = {
    "embed": Label(("vocab", "embed"), "embedding"),
    "layers": {
        "query": Label(("layers", "embed", "heads", "head_dim"), "attention"),
        "up": Label(("layers", "embed", "mlp"), "mlp"),
        "norm": Label(("layers", "embed"), "norm"),
    },
    "head": Label(("embed", "vocab"), "head"),
}
DIVIDED = jax.tree.map(lambda label: tuple(axis if axis in RULES else None for axis in label.axes), LABELS)
SIZES = {"vocab": 8, "embed": 8, "layers": 8, "heads": 8, "head_dim": 8, "mlp": 8}  # a size says nothing
SHAPES = jax.tree.map(
    lambda label: jax.ShapeDtypeStruct(tuple(SIZES[axis] for axis in label.axes), jnp.float32), LABELS
)


def axes_of(tx: optax.GradientTransformation):
    """The optimizer's state with axes in place of arrays."""
    return logical_axes(tx.init, SHAPES, LABELS)


def is_axes(node) -> bool:
    return type(node) is tuple and all(axis is None or isinstance(axis, str) for axis in node)


def by_path(tree) -> dict:
    leaves = jax.tree.leaves_with_path(tree, is_leaf=is_axes)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


def test_moments_and_accumulated_gradients_have_the_axes_of_parameters():
    tx = optax.MultiSteps(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)), 2)
    state = axes_of(tx.gradient_transformation())
    assert state.acc_grads == DIVIDED
    assert optax.tree.get(state, "mu") == optax.tree.get(state, "nu") == DIVIDED
    assert state.mini_step == optax.tree.get(state, "count") == ()


def test_axes_that_blocks_span_have_none():
    nu = optax.tree.get(axes_of(adalayer_star(labels=LABELS)), "nu")
    assert nu["head"] == (None, "vocab")
    assert nu["embed"] == (None, None)
    assert nu["layers"]["up"] == (None, None, None)  # layers are divided nowhere
    nu = optax.tree.get(axes_of(adam_mini(labels=LABELS)), "nu")
    assert nu["embed"] == ("vocab", None)
    assert nu["layers"]["query"] == (None, None, "heads", None)
    assert nu["layers"]["up"] == (None, None, "mlp")


def test_factors_have_those_of_their_rows_and_columns():
    state = axes_of(adafactor(labels=LABELS))
    row, column = optax.tree.get(state, "row"), optax.tree.get(state, "column")
    assert (row["head"], column["head"]) == (("embed", None), (None, "vocab"))
    assert (row["layers"]["up"], column["layers"]["up"]) == ((None, "embed", None), (None, None, "mlp"))
    assert column["layers"]["norm"] == (None,)  # empty


def test_a_square_of_one_axis_has_it_twice_and_is_divided_once():
    state = by_path(axes_of(soap(labels=LABELS)))
    (left,) = (axes for path, axes in state.items() if path.endswith("up/left"))
    assert left == (None, "embed", "embed")
    assert spec(left) == PartitionSpec(None, "fsdp", None)


def test_masked_parameters_have_none():
    groups = jax.tree.map(lambda label: "a" if label.role == "mlp" else "b", LABELS)
    state = axes_of(optax.partition({"a": lion(labels=LABELS), "b": optax.sgd(0.1, 0.9)}, groups))
    momenta = {path: axes for path, axes in by_path(state).items() if axes}
    expected = by_path(DIVIDED)
    assert {path.rpartition("mu/")[2]: x for path, x in momenta.items() if "/a/" in path} == {
        "layers/up": expected.pop("layers/up")
    }
    assert {path.rpartition("trace/")[2]: x for path, x in momenta.items() if "/b/" in path} == expected


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (("batch", "length", "embed"), (("data", "fsdp"), None, None)),  # fsdp is taken
        (("batch", "length", "vocab"), (("data", "fsdp"), None, "tensor")),
        (("embed", "heads", "head_dim"), ("fsdp", "tensor", None)),
        (("heads", "value_dim", "embed"), ("tensor", None, "fsdp")),
        (("height", "width", "in", "out"), (None, None, None, None)),  # names of a user's own: whole everywhere
        ((), ()),
    ],
)
def test_the_rules(axes, expected):
    assert spec(axes) == PartitionSpec(*expected)


def test_a_gathered_weight_is_whole_over_fsdp_alone():
    assert spec(("embed", "mlp"), leave_out="fsdp") == PartitionSpec(None, "tensor")
