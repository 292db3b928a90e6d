"""The decoder of both families of the papers: its shape (`ModelConfig`, `preset`) and its pure functions.

`init(config, key)` draws parameters, a nested dict of arrays; `labels(config)` gives their axes and roles, `shapes(config)`
their shapes; `logits(config, params, tokens)` applies them; `describe(config)` prints them. Configs load no jax: the
functions are imported when first asked for.
"""

from typing import TYPE_CHECKING

from jaxopt_lm.model.config import PRESETS, ModelConfig, preset

if TYPE_CHECKING:
    from jaxopt_lm.model.decoder import Params, init, labels, logits, shapes, stack_layers, unstack_layers
    from jaxopt_lm.model.summary import describe, num_params

_LAZY = {name: "decoder" for name in ("Params", "init", "labels", "logits", "shapes", "stack_layers", "unstack_layers")}
_LAZY |= {name: "summary" for name in ("describe", "num_params")}

__all__ = [
    "PRESETS",
    "ModelConfig",
    "Params",
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
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
