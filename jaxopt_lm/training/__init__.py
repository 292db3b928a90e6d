"""From a config to a trained model: the pure step, the loop around it, and runs that keep a folder.

    from jaxopt_lm.training import train
    result = train(config)
    plt.plot(*result.history["eval/loss"])

Without a folder: `Setup.of(config)` opens the tokens and builds the program, `fit` trains and tells an `Observer`.
All are imported when first asked for.
"""

from typing import TYPE_CHECKING

from jaxopt_lm.lazy import lazily

if TYPE_CHECKING:
    from jaxopt_lm.training.loop import Divergence, Due, Fitted, Observer, fit
    from jaxopt_lm.training.program import Program
    from jaxopt_lm.training.run import Result, train
    from jaxopt_lm.training.setup import Setup
    from jaxopt_lm.training.step import HParams

_LAZY = {
    "loop": ("Divergence", "Due", "Fitted", "Observer", "fit"),
    "program": ("Program",),
    "run": ("Result", "train"),
    "setup": ("Setup",),
    "step": ("HParams",),
}

__all__ = ["Divergence", "Due", "Fitted", "HParams", "Observer", "Program", "Result", "Setup", "fit", "train"]


__getattr__ = lazily(__name__, _LAZY)
