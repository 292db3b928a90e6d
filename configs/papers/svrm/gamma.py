"""SVRM's ablation of gamma: .3 is the best of .1, .3 and .5.

SVRM at three strengths, of which .3 is Figure 1's arm; .5 over-smooths, .1 does little. A 134m model, 100k steps of 128
x 1,024 tokens, warmup 1,000, clipped at 1.0, decay .1, three seeds of data and model: (42, 123), (43, 124), (44, 125).
At scale=paper they leave two to judge by: the first is set aside, as in every study.

    runs, tokens: paper 9, 1.18e+11; small 12, 6.29e+07; tiny 12, 9.83e+06; smoke 9, 2.3e+04

    python -m jaxopt_lm.sweep --config=configs/papers/svrm/gamma.py:scale=tiny
"""

from jaxopt_lm.optimizers import SvrmConfig
from jaxopt_lm.papers.aardvark import SVRM, scale
from jaxopt_lm.studies import Better, Study

OTHERS = {"svrm, gamma .1": 0.1, "svrm, gamma .5": 0.5}


def get_config(arg: str = "") -> Study:
    at = scale(arg, SVRM)
    arms = (at.arm("svrm", SvrmConfig()), *(at.arm(name, SvrmConfig(gamma=gamma)) for name, gamma in OTHERS.items()))
    claims = (Better(name=name, text=f"gamma .3 beats {name}.", arm="svrm", than=name) for name in OTHERS)
    return at.study(arms, tuple(claims))
