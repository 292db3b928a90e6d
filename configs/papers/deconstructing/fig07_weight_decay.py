"""Figure 7, weight decay: little effect but on SGD, and gains of at most .02 nats.

0 and 1e-6 to 1e-1, given as lambda: the decay of a step, whatever its rate, so weight_decay = lambda / learning_rate;
of all parameters. On the 150m model, at each optimizer's best rate as known beforehand. At other scales than paper's
the gain is judged against what counts as alike there, for .02 nats are below the noise of a seed.

    runs, tokens: paper 35, 1.15e+11; small 35, 1.84e+08; tiny 35, 2.87e+07; smoke 15, 3.84e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig07_weight_decay.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import ADAPTIVE, FIVE, scale
from jaxopt_lm.studies import Study

DECAYS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Besides 0, the arms' own."""


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    arms = tuple(
        at.arm(name, fixed=True, nuisance=(("weight_decay", _over(at.values(*DECAYS), at.known.best[name])),))
        for name in FIVE
    )
    gain = at.gains_little("decay", ADAPTIVE)
    return at.study(arms, at.settings("150m"), (gain, *at.sgd_is_most_sensitive()), one_seed=True)


def _over(decays: tuple[float, ...], rate: float) -> tuple[float, ...]:
    return tuple(decay / rate for decay in decays)
