"""The optimizers of arXiv 2407.07972 by the names of their arms.

b1 is .9, but .98 for SGD on its own; b2 is .95, eps 1e-15, weight decay 0. The SGD part of a hybrid is a bias-corrected
average of gradients.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from jaxopt_lm.optimizers import (
    AdafactorConfig,
    AdalayerConfig,
    AdalayerStarConfig,
    AdamWConfig,
    FrozenConfig,
    HybridConfig,
    LionConfig,
    OptimizerConfig,
    SgdwConfig,
    SignumConfig,
    SophiaConfig,
)
from jaxopt_lm.papers.scales import grid

MATRICES = ("embedding", "attention", "mlp")


class Known(NamedTuple):
    """What is fixed where it is not swept.

    Attributes:
      best: the best rate of the 150m model by optimizer, as far as it is known beforehand; "hybrid" is that of SGD in
        hybrids.
      calibration_steps: of frozen optimizers.
    """

    best: dict[str, float]
    calibration_steps: int

    def lower(self, name: str) -> float:
        """The rate of the grid below the best."""
        return grid(self.best[name] / 10**0.5)[0]


class Kind(NamedTuple):
    """An optimizer.

    Attributes:
      make: its config.
      grid: which rates it is swept over: those of `adam`, `sign`, `sgd` or `hybrid`.
    """

    make: Callable[[Known], OptimizerConfig]
    grid: str


def _star(known: Known) -> AdalayerStarConfig:
    return AdalayerStarConfig(learning_rate=known.best["adalayer_star"])


def _hybrid(adaptive: Callable[[Known], OptimizerConfig], *roles: str, untrained: tuple[str, ...] = ()) -> Kind:
    def make(known: Known) -> OptimizerConfig:
        return HybridConfig(
            learning_rate=known.best["hybrid"],
            adaptive=adaptive(known),
            adaptive_roles=roles,
            untrained_roles=untrained,
        )

    return Kind(make, "hybrid")


def _frozen(*live: str, untrained: tuple[str, ...] = ()) -> Kind:
    def make(known: Known) -> OptimizerConfig:
        return FrozenConfig(
            learning_rate=known.best["adalayer_star"],
            calibration_steps=known.calibration_steps,
            live_roles=live,
            untrained_roles=untrained,
        )

    return Kind(make, "adam")


def _norms_untrained(known: Known) -> OptimizerConfig:
    """No parameter is left for SGD: it is `adaptive.learning_rate` that is swept."""
    star = _star(known)
    roles = (*MATRICES, "head")
    return HybridConfig(
        learning_rate=star.learning_rate, adaptive=star, adaptive_roles=roles, untrained_roles=("norm",)
    )


def _adafactor(known: Known) -> OptimizerConfig:
    return AdafactorConfig(learning_rate=known.best["adafactor"])


OPTIMIZERS = {
    "adamw": Kind(lambda known: AdamWConfig(learning_rate=known.best["adamw"]), "adam"),
    "adafactor": Kind(_adafactor, "adam"),
    "lion": Kind(lambda known: LionConfig(learning_rate=known.best["lion"]), "sign"),
    "signum": Kind(lambda known: SignumConfig(learning_rate=known.best["signum"]), "sign"),
    "sgdw": Kind(lambda known: SgdwConfig(learning_rate=known.best["sgdw"], momentum=0.98), "sgd"),
    "adalayer": Kind(lambda known: AdalayerConfig(learning_rate=known.best["adalayer_star"]), "adam"),
    "adalayer_star": Kind(_star, "adam"),
    "adalayer_star, first layer": Kind(lambda known: dataclasses.replace(_star(known), first_layer=True), "adam"),
    "adalayer_star, norms untrained": Kind(_norms_untrained, "adam"),
    "head adaptive": _hybrid(_star, "head"),
    "head and norms adaptive": _hybrid(_star, "norm", "head"),
    "matrices adaptive": _hybrid(
        lambda known: AdalayerStarConfig(learning_rate=known.lower("adalayer_star")), *MATRICES
    ),
    "head adaptive, norms untrained": _hybrid(_star, "head", untrained=("norm",)),
    "head and norms adafactor": _hybrid(_adafactor, "norm", "head"),
    "head and norms adafactor, lower": _hybrid(
        lambda known: AdafactorConfig(learning_rate=known.lower("adafactor")), "norm", "head"
    ),
    "frozen": _frozen(),
    "frozen but head": _frozen("head"),
    "frozen but norms": _frozen("norm"),
    "frozen but head and norms": _frozen("norm", "head"),
    "frozen but head, norms untrained": _frozen("head", untrained=("norm",)),
    "sophia": Kind(lambda known: SophiaConfig(learning_rate=known.best["signum"], b1=0.9, b2=0.95), "sign"),
    "sophia, Liu et al.": Kind(
        lambda known: SophiaConfig(learning_rate=known.best["signum"], weight_decay=0.2), "sign"
    ),
}
"""By name. Liu et al.'s weight decay is our reading of their GPT-2 runs."""
