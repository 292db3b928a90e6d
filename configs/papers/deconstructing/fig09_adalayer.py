"""Figure 9: one second moment a layer is not enough; apart for each logit of the head it nearly is.

Adalayer, and Adalayer* (the head's second moments apart for each vocabulary entry), beside AdamW and SGD, over the
learning rate on the 150m model. Adalayer ends between SGD and AdamW and bears fewer rates than AdamW; Adalayer* nearly
recovers AdamW's loss and much of its stability.

    runs, tokens: paper 36, 1.18e+11; small 64, 3.36e+08; tiny 64, 5.24e+07; smoke 12, 3.07e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig09_adalayer.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import scale
from jaxopt_lm.studies import Better, LessSensitive, Study


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    claims = (
        Better(name="above SGD", text="Adalayer ends lower than SGD.", arm="adalayer", than="sgdw"),
        Better(name="below AdamW", text="Adalayer ends higher than AdamW.", arm="adamw", than="adalayer"),
        LessSensitive(name="unstable", text="Adalayer bears fewer rates than AdamW.", arm="adamw", than="adalayer"),
        Better(name="star", text="Adalayer* nearly reaches AdamW.", arm="adalayer_star", than="adamw", by=-at.alike),
        LessSensitive(
            name="star is stable",
            text="Adalayer* bears more rates than Adalayer.",
            arm="adalayer_star",
            than="adalayer",
        ),
    )
    return at.study(at.arms("adamw", "adalayer", "adalayer_star", "sgdw"), at.settings("150m"), claims)
