""" "Revisiting Layer-Adaptive Optimization", Table 1: none of 12 layer-adaptive variants beats AdamW.

AdamW (.9, .999, 3e-4) beside 12 variants on models of 134m, 500m and 1b, five seeds: a rate that falls with depth
(linear to a half, l^(-1/2), 1/l, of mean 1 over the layers) x (one b1; b1 from .85 to .95 over depth) x (gradients
clipped at 1.0 together; layer by layer, the rest as one). 10,000 steps; batches of 128 x 1,024, decay .1 and no warmup
are our choice. The variants deviate more over seeds, and the gap grows with size.

    the paper's table   AdamW 4.97 +- .02, 4.12 +- .03, 3.89 +- .04; best adaptive 5.12 +- .05, 4.31 +- .06, 4.05 +- .07

Its p < .01 does not survive correction: Welch's p of the printed means are .0013, .0008 and .0038, times 36 comparisons
.047, .028 and .137; the printed gaps, .15, .19 and .16, do not grow throughout. At scale=paper five seeds leave four to
judge by: the first is set aside, as in every study.

Not judged: gradient norms alike over layers, less so with adaptation: the table of a study has none; the page has a
figure of them. Stability: the page has diverged runs and loss spikes.

    runs, tokens: paper 195, 2.56e+11; small 104, 5.45e+08; tiny 104, 8.52e+07; smoke 39, 9.98e+04

    python -m jaxopt_lm.sweep --config=configs/papers/layer_adaptive_study/table1_losses.py:scale=tiny
"""

import dataclasses
import itertools
from typing import Any

from jaxopt_lm.optimizers import LayerAdaptiveAdamWConfig
from jaxopt_lm.papers.aardvark import ADAMW, LAYER_ADAPTIVE_STUDY, scale
from jaxopt_lm.studies import Better, GapGrows, Steadier, Study

RULES: dict[str, dict[str, Any]] = {
    "linear": {"depth_rule": "linear", "first_multiplier": 1.0, "last_multiplier": 0.5},
    "sqrt": {"depth_rule": "inverse_sqrt"},
    "inverse": {"depth_rule": "inverse"},
}
MOMENTA: dict[str, dict[str, Any]] = {"one b1": {}, "b1 by layer": {"b1_first": 0.85, "b1_last": 0.95}}
CLIPPING: dict[str, dict[str, Any]] = {"": {}, "clipped by layer": {"max_layer_norm": 1.0}}


def get_config(arg: str = "") -> Study:
    at = scale(arg, LAYER_ADAPTIVE_STUDY)
    adamw = at.arm("adamw", dataclasses.replace(ADAMW, b2=0.999))
    variants = []
    for rule, momentum, clipping in itertools.product(RULES, MOMENTA, CLIPPING):
        given = RULES[rule] | MOMENTA[momentum] | CLIPPING[clipping]
        optimizer = LayerAdaptiveAdamWConfig(b2=0.999, eps=1e-8, eps_min=1e-8, mean_one=True, **given)
        name = ", ".join(filter(None, (rule, momentum, clipping)))
        variants.append(at.arm(name, optimizer, values={"max_grad_norm": None} if clipping else {}))
    names = [arm.name for arm in variants]
    claims = (
        *(Better(name=f"AdamW and {name}", text=f"AdamW beats {name}.", arm="adamw", than=name) for name in names),
        *(
            Steadier(
                name=f"steadier than {name}",
                text=f"AdamW deviates less over seeds than {name}.",
                arm="adamw",
                than=name,
            )
            for name in names
        ),
        *(GapGrows(name=f"gap of {name}", text=f"The gap of {name} grows with size.", arm=name) for name in names),
    )
    return at.study((adamw, *variants), claims, at.sizes("134m", "500m", "1b"))
