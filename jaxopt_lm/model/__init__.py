"""The decoder of both families of the papers: its shape (`ModelConfig`, `preset`) and its pure functions.

`init(config, key)` draws parameters, a nested dict of arrays; `labels(config)` gives their axes and roles,
`shapes(config)` their shapes; `logits(config, params, tokens)` applies them; `describe(config)` prints them. Configs
load no flax: the functions are imported when first asked for. `model.huggingface` reads and writes checkpoint folders.
"""

import importlib
from typing import TYPE_CHECKING

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


def __getattr__(name: str):
    for module, names in _LAZY.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
