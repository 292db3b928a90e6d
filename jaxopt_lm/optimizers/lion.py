"""Lion, and Signum, which is Lion with both decays equal."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import optax

from jaxopt_lm.optimizers.config import OptimizerConfig, check_decays, traceable
from jaxopt_lm.optimizers.construct import Labels, Mask, MuDtype, Number, construct


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class LionConfig(OptimizerConfig):
    """Lion.

    Formula: u = sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g
    Eps: none
    Bias correction: none
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b2
    State: 4 bytes a parameter
    Differs: `optax.lion`
    Paper: Chen et al. 2023, arXiv 2302.06675
    """

    learning_rate: float = 3.16e-4
    b1: float = 0.9
    """Weight of the momentum in the direction."""
    b2: float = 0.95
    """Decay of the momentum."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b1", "b2")

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return optax.scale_by_lion(self.b1, self.b2)


def lion(
    learning_rate: Number = LionConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = LionConfig.b1,
    b2: Number = LionConfig.b2,
    weight_decay: Number = LionConfig.weight_decay,
    decay_roles: Sequence[str] = LionConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = LionConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Lion: the sign of an interpolation of gradient and momentum.

        p <- p (1 - lr wd) - lr sign(b1 m + (1 - b1) g)
        m <- b2 m + (1 - b2) g

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: weight of the momentum in the direction.
      b2: decay of the momentum.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import lion
      >>> params = {"w": jnp.ones(2)}
      >>> tx = lion(1e-2, b1=0.9)
      >>> updates, state = tx.update({"w": jnp.array([3.0, -0.5])}, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.01, 0.01]

    Reference: Chen et al. 2023, arXiv 2302.06675.
    """
    return construct(LionConfig, **locals())


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SignumConfig(OptimizerConfig):
    """Signum: Lion with b1 = b2.

    Formula: m <- b1 m + (1 - b1) g; u = sign(m)
    Eps: none
    Bias correction: none, a sign needs none
    Decay: p <- p (1 - lr * weight_decay) - lr * u
    Dampening: m is an average, weight 1 - b1
    State: 4 bytes a parameter
    Differs: `optax.lion` with b1 = b2; the paper's m is a sum, which has the same sign
    Paper: Bernstein et al. 2018, arXiv 1802.04434, as in arXiv 2407.07972
    """

    learning_rate: float = 3.16e-4
    b1: float = 0.9
    """Decay of the momentum."""

    def __post_init__(self):
        super().__post_init__()
        check_decays(self, "b1")

    def direction(self, labels: Any) -> optax.GradientTransformation:
        return optax.scale_by_lion(self.b1, self.b1)


def signum(
    learning_rate: Number = SignumConfig.learning_rate,
    labels: Labels = None,
    *,
    b1: Number = SignumConfig.b1,
    weight_decay: Number = SignumConfig.weight_decay,
    decay_roles: Sequence[str] = SignumConfig.decay_roles,
    mask: Mask = None,
    mu_dtype: MuDtype = SignumConfig.mu_dtype,
) -> optax.GradientTransformationExtraArgs:
    """Signum: the sign of the averaged gradient, which is Lion with b1 = b2.

        m <- b1 m + (1 - b1) g
        p <- p (1 - lr wd) - lr sign(m)

    Args:
      learning_rate: the peak rate, a number or a schedule, as every number here.
      labels: a tree of `Label`s like the parameters, or a function from the parameters to one; needed for
        decay_roles that leave a role out.
      b1: decay of the momentum.
      weight_decay: decoupled decay, multiplied by the rate in force.
      decay_roles: the roles that decay.
      mask: in place of decay_roles, as in optax: a tree of bools, or a function from the parameters to one.
      mu_dtype: bfloat16 keeps momenta in half the bytes; None in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_lm.optimizers import signum
      >>> params = {"w": jnp.ones(2)}
      >>> tx = signum(1e-2)
      >>> updates, state = tx.update({"w": jnp.array([3.0, -0.5])}, tx.init(params), params)
      >>> [round(float(u), 4) for u in updates["w"]]
      [-0.01, 0.01]

    Reference: Bernstein et al. 2018, arXiv 1802.04434, as in Zhao et al. 2024, arXiv 2407.07972.
    """
    return construct(SignumConfig, **locals())
