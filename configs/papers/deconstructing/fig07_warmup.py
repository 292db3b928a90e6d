"""Figure 7, warmup: little effect but on SGD, and gains of at most .02 nats.

A warmup of 500 to 20k of 25k steps (2k5 is the default), as the same shares of the run at other scales; on the 150m
model, at each optimizer's best rate as known beforehand.

    runs, tokens: paper 35, 1.15e+11; small 35, 1.84e+08; tiny 35, 2.87e+07; smoke 10, 2.56e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig07_warmup.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import ADAPTIVE, FIVE, scale
from jaxopt_lm.studies import Study

STEPS = (2_500, 500, 1_250, 5_000, 10_000, 15_000, 20_000)
"""Of 25,000; the default first."""


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    (base,) = at.settings("150m")
    settings = tuple(
        base | {"name": f"warmup {steps / 25_000:g}", "schedule.warmup_fraction": steps / 25_000}
        for steps in at.values(*STEPS)
    )
    gain = at.gains_little("warmup", ADAPTIVE, own=settings[0]["name"])
    return at.study(
        at.arms(*FIVE, fixed=True), settings, (gain, *at.sgd_is_most_sensitive(over_settings=True)), one_seed=True
    )
