"""Figure 16: with only the head or only the norms live it reaches the loss, but is unstable.

As Figure 14, on the 150m model, with second moments live on the head alone (left: norms are frozen) or on the norms
alone.

    runs, tokens: paper 45, 1.5e+11; small 80, 4.26e+08; tiny 80, 6.66e+07; smoke 15, 3.99e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig16_frozen_but_one.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import BASELINES, scale
from jaxopt_lm.studies import Better, LessSensitive, Study

LIVE = ("frozen but head", "frozen but norms")


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    reach = (
        Better(name=arm, text=f"{arm}: it reaches Adalayer*.", arm=arm, than="adalayer_star", by=-at.alike)
        for arm in LIVE
    )
    unstable = (
        LessSensitive(
            name=f"{arm} is unstable",
            text=f"{arm}: it bears fewer rates than Adalayer*.",
            arm="adalayer_star",
            than=arm,
        )
        for arm in LIVE
    )
    return at.study(at.arms(*BASELINES, *LIVE), at.settings("150m"), (*reach, *unstable))
