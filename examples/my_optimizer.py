"""An optimizer of one's own: the sign of an average of gradients, where the newest gradient has that sign too."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jaxopt_lm.optimizers import OptimizerConfig, traceable


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mine(OptimizerConfig):
    learning_rate: float = 1e-3
    b1: float = 0.9
    """Decay of the average."""

    def direction(self, labels):
        average = optax.ema(self.b1)

        def update(updates, state, params=None):
            mu, state = average.update(updates, state, params)
            return jax.tree.map(lambda m, g: jnp.sign(m) * (m * g > 0), mu, updates), state

        return optax.GradientTransformation(average.init, update)
