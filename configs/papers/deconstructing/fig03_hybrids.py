"""Figure 3: with the head and the norms adaptive, the rest can be trained by SGD.

SGD over its rates on the matrices, Adalayer* at its best rate on the head alone (left) or on head and norms (middle;
right, on the 300m model). With the head alone it beats SGD but is unstable; with the norms too it does about as well as
Adalayer*, and on the 300m model better, about as well as AdamW. The dotted lines are Figure 1's and 9's runs.

    runs, tokens: paper 84, 3.96e+11; small 144, 1.09e+09; tiny 144, 1.7e+08; smoke 15, 3.84e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig03_hybrids.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import BASELINES, scale
from jaxopt_lm.studies import Alike, Better, LessSensitive, Study

HEAD, BOTH = "head adaptive", "head and norms adaptive"


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    left, right = at.names("150m"), at.names("300m")
    claims = (
        Better(name="head beats SGD", text="The head alone is worth it.", arm=HEAD, than="sgdw", across=left),
        LessSensitive(
            name="head is unstable",
            text="With the head alone fewer rates are borne than by Adalayer*.",
            arm="adalayer_star",
            than=HEAD,
            across=left,
        ),
        Better(
            name="recovers",
            text="With the norms too it nearly reaches or exceeds Adalayer*.",
            arm=BOTH,
            than="adalayer_star",
            by=-at.alike,
            across=left,
        ),
        LessSensitive(name="stable", text="The norms make it stable.", arm=BOTH, than=HEAD, across=left),
        Better(name="exceeds", text="At 300m it exceeds Adalayer*.", arm=BOTH, than="adalayer_star", across=right),
        Alike(name="AdamW", text="At 300m it is AdamW's equal.", arms=(BOTH, "adamw"), within=at.alike, across=right),
    )
    arms = (*at.arms(*BASELINES), at.arm(HEAD, settings=left), at.arm(BOTH))
    return at.study(arms, at.settings("150m", "300m"), claims)
