"""Figure 12: untrained norms are stabler than norms trained by SGD, but cost some loss.

Figure 3's left panel with norms that never move, on the 150m and 300m models. It beats SGD, bears more rates than
Figure 3's (whose runs at 150m are here too), and ends higher than Adalayer*, the more so at 300m.

    runs, tokens: paper 84, 3.96e+11; small 144, 1.09e+09; tiny 144, 1.7e+08; smoke 15, 3.84e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig12_norms_untrained.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import BASELINES, scale
from jaxopt_lm.studies import Better, GapGrows, LessSensitive, Study

HEAD, UNTRAINED = "head adaptive", "head adaptive, norms untrained"


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    smaller = at.names("150m")
    claims = (
        Better(name="beats SGD", text="It ends lower than SGD.", arm=UNTRAINED, than="sgdw"),
        LessSensitive(
            name="stabler", text="It is stabler than with norms trained.", arm=UNTRAINED, than=HEAD, across=smaller
        ),
        Better(name="worse", text="It ends higher than Adalayer*.", arm="adalayer_star", than=UNTRAINED),
        GapGrows(name="more so", text="At 300m it falls further behind.", arm=UNTRAINED, than="adalayer_star"),
    )
    arms = (*at.arms(*BASELINES, UNTRAINED), at.arm(HEAD, settings=smaller))
    return at.study(arms, at.settings("150m", "300m"), claims)
