"""MARS: AdamW on variance-reduced gradients."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxopt_lm.labels import ROLES, Label
from jaxopt_lm.optimizers.adamw import AdamWConfig
from jaxopt_lm.optimizers.block_adam import scale_by_block_adam
from jaxopt_lm.optimizers.config import AdamConfig, OptimizerConfig, check, check_decays, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct
from jaxopt_lm.optimizers.groups import is_matrix, partition, per_layer, require_labels
from jaxopt_lm.optimizers.trees import map_params, one_minus, widen


class ReduceVarianceState(NamedTuple):
    """State of `reduce_variance`.

    Attributes:
      previous: the last gradient.
    """

    previous: optax.Updates


def reduce_variance(b1: ArrayLike, gamma: ArrayLike) -> optax.GradientTransformation:
    """c = g + gamma b1 / (1 - b1) (g - g_prev), divided by max(1, |c|), the norm over the parameter; g_0 = 0.

    Reference: Yuan et al. 2024, arXiv 2411.10438, MARS-AdamW, approximate form.
    """

    def init(params):
        return ReduceVarianceState(optax.tree.zeros_like(widen(params)))

    def update(updates, state, params=None):
        del params
        updates = widen(updates)

        def corrected(g, previous):
            b, strength = (jnp.asarray(x).astype(g.dtype) for x in (b1, gamma))
            c = g + strength * b / one_minus(b1, g.dtype) * (g - previous)
            return c / jnp.maximum(jnp.linalg.norm(c), 1.0)

        return map_params(corrected, updates, state.previous), ReduceVarianceState(updates)

    return optax.GradientTransformation(init, update)


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class MarsConfig(AdamConfig):
    """MARS-AdamW on matrices of every role, Adam on vectors.

    Formula: c = g + gamma b1 / (1 - b1) (g - g_prev), c <- c / max(1, |c|); m, v averages of c, c^2; u as adamw
    Eps: added to the root
    Bias correction: m and v
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1
    State: 12 bytes a parameter of a matrix, 8 of a vector
    Differs: optax has none; the norm is over each layer's parameter; g_prev is of the last batch, the approximate form
    Paper: Yuan et al. 2024, arXiv 2411.10438; github AGI-Arena/MARS
    """

    learning_rate: float = 3e-3
    b1: float = 0.95
    b2: float = 0.99
    eps: float = 1e-8
    gamma: float = 0.025
    """Strength of variance reduction."""
    vector_b1: float = 0.9
    """b1 of vectors."""
    vector_b2: float = 0.95
    """b2 of vectors."""

    def __post_init__(self):
        super().__post_init__()
        check(self, "gamma", 0)
        check_decays(self, "vector_b1", "vector_b2")

    def direction(self, labels: Any) -> optax.GradientTransformation:
        adam = scale_by_block_adam(self.b1, self.b2, self.eps)
        return per_layer(optax.chain(reduce_variance(self.b1, self.gamma), adam), labels)

    def make(self, multiplier: ArrayLike, labels: Any) -> optax.GradientTransformationExtraArgs:
        require_labels(labels, "matrices are chosen")
        parts = {"matrix": super().make(multiplier, labels), "vector": self._of_vectors().make(multiplier, labels)}
        return partition(parts, lambda label: "matrix" if is_matrix(label, ROLES) else "vector", labels)

    def part(self, label: Label) -> OptimizerConfig | None:
        return self if is_matrix(label, ROLES) else self._of_vectors()

    def _of_vectors(self):
        common = {name: getattr(self, name) for name in ("weight_decay", "decay_roles", "mu_dtype", "eps")}
        return AdamWConfig(learning_rate=self.learning_rate, b1=self.vector_b1, b2=self.vector_b2, **common)


def mars(
    learning_rate: Number = MarsConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = MarsConfig.b1,
    b2: Number = MarsConfig.b2,
    eps: Number = MarsConfig.eps,
    gamma: Number = MarsConfig.gamma,
    vector_b1: Number = MarsConfig.vector_b1,
    vector_b2: Number = MarsConfig.vector_b2,
    weight_decay: Number = MarsConfig.weight_decay,
    decay_roles: Sequence[str] = MarsConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = MarsConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """MARS: AdamW on variance-reduced gradients of matrices, Adam's numbers of its own on vectors.

        c = g + gamma b1 / (1 - b1) (g - g_prev), divided by max(1, |c|)
        m <- b1 m + (1 - b1) c
        v <- b2 v + (1 - b2) c^2
        p <- p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squared gradients.
      eps: added to the root; positive.
      gamma: strength of variance reduction.
      vector_b1: b1 of vectors.
      vector_b2: b2 of vectors.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import Label, mars
      >>> labels = {"up": Label(("embed", "mlp"), "mlp"), "scale": Label(("embed",), "norm")}
      >>> params = {"up": jnp.ones((2, 3)), "scale": jnp.ones(2)}
      >>> tx = mars(3e-3, labels)
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["scale"]]
      [-0.003, -0.003]

    Reference: Yuan et al. 2024, arXiv 2411.10438; github AGI-Arena/MARS.
    """
    return construct(MarsConfig, **locals())
