"""Optimizers of language models as optax transformations, on jax and optax alone.

`adamw(3e-4)`, `muon(0.02, labels)` and the like are optax transformations; their `scale_by_…` parts are in the modules.
`OPTIMIZERS` is the registry behind `--config.optimizer`: a name and the config dataclass that makes it.
"""

from jaxopt_lm.errors import InputError
from jaxopt_lm.labels import AXES, ROLES, Label
from jaxopt_lm.optimizers.adafactor import (
    AdafactorBigVisionConfig,
    AdafactorConfig,
    adafactor,
    adafactor_big_vision,
    scale_by_adafactor,
    scale_by_adafactor_big_vision,
)
from jaxopt_lm.optimizers.adamw import AdamWConfig, adamw
from jaxopt_lm.optimizers.adan import AdanConfig, adan
from jaxopt_lm.optimizers.ademamix import AdEMAMixConfig, ademamix
from jaxopt_lm.optimizers.adopt import AdoptConfig, adopt
from jaxopt_lm.optimizers.almvr import AlmvrConfig, almvr
from jaxopt_lm.optimizers.block_adam import (
    AdalayerConfig,
    AdalayerStarConfig,
    AdamMiniConfig,
    Calibration,
    adalayer,
    adalayer_star,
    adam_mini,
    scale_by_block_adam,
)
from jaxopt_lm.optimizers.clipping import clip_by_global_norm, clip_by_layer_norm
from jaxopt_lm.optimizers.config import OptimizerConfig, traceable
from jaxopt_lm.optimizers.curvature import hutchinson, sampled_label_grads
from jaxopt_lm.optimizers.describe import describe, state_bytes
from jaxopt_lm.optimizers.frozen import FrozenConfig, frozen
from jaxopt_lm.optimizers.groups import axes_kept, partition
from jaxopt_lm.optimizers.hybrid import HybridConfig, hybrid
from jaxopt_lm.optimizers.labelling import label_params
from jaxopt_lm.optimizers.layer_adaptive import LayerAdaptiveAdamWConfig, layer_adaptive_adamw
from jaxopt_lm.optimizers.lion import LionConfig, SignumConfig, lion, signum
from jaxopt_lm.optimizers.mars import MarsConfig, mars, reduce_variance
from jaxopt_lm.optimizers.muon import MuonConfig, muon
from jaxopt_lm.optimizers.novograd import NovoGradConfig, novograd
from jaxopt_lm.optimizers.own import FromOptax
from jaxopt_lm.optimizers.prodigy import ProdigyConfig, prodigy
from jaxopt_lm.optimizers.rates import applied_rates, scale_by_rate
from jaxopt_lm.optimizers.schedule_free import ScheduleFreeAdamWConfig, eval_params, schedule_free_adamw
from jaxopt_lm.optimizers.schedules import SCHEDULES, ScheduleConfig
from jaxopt_lm.optimizers.sgdw import SgdwConfig, heavy_ball, sgdw
from jaxopt_lm.optimizers.soap import SoapConfig, scale_by_soap, soap
from jaxopt_lm.optimizers.sophia import (
    SophiaConfig,
    SophiaHConfig,
    scale_by_sophia_g,
    scale_by_sophia_h,
    sophia,
    sophia_h,
)
from jaxopt_lm.optimizers.svrm import SvrmConfig, scale_by_svrm, svrm
from jaxopt_lm.optimizers.telemetry import Telemetry, grad_norms, telemetry, telemetry_by_role
from jaxopt_lm.optimizers.trust_ratio import LambConfig, LarsConfig, lamb, lars, scale_by_lars_ratio

OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    "adafactor": AdafactorConfig,
    "adafactor_big_vision": AdafactorBigVisionConfig,
    "adalayer": AdalayerConfig,
    "adalayer_star": AdalayerStarConfig,
    "adam_mini": AdamMiniConfig,
    "adamw": AdamWConfig,
    "adan": AdanConfig,
    "ademamix": AdEMAMixConfig,
    "adopt": AdoptConfig,
    "almvr": AlmvrConfig,
    "frozen": FrozenConfig,
    "hybrid": HybridConfig,
    "lamb": LambConfig,
    "lars": LarsConfig,
    "layer_adaptive_adamw": LayerAdaptiveAdamWConfig,
    "lion": LionConfig,
    "mars": MarsConfig,
    "muon": MuonConfig,
    "novograd": NovoGradConfig,
    "prodigy": ProdigyConfig,
    "schedule_free_adamw": ScheduleFreeAdamWConfig,
    "sgdw": SgdwConfig,
    "signum": SignumConfig,
    "soap": SoapConfig,
    "sophia": SophiaConfig,
    "sophia_h": SophiaHConfig,
    "svrm": SvrmConfig,
}

__all__ = [
    "AXES",
    "OPTIMIZERS",
    "ROLES",
    "SCHEDULES",
    "AdEMAMixConfig",
    "AdafactorBigVisionConfig",
    "AdafactorConfig",
    "AdalayerConfig",
    "AdalayerStarConfig",
    "AdamMiniConfig",
    "AdamWConfig",
    "AdanConfig",
    "AdoptConfig",
    "AlmvrConfig",
    "Calibration",
    "FromOptax",
    "FrozenConfig",
    "HybridConfig",
    "InputError",
    "Label",
    "LambConfig",
    "LarsConfig",
    "LayerAdaptiveAdamWConfig",
    "LionConfig",
    "MarsConfig",
    "MuonConfig",
    "NovoGradConfig",
    "OptimizerConfig",
    "ProdigyConfig",
    "ScheduleConfig",
    "ScheduleFreeAdamWConfig",
    "SgdwConfig",
    "SignumConfig",
    "SoapConfig",
    "SophiaConfig",
    "SophiaHConfig",
    "SvrmConfig",
    "Telemetry",
    "adafactor",
    "adafactor_big_vision",
    "adalayer",
    "adalayer_star",
    "adam_mini",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "almvr",
    "applied_rates",
    "axes_kept",
    "clip_by_global_norm",
    "clip_by_layer_norm",
    "describe",
    "eval_params",
    "frozen",
    "grad_norms",
    "heavy_ball",
    "hutchinson",
    "hybrid",
    "label_params",
    "lamb",
    "lars",
    "layer_adaptive_adamw",
    "lion",
    "mars",
    "muon",
    "novograd",
    "partition",
    "prodigy",
    "reduce_variance",
    "sampled_label_grads",
    "scale_by_adafactor",
    "scale_by_adafactor_big_vision",
    "scale_by_block_adam",
    "scale_by_lars_ratio",
    "scale_by_rate",
    "scale_by_soap",
    "scale_by_sophia_g",
    "scale_by_sophia_h",
    "scale_by_svrm",
    "schedule_free_adamw",
    "sgdw",
    "signum",
    "soap",
    "sophia",
    "sophia_h",
    "state_bytes",
    "svrm",
    "telemetry",
    "telemetry_by_role",
    "traceable",
]
