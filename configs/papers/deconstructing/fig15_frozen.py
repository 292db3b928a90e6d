"""Figure 15: with all second moments frozen at initialisation it diverges early.

As Figure 14, but those of head and norms are frozen too: neither Adalayer*'s loss nor its stability.

    runs, tokens: paper 72, 3.56e+11; small 128, 1.01e+09; tiny 128, 1.58e+08; smoke 12, 3.15e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig15_frozen.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import BASELINES, scale
from jaxopt_lm.studies import Better, LessSensitive, Study


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    claims = (
        Better(name="loss", text="It ends higher than Adalayer*.", arm="adalayer_star", than="frozen"),
        LessSensitive(
            name="stability", text="It bears fewer rates than Adalayer*.", arm="adalayer_star", than="frozen"
        ),
    )
    return at.study(at.arms(*BASELINES, "frozen"), at.settings("150m", "300m"), claims)
