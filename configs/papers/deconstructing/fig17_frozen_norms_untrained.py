"""Figure 17: with untrained norms the frozen one is stabler than with frozen ones, and worse.

As Figure 14 with second moments live on the head alone and norms that never move, on the 150m and 300m models; at 150m
also Adalayer* with norms that never move, and Figure 16's left panel to compare with. It bears more rates than that,
and ends higher; Adalayer* with untrained norms ends higher than Adalayer*.

    runs, tokens: paper 90, 4.16e+11; small 160, 1.18e+09; tiny 160, 1.85e+08; smoke 18, 4.76e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig17_frozen_norms_untrained.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import BASELINES, scale
from jaxopt_lm.studies import Better, LessSensitive, Study

UNTRAINED, STAR = "frozen but head, norms untrained", "adalayer_star, norms untrained"
FROZEN_NORMS = "frozen but head"


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    smaller = at.names("150m")
    claims = (
        LessSensitive(
            name="stabler",
            text="It bears more rates than with frozen norms.",
            arm=UNTRAINED,
            than=FROZEN_NORMS,
            across=smaller,
        ),
        Better(name="worse", text="It ends higher than Adalayer*.", arm="adalayer_star", than=UNTRAINED),
        Better(
            name="norms matter",
            text="Adalayer* with untrained norms ends higher than Adalayer*.",
            arm="adalayer_star",
            than=STAR,
            across=smaller,
        ),
    )
    arms = (
        *at.arms(*BASELINES, UNTRAINED),
        at.arm(STAR, settings=smaller, rate="adaptive.learning_rate"),
        at.arm(FROZEN_NORMS, settings=smaller),
    )
    return at.study(arms, at.settings("150m", "300m"), claims)
