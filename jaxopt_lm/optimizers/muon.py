"""Muon: orthogonalised momentum for the matrices of attention and MLPs, another optimizer for the rest."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import ArrayLike

from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.adamw import AdamWConfig
from jaxopt_lm.optimizers.config import OptimizerConfig, check, check_decays, check_eps, constructor, held, traceable
from jaxopt_lm.optimizers.groups import as_matrix, is_matrix, matrix_axes, partition, require_labels
from jaxopt_lm.optimizers.trees import map_params

MATRIX_ROLES = ("attention", "mlp")


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon.

    Formula: m <- b m + (1 - b) g, Nesterov's look-ahead m'; u = sqrt(max(1, columns/rows)) NewtonSchulz(m' / |m'|), 5
      steps
    Eps: added to |m'|
    Bias correction: m
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b; u does not depend on its scale
    State: 4 bytes a parameter of a matrix in attention and MLPs, 8 elsewhere
    Differs: `optax.contrib.muon` guesses matrices from ndim; here axes and roles say which they are, layers apart
    Paper: Jordan 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv 2502.16982
    """

    learning_rate: float = 0.02
    b1: float = 0.95
    """Decay of the mean of gradients."""
    nesterov: bool = True
    """Look ahead by one step of momentum."""
    num_iterations: int = 5
    """Newton-Schulz iterations."""
    eps: float = 1e-8
    """Added to the norm by which the momentum is divided first."""
    consistent_rms: float | None = None
    """Scale u to this root mean square, sqrt(max(rows, columns)) times it; None: sqrt(max(1, columns / rows))."""
    rest: OptimizerConfig = AdamWConfig()
    """The optimizer of every other parameter, with its own peak learning rate and decay."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b1")
        check_eps(self)
        check(self, "num_iterations", 1)
        check(self, "consistent_rms", 0, open_low=True)

    def direction(self, labels: Any) -> optax.GradientTransformation:
        def dimensions(updates):
            return map_params(lambda _, label: optax.contrib.MuonDimensionNumbers(*matrix_axes(label)), updates, labels)

        return optax.chain(
            optax.contrib.scale_by_muon(
                beta=self.b1,
                eps=self.eps,
                ns_steps=self.num_iterations,
                nesterov=self.nesterov,
                weight_dimension_numbers=dimensions,
            ),
            optax.stateless(lambda updates, _: map_params(self._by_shape, updates, labels)),
        )

    def _by_shape(self, u, label):
        rows, columns = as_matrix(u, label).shape[-2:]
        if self.consistent_rms is None:
            return u * max(1.0, columns / max(rows, 1)) ** 0.5
        return u * (jnp.asarray(self.consistent_rms).astype(u.dtype) * max(rows, columns) ** 0.5)

    def make(self, multiplier: ArrayLike, labels: Any) -> optax.GradientTransformationExtraArgs:
        require_labels(labels, "matrices are chosen")
        of_matrices = super().make

        def at(multiplier):
            parts = {"matrix": of_matrices(multiplier, labels), "rest": self.rest.make(multiplier, labels)}
            return partition(parts, lambda label: "matrix" if is_matrix(label, MATRIX_ROLES) else "rest", labels)

        return held(self.calibration_steps, at, multiplier)

    def moments(self) -> dict[str, Any]:
        return {"b1": self.b1}

    def part(self, label: Label) -> OptimizerConfig | None:
        return self if is_matrix(label, MATRIX_ROLES) else self.rest.part(label)


muon = constructor(MuonConfig)
