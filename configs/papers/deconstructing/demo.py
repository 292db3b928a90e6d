"""Figures 1 and 9 in one, on two CPU cores in less than ten minutes: the paper's picture, at one seed.

AdamW, Signum, SGD, Adalayer and Adalayer* over five rates each, ratio sqrt(10), in half as many steps as Figures 1 and
9 have. SGD ends a nat above the others; Adalayer bears high rates less well than AdamW,
and Adalayer* much better than Adalayer. Losses are judged on fresh seeds, of which there are none here.

    runs, tokens: paper 25, 4.1e+10; small 25, 6.55e+07; tiny 25, 1.02e+07; smoke 5, 6.4e+03

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/demo.py:scale=tiny
"""

import dataclasses

from jaxopt_lm.papers.deconstructing import scale
from jaxopt_lm.studies import LessSensitive, Study


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    arms = tuple(
        dataclasses.replace(arm, learning_rates=_middle_five(arm.learning_rates))
        for arm in at.arms("adamw", "signum", "sgdw", "adalayer", "adalayer_star")
    )
    claims = (
        LessSensitive(name="unstable", text="Adalayer bears fewer rates than AdamW.", arm="adamw", than="adalayer"),
        LessSensitive(
            name="star is stable",
            text="Adalayer* bears more rates than Adalayer.",
            arm="adalayer_star",
            than="adalayer",
        ),
    )
    study = at.study(arms, at.settings("150m"), claims, one_seed=True)
    steps = study.base.num_train_steps // 2
    base = dataclasses.replace(study.base, num_train_steps=steps, workdir=f"runs/deconstructing_demo_{at.name}")
    return dataclasses.replace(study, base=base, rules=dataclasses.replace(study.rules, max_extensions=0))


def _middle_five(rates: tuple[float, ...]) -> tuple[float, ...]:
    first = max(len(rates) - 5, 0) // 2
    return rates[first : first + 5]
