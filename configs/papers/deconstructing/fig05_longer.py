"""Figure 5: trained four times as long, all end lower and bear more rates.

Figure 1's sweep on the 150m model for 100k steps instead of 25k, with and without QK norm and z-loss, beside the runs
of Figures 1 and 4. Without them at scales paper and small alone.

    runs, tokens: paper 180, 1.47e+12; small 320, 4.19e+09; tiny 160, 3.28e+08; smoke 30, 1.92e+05

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig05_longer.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import FIVE, WITHOUT, scale
from jaxopt_lm.studies import LessSensitiveIn, LowerIn, SameRanking, Study


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    shorter = ({}, WITHOUT) if at.name in ("paper", "small") else ({},)
    variants = (*shorter, *(variant | at.longer for variant in shorter))
    names = at.names("150m", variants=variants)
    pairs = list(zip(names[len(shorter) :], names, strict=False))
    lower = (
        LowerIn(
            name=f"lower, {long}", text=f"Longer training ends lower ({long}).", arms=FIVE, setting=long, other=short
        )
        for long, short in pairs
    )
    wider = (
        LessSensitiveIn(
            name=f"wider, {long}",
            text=f"Trained for longer, all bear more rates ({long}).",
            arms=FIVE,
            setting=long,
            other=short,
        )
        for long, short in pairs
    )
    order = SameRanking(name="order", text="The order of the optimizers is the same.", arms=FIVE)
    return at.study(at.arms(*FIVE), at.settings("150m", variants=variants), (order, *lower, *wider))
