"""From a config to a trained model: the pure step, and the loop of files, clocks and signals around it.

    from jaxopt_lm.training import train
    result = train(config)
    plt.plot(*result.history["eval/loss"])

`train` is imported when first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxopt_lm.training.run import Result, train

__all__ = ["Result", "train"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxopt_lm.training import run

    return getattr(run, name)
