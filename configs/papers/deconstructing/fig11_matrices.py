"""Figure 11: with the matrices adaptive, and head and norms trained by SGD, it is not enough.

SGD over its rates on head and norms, Adalayer* on embedding, attention and MLP at the rate of the grid below its best
(1e-3), on the 150m model. It beats SGD but is unstable, and falls short of Adalayer*.

    runs, tokens: paper 37, 1.21e+11; small 64, 3.36e+08; tiny 64, 5.24e+07; smoke 12, 3.07e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig11_matrices.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import BASELINES, scale
from jaxopt_lm.studies import Better, LessSensitive, Study

MATRICES = "matrices adaptive"


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    claims = (
        Better(name="beats SGD", text="It ends lower than SGD.", arm=MATRICES, than="sgdw"),
        Better(name="short", text="It ends higher than Adalayer*.", arm="adalayer_star", than=MATRICES),
        LessSensitive(name="unstable", text="It bears fewer rates than Adalayer*.", arm="adalayer_star", than=MATRICES),
    )
    return at.study(at.arms(*BASELINES, MATRICES), at.settings("150m"), claims)
