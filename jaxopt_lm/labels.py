"""What a parameter says of itself: its logical axes and its role.

The model attaches a `Label` to every parameter where it is made; sharding, optimizer blocks, weight-decay masks and
telemetry read it. It lies below all rooms so that they share one vocabulary without knowing each other.
"""

import dataclasses

from jaxopt_lm.errors import InputError

AXES = ("layers", "vocab", "length", "embed", "heads", "kv_heads", "head_dim", "value_dim", "mlp")
ROLES = ("embedding", "attention", "mlp", "norm", "head")


@dataclasses.dataclass(frozen=True)
class Label:
    """The declaration of one parameter. A leaf, not a pytree: a tree of labels has the structure of the parameters.

    Attributes:
      axes: the logical name of each dimension, one of `AXES`; `layers` leads where layers are stacked. `head_dim` is
        the
        axis that queries and keys share, `value_dim` that of values.
      role: one of `ROLES`.
      layer: index of the layer from 0 where layers are not stacked; None outside the layers.
    """

    axes: tuple[str, ...]
    role: str
    layer: int | None = None

    def __post_init__(self):
        if self.role not in ROLES or not set(self.axes) <= set(AXES):
            raise InputError(f"{self}: axes are of {', '.join(AXES)}; the role is one of {', '.join(ROLES)}")
        if "layers" in self.axes[1:] or ("layers" in self.axes and self.layer is not None):
            raise InputError(f"{self}: layers is the first axis, and layer= is for layers that are not stacked")
