"""Figure 18: Sophia does not outperform Signum.

Over the learning rate on the 150m model: Signum; Sophia with this paper's b1, b2 and no decay (our reading of "default
setup"); with Liu et al.'s b1, b2, eps and weight decay, 0.2 in our reading; and the last with attention logits divided
by the number of the layer, as in Liu et al.'s code.

    runs, tokens: paper 36, 1.18e+11; small 64, 3.36e+08; tiny 64, 5.24e+07; smoke 12, 3.07e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig18_sophia.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import scale
from jaxopt_lm.studies import Better, Study

PLAIN, LIU, SCALED = "sophia", "sophia, Liu et al.", "sophia, Liu et al., attention over layer"


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    arms = (
        *at.arms("signum", PLAIN, LIU),
        at.arm(LIU, name=SCALED, values={"model.attention_inverse_layer_scale": True}),
    )
    claims = (
        Better(
            name=f"Signum and {arm}",
            text=f"{arm} does not outperform Signum.",
            arm="signum",
            than=arm,
            by=-at.alike / 2,  # outperforming by less than the paper's own tolerance is none
        )
        for arm in (PLAIN, LIU, SCALED)
    )
    return at.study(arms, at.settings("150m"), tuple(claims))
