"""What the scale tiny is made from: how long runs must be for the paper's picture to show, how far seeds lie apart.

AdamW, Signum, SGD and Adalayer* at rates that were best in a prototype of one seed, in runs of a quarter, half and all
of the scale's steps, on three fresh seeds. The length and tolerances of claims come from it: docs/results/README.md.

    runs, tokens: paper 12, 2.29e+10; small 48, 1.47e+08; tiny 48, 2.29e+07; smoke 36, 5.22e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/calibration.py:scale=tiny
"""

import dataclasses

from jaxopt_lm.papers.deconstructing import scale
from jaxopt_lm.studies import Study


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    (own,) = at.settings("150m")
    steps = (at.base.num_train_steps // 4, at.base.num_train_steps // 2, at.base.num_train_steps)
    settings = tuple(own | {"name": f"{number} steps", "num_train_steps": number} for number in steps)
    study = at.study(at.arms("adamw", "signum", "sgdw", "adalayer_star", fixed=True), settings)
    return dataclasses.replace(study, rules=dataclasses.replace(study.rules, noise_seeds=0))
