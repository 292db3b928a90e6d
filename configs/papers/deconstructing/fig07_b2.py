"""Figure 7, b2: little effect, and gains of at most .02 nats.

.8, .9, .95 (the default), .98 and .99 for AdamW, Adafactor and Lion; on the 150m model, at each optimizer's best rate
as known beforehand.

    runs, tokens: paper 15, 4.92e+10; small 15, 7.86e+07; tiny 15, 1.23e+07; smoke 9, 2.3e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig07_b2.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import scale
from jaxopt_lm.studies import Study

ARMS, VALUES = ("adamw", "adafactor", "lion"), (0.8, 0.9, 0.98, 0.99)
"""Besides .95, the arms' own."""


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    arms = at.arms(*ARMS, fixed=True, nuisance=(("b2", at.values(*VALUES)),))
    gain = at.gains_little("b2", ARMS)
    return at.study(arms, at.settings("150m"), (gain,), one_seed=True)
