"""Figure 10: what Figure 3 shows, adaptive head and norms with SGD, holds for the 600m model.

Figure 3's middle panel on the 600m model; where a scale has two models, on the larger one, whose runs are Figure 3's.

    runs, tokens: paper 37, 4.85e+11; small 64, 6.71e+08; tiny 64, 1.05e+08; smoke 12, 3.07e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig10_hybrid_600m.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import BASELINES, scale
from jaxopt_lm.studies import Better, LessSensitive, Study

BOTH = "head and norms adaptive"


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    claims = (
        Better(name="loss", text="It reaches Adalayer*.", arm=BOTH, than="adalayer_star", by=-at.alike),
        LessSensitive(name="stability", text="It bears more rates than SGD.", arm=BOTH, than="sgdw"),
    )
    return at.study(at.arms(*BASELINES, BOTH), at.settings("600m"), claims)
