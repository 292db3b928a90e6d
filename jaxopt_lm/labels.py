"""What a parameter says of itself: its logical axes and its role.

The model attaches a `Label` to every parameter where it is made; sharding, optimizer blocks, weight-decay masks and
telemetry read it. It lies below all rooms so that they share one vocabulary without knowing each other.
"""

import dataclasses

AXES = ("layers", "vocab", "embed", "heads", "kv_heads", "head_dim", "mlp")
ROLES = ("embedding", "attention", "mlp", "norm", "head")


@dataclasses.dataclass(frozen=True)
class Label:
    """The declaration of one parameter. A leaf, not a pytree: a tree of labels has the structure of the parameters.

    Attributes:
      axes: the logical name of each dimension, one of `AXES`; `layers` leads where layers are stacked.
      role: one of `ROLES`.
    """

    axes: tuple[str, ...]
    role: str

    def __post_init__(self):
        if self.role not in ROLES or not set(self.axes) <= set(AXES):
            raise ValueError(f"{self}: axes are of {AXES}, the role is one of {ROLES}")
