"""Figure 1: AdamW, Adafactor, Lion and Signum do alike at every rate around their best; SGD is worse.

Five optimizers over their learning rates on models of four sizes. Shifted to their best rates, the curves of the four
coincide; SGD ends higher and bears fewer rates. These runs serve Figures 3 to 6, 8 to 15, 17 and 18 too.

    runs, tokens: paper 180, 2.21e+12; small 160, 1.26e+09; tiny 160, 1.97e+08; smoke 15, 3.84e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig01_learning_rate.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import ADAPTIVE, FIVE, SIZES, scale
from jaxopt_lm.studies import Alike, Better, Coincide, LessSensitive, Study


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    alike = Alike(name="alike", text="All but SGD end alike at their best rates.", arms=ADAPTIVE, within=at.alike)
    shifted = Coincide(
        name="one curve",
        text="All but SGD have the same curve, shifted to the best rate.",
        arms=ADAPTIVE,
        within=2 * at.alike,  # that of the best losses, and of the rates, which are a factor of sqrt(10) apart
    )
    lower = (
        Better(name=f"{arm} beats SGD", text=f"{arm} ends lower than SGD.", arm=arm, than="sgdw") for arm in ADAPTIVE
    )
    wider = (
        LessSensitive(name=f"{arm} is wider", text=f"{arm} bears more rates than SGD.", arm=arm, than="sgdw")
        for arm in ADAPTIVE
    )
    return at.study(at.arms(*FIVE), at.settings(*SIZES), (alike, shifted, *lower, *wider))
