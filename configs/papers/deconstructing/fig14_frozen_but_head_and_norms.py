"""Figure 14: second moments of the matrices may stay as they are at initialisation.

Adalayer* whose second moments, but those of head and norms, stay what 1,000 batches at rate 0 gave, over the learning
rate on the 150m and 300m models. At 150m it is nearly Adalayer*'s equal, in loss and stability; at 300m it matches or
exceeds it and comes near AdamW's best. At other scales the calibration is 4% of a 150m run.

    runs, tokens: paper 72, 3.56e+11; small 128, 1.01e+09; tiny 128, 1.58e+08; smoke 12, 3.15e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig14_frozen_but_head_and_norms.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import BASELINES, scale
from jaxopt_lm.studies import Better, Coincide, Study

FROZEN = "frozen but head and norms"


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    smaller, larger = at.names("150m"), at.names("300m")
    claims = (
        Better(name="loss", text="It reaches Adalayer*.", arm=FROZEN, than="adalayer_star", by=-at.alike),
        Coincide(
            name="stability",
            text="At 150m its curve is Adalayer*'s.",
            arms=(FROZEN, "adalayer_star"),
            within=2 * at.alike,  # as in Figure 1
            across=smaller,
        ),
        Better(
            name="AdamW", text="At 300m it comes near AdamW.", arm=FROZEN, than="adamw", by=-at.alike, across=larger
        ),
    )
    return at.study(at.arms(*BASELINES, FROZEN), at.settings("150m", "300m"), claims)
