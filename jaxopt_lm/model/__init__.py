"""The decoder of both families of the papers: its shape (`ModelConfig`, `preset`) and its pure functions.

`init(config, key)` draws parameters, a nested dict of arrays; `labels(config)` gives their axes and roles,
`shapes(config)` their shapes; `logits(config, params, tokens)` applies them; `describe(config)` prints them. Configs
load no flax: the functions are imported when first asked for. `model.huggingface` reads and writes checkpoint folders.
"""

from typing import TYPE_CHECKING

from jaxopt_lm.lazy import lazily
from jaxopt_lm.model.config import PRESETS, ModelConfig, preset

if TYPE_CHECKING:
    from jaxopt_lm.model.decoder import (
        ONE_DEVICE,
        Params,
        Placement,
        init,
        labels,
        logits,
        shapes,
        stack_layers,
        unstack_layers,
    )
    from jaxopt_lm.model.summary import describe, num_params

_LAZY: dict[str, tuple[str, ...]] = {
    "decoder": (
        "ONE_DEVICE",
        "Params",
        "Placement",
        "init",
        "labels",
        "logits",
        "shapes",
        "stack_layers",
        "unstack_layers",
    ),
    "summary": ("describe", "num_params"),
}

__all__ = [
    "ONE_DEVICE",
    "PRESETS",
    "ModelConfig",
    "Params",
    "Placement",
    "describe",
    "init",
    "labels",
    "logits",
    "num_params",
    "preset",
    "shapes",
    "stack_layers",
    "unstack_layers",
]


__getattr__ = lazily(__name__, _LAZY)
