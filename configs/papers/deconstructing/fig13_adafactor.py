"""Figure 13: Adafactor on head and norms, SGD on the rest, is about as good as Adafactor.

SGD over its rates on the matrices, Adafactor at its best rate of 150m on head and norms, at 300m also at the rate of
the grid below. At 150m it is better than Adafactor at low rates and else about as good; at 300m about as good up to the
best rate and apart above it, where it does not exceed Adafactor.

    runs, tokens: paper 84, 4.29e+11; small 144, 1.17e+09; tiny 144, 1.84e+08; smoke 15, 3.84e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig13_adafactor.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import scale
from jaxopt_lm.studies import Alike, Coincide, LowerBeside, Study

HYBRID, LOWER = "head and norms adafactor", "head and norms adafactor, lower"


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    smaller, larger = at.names("150m"), at.names("300m")
    claims = (
        LowerBeside(
            name="low rates",
            text="At 150m it is better than Adafactor at low rates.",
            arm=HYBRID,
            than="adafactor",
            side="below",
            across=smaller,
        ),
        Alike(name="alike", text="Its best loss is Adafactor's.", arms=(HYBRID, "adafactor"), within=at.alike),
        Coincide(
            name="up to the best",
            text="At 300m it is Adafactor's equal up to the best rate.",
            arms=(HYBRID, "adafactor"),
            side="below",
            within=2 * at.alike,  # as in Figure 1
            across=larger,
        ),
        *(
            LowerBeside(
                name=f"high rates, {arm}",
                text="At 300m Adafactor is better above the best rate.",
                arm="adafactor",
                than=arm,
                side="above",
                across=larger,
            )
            for arm in (HYBRID, LOWER)
        ),
    )
    arms = (*at.arms("adamw", "sgdw", "adafactor", HYBRID), at.arm(LOWER, settings=larger))
    return at.study(arms, at.settings("150m", "300m"), claims)
