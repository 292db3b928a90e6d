"""Figure 4: without QK norm and z-loss all are less stable, in the same order.

Figure 1's sweep on the 150m and 300m models without QK norm and z-loss, beside Figure 1's own runs.

    runs, tokens: paper 180, 8.85e+11; small 320, 2.52e+09; tiny 320, 3.93e+08; smoke 30, 7.68e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig04_without_qk_norm.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import ADAPTIVE, FIVE, WITHOUT, scale
from jaxopt_lm.studies import Better, LessSensitiveIn, SameRanking, Study


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    sizes = ("150m", "300m")
    standard, without = at.names(*sizes), at.names(*sizes, variants=(WITHOUT,))
    less = (
        LessSensitiveIn(
            name=f"stable, {setting}",
            text=f"QK norm and z-loss make every optimizer bear more rates ({setting}).",
            arms=FIVE,
            setting=setting,
            other=other,
        )
        for setting, other in zip(standard, without, strict=True)
    )
    lower = (
        Better(name=f"{arm} beats SGD", text=f"{arm} ends lower than SGD.", arm=arm, than="sgdw", across=without)
        for arm in ADAPTIVE
    )
    order = SameRanking(name="order", text="The order of the optimizers is the same without.", arms=FIVE)
    return at.study(at.arms(*FIVE), at.settings(*sizes, variants=({}, WITHOUT)), (order, *less, *lower))
