"""Figure 9's footnote: apart for each row of the embedding too, Adalayer* does not gain.

Adalayer* with a second moment for each row of the embedding, beside Adalayer*, over the learning rate on the 150m
model.

    runs, tokens: paper 18, 5.9e+10; small 32, 1.68e+08; tiny 32, 2.62e+07; smoke 6, 1.54e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig09b_first_layer.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import scale
from jaxopt_lm.studies import Alike, Study


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    names = ("adalayer_star", "adalayer_star, first layer")
    same = Alike(name="no gain", text="The correction of the first layer changes little.", arms=names, within=at.alike)
    return at.study(at.arms(*names), at.settings("150m"), (same,))
