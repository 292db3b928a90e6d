"""What a parameter says of itself: its logical axes and its role.

The model attaches a `Label` to every parameter where it is made; sharding, optimizer blocks, weight-decay masks and
telemetry read it. It is a module of its own so that they share one vocabulary without importing each other.
"""

import dataclasses
import difflib
import re

from jaxopt_lm.errors import InputError

AXES = ("layers", "vocab", "length", "embed", "heads", "kv_heads", "head_dim", "value_dim", "mlp", "out")
ROLES = ("embedding", "attention", "mlp", "norm", "head")


@dataclasses.dataclass(frozen=True)
class Label:
    """The declaration of one parameter. A leaf, not a pytree: a tree of labels has the structure of the parameters.

    Names of axes that mean something, to optimizers or on meshes, are `AXES`; any other name, `kernel_height` say, is
    an ordinary axis. Optimizers read of them:

    - `layers` stays apart everywhere: each stacked layer is updated as if it were a parameter of its own;
    - `heads, kv_heads, head_dim, value_dim` side by side are one side of a matrix;
    - muon, soap, adafactor and mars see a parameter of more than two axes as a matrix of all axes but the last, and the
      last: a convolution's [height, width, in, out] is [height width in, out]. `out` names an output axis that may come
      first instead, as in PyTorch and equinox: [out, in, height, width] is [out, in height width];
    - adam_mini keeps the output axis apart, adalayer_star `vocab` or `out` of the head: tokens, or classes;
    - blocks of adalayer and the rest span every other axis; on meshes an axis without a rule is whole everywhere.

    Attributes:
      axes: the name of each dimension. `head_dim` is the axis that queries and keys share, `value_dim` that of values.
      role: one of `ROLES`. Of a model that is no language model: `mlp` for what has weights, `norm` for scales, `head`
        for the last layer.
      layer: index of the layer from 0 where layers are not stacked; None outside the layers.
      decays: whether weight decay applies; None: by the role.
    """

    axes: tuple[str, ...]
    role: str
    layer: int | None = None
    decays: bool | None = None

    def __post_init__(self):
        if self.role not in ROLES:
            raise InputError(f"{self}: the role is one of {', '.join(ROLES)}")
        for axis in self.axes:
            _check_axis(axis)
        if "layers" in self.axes[1:] or ("layers" in self.axes and self.layer is not None):
            raise InputError(f"{self}: layers is the first axis, and layer= is for layers that are not stacked")
        if "out" in self.axes[1:-1] and self.axes[:2] != ("layers", "out"):
            raise InputError(f"{self}: out is the first axis of a layer's parameter or its last")


def _check_axis(axis: str) -> None:
    """Refuses what is no name, or a known one misspelt; a suffix, `embed_2`, makes a name of its own."""
    if axis in AXES:
        return
    if not (isinstance(axis, str) and axis.isidentifier()):
        raise InputError(f"axis {axis!r}: must be a name; those that mean something are {', '.join(AXES)}")
    stem = re.sub(r"[_\d].*", "", axis)
    near = [] if stem in AXES else difflib.get_close_matches(stem, AXES, 1, 0.8)
    if near:
        raise InputError(f"axis {axis}: write {near[0]} if that is meant, or choose a name that is less like it")
