"""What a search of learning rates ends with: read by verdicts, claims and figures."""

from typing import NamedTuple

TUNING_SEED = 0
"""On which rates are chosen. Seeds above it are fresh: they choose nothing, and verdicts are of them alone."""


class Choice(NamedTuple):
    """What was chosen for an arm in a setting.

    Attributes:
      setting: its name.
      arm: its name.
      learning_rate: the best on the tuning seed.
      changed: other numbers that are not the arm's own, as in the table: `weight_decay=0.1,b2=0.99`.
      loss: on the tuning seed, nats per token.
      inside: whether there is a finished run on both sides of the best rate; otherwise its loss is a bound.
      trials: runs of the tuning seed that were paid for, diverged ones too.
      neighbours: the rates beside it, trained on fresh seeds too.
    """

    setting: str
    arm: str
    learning_rate: float
    changed: str
    loss: float
    inside: bool
    trials: int
    neighbours: tuple[float, ...]
