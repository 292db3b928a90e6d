"""SVRM's rates by role: attention gains from 1.1 times the rate, the MLPs do not.

SVRM with the multipliers of attention and MLPs each at 1.0 and 1.1; that of attention alone is Figure 1's arm. A 134m
model, 100k steps of 128 x 1,024 tokens, warmup 1,000, clipped at 1.0, decay .1, three seeds of data and model: (42,
123), (43, 124), (44, 125). At scale=paper they leave two to judge by: the first is set aside, as in every study.

    runs, tokens: paper 12, 1.57e+11; small 16, 8.39e+07; tiny 16, 1.31e+07; smoke 12, 3.07e+04

    python -m jaxopt_lm.sweep --config=configs/papers/svrm/scaling.py:scale=tiny
"""

from jaxopt_lm.optimizers import SvrmConfig
from jaxopt_lm.papers.aardvark import SVRM, scale
from jaxopt_lm.studies import Better, Study

OTHERS = {"svrm, neither": (1.0, 1.0), "svrm, mlp": (1.0, 1.1), "svrm, both": (1.1, 1.1)}
"""Multipliers of attention and MLPs; svrm: 1.1 and 1.0."""


def get_config(arg: str = "") -> Study:
    at = scale(arg, SVRM)
    others = (
        at.arm(name, SvrmConfig(attention_multiplier=attention, mlp_multiplier=mlp))
        for name, (attention, mlp) in OTHERS.items()
    )
    claims = (
        Better(name="attention", text="1.1 times the rate helps attention.", arm="svrm", than="svrm, neither"),
        Better(name="mlp", text="1.1 times the rate does not help the MLPs.", arm="svrm", than="svrm, both"),
    )
    return at.study((at.arm("svrm", SvrmConfig()), *others), claims)
