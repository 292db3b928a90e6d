"""Muon: orthogonalised momentum for the matrices of attention and MLPs, another optimizer for the rest."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import ArrayLike

from jaxopt_lm.labels import Label
from jaxopt_lm.optimizers.adamw import AdamWConfig
from jaxopt_lm.optimizers.config import OptimizerConfig, check, check_config, check_decays, check_eps, held, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import as_matrix, is_matrix, matrix_axes, output_axes, partition, require_labels
from jaxopt_lm.optimizers.trees import bias_correction, ema, map_params, next_count

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
        check_config(self, "rest")

    def direction(self, labels: Any) -> optax.GradientTransformation:
        def dimensions(updates):
            return map_params(lambda _, label: optax.contrib.MuonDimensionNumbers(*matrix_axes(label)), updates, labels)

        # Of decay 0 it orthogonalises what it is given, here momentum whose decay keeps its digits.
        newton_schulz = optax.contrib.scale_by_muon(
            beta=0.0, eps=self.eps, ns_steps=self.num_iterations, nesterov=False, weight_dimension_numbers=dimensions
        )

        def update(updates, state, params=None):
            mu = map_params(lambda g, m: ema(m, g, self.b1), updates, state.mu)
            ahead = map_params(lambda g, m: self._ahead(g, m, next_count(state.count)), updates, mu)
            directions, _ = newton_schulz.update(ahead, state, params)
            return directions, optax.contrib.MuonState(next_count(state.count), mu, state.ns_coeffs)

        return optax.chain(
            optax.GradientTransformation(newton_schulz.init, update),
            optax.stateless(lambda updates, _: map_params(self._by_shape, updates, labels)),
        )

    def _ahead(self, g, m, count):
        """The momentum, bias-corrected, for Nesterov one step ahead."""
        if not self.nesterov:
            return m / bias_correction(self.b1, count, m.dtype)
        g, m = g / bias_correction(self.b1, count, g.dtype), m / bias_correction(self.b1, count + 1, m.dtype)
        return ema(m, g, self.b1)

    def _by_shape(self, u, label):
        columns = math.prod(u.shape[axis] for axis in output_axes(label))
        rows = math.prod(as_matrix(u, label).shape[-2:]) // max(columns, 1)
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


def muon(
    learning_rate: Number = MuonConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = MuonConfig.b1,
    nesterov: bool = MuonConfig.nesterov,
    num_iterations: int | None = None,
    eps: Number = MuonConfig.eps,
    consistent_rms: Number | None = MuonConfig.consistent_rms,
    rest: OptimizerConfig = MuonConfig.rest,
    weight_decay: Number = MuonConfig.weight_decay,
    decay_roles: Sequence[str] = MuonConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = MuonConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Muon: orthogonalised momentum for the matrices of attention and MLPs, another optimizer for the rest.

        m <- b1 m + (1 - b1) g; m' its look-ahead where nesterov, bias-corrected
        u = NewtonSchulz(m' / (|m'| + eps)) sqrt(max(1, columns / rows))
        p <- p (1 - lr wd) - lr u

    Unlike `optax.contrib.muon`, which guesses from ndim, axes and roles say what is a matrix; layers stay apart.

    Args:
      learning_rate: the peak rate of matrices, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of the mean of gradients.
      nesterov: look ahead by one step of momentum.
      num_iterations: Newton-Schulz iterations; None: 5.
      eps: added to the norm by which the momentum is divided first.
      consistent_rms: scale u to this root mean square, sqrt(max(rows, columns)) times it; None: sqrt(max(1,
        columns / rows)).
      rest: the optimizer of every other parameter, with its own peak learning rate and decay.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles of matrices that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import AdamWConfig, Label, muon
      >>> labels = {"up": Label(("embed", "mlp"), "mlp"), "scale": Label(("embed",), "norm")}
      >>> params = {"up": jnp.eye(2), "scale": jnp.ones(2)}
      >>> tx = muon(0.02, labels, rest=AdamWConfig(learning_rate=3e-3))
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["scale"]]
      [-0.003, -0.003]

    Reference: Jordan 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv 2502.16982.
    """
    return construct(MuonConfig, **locals())
