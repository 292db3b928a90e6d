"""Optimizers of language models as optax transformations, on jax and optax alone.

`OPTIMIZERS` is the registry behind `--config.optimizer`: a name and the config dataclass that makes it.
"""

from jaxopt_lm.optimizers.adamw import AdamWConfig
from jaxopt_lm.optimizers.clipping import clip_by_global_norm
from jaxopt_lm.optimizers.config import OptimizerConfig, traceable
from jaxopt_lm.optimizers.lion import LionConfig, SignumConfig
from jaxopt_lm.optimizers.schedules import SCHEDULES, ScheduleConfig
from jaxopt_lm.optimizers.sgdw import SgdwConfig

OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    "adamw": AdamWConfig,
    "lion": LionConfig,
    "sgdw": SgdwConfig,
    "signum": SignumConfig,
}

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "AdamWConfig",
    "LionConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "SgdwConfig",
    "SignumConfig",
    "clip_by_global_norm",
    "traceable",
]
