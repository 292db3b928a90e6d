"""Figure 7, batch size: little effect at a fixed number of tokens.

Batches of 128 to 1,024 windows (256 is the default), half to four times the default at other scales, for as many steps
as give the same tokens; on the 150m model, at each optimizer's best rate as known beforehand.

    runs, tokens: paper 20, 6.55e+10; small 20, 1.05e+08; tiny 20, 1.64e+07; smoke 10, 2.56e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig07_batch_size.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import ADAPTIVE, FIVE, scale
from jaxopt_lm.studies import Study

FACTORS = (1.0, 0.5, 2.0, 4.0)
"""Of the default, which is the first."""


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    (base,) = at.settings("150m")
    windows, steps = at.base.global_batch_size, at.base.num_train_steps
    settings = tuple(
        base
        | {
            "name": f"batch {windows * factor:g}",
            "global_batch_size": int(windows * factor),
            "num_train_steps": int(steps / factor),
        }
        for factor in at.values(*FACTORS)
    )
    gain = at.gains_little("batch size", ADAPTIVE, own=settings[0]["name"])
    return at.study(at.arms(*FIVE, fixed=True), settings, (gain,), one_seed=True)
