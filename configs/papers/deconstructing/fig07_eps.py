"""Figure 7, eps: little effect, and gains of at most .02 nats.

1e-15 (the default), 1e-12, 1e-8 and 1e-5 for AdamW and Adafactor; on the 150m model, at each optimizer's best rate as
known beforehand.

    runs, tokens: paper 8, 2.62e+10; small 8, 4.19e+07; tiny 8, 6.55e+06; smoke 6, 1.54e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig07_eps.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import scale
from jaxopt_lm.studies import Study

ARMS, VALUES = ("adamw", "adafactor"), (1e-12, 1e-8, 1e-5)
"""Besides 1e-15, the arms' own."""


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    arms = at.arms(*ARMS, fixed=True, nuisance=(("eps", at.values(*VALUES)),))
    gain = at.gains_little("eps", ARMS)
    return at.study(arms, at.settings("150m"), (gain,), one_seed=True)
