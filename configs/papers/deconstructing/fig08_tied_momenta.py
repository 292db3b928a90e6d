"""Figure 8: AdamW with b1 = b2 behaves as Signum; with b2 fixed it is less sensitive to b1 than Signum.

Figure 6's values and settings: AdamW with b2 = .95, AdamW with b1 = b2, Signum, at their best rates, which Figure 1's
and 4's runs tell. AdamW and Signum are Figure 6's runs.

    runs, tokens: paper 108, 4.72e+11; small 150, 1.05e+09; tiny 150, 1.64e+08; smoke 24, 6.14e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig08_tied_momenta.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import MOMENTA, WITHOUT, scale
from jaxopt_lm.studies import AlikeAt, LessSensitiveTo, Study

TIED = "adamw, b1 = b2"


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    values = at.values(*MOMENTA)
    arms = (
        at.arm("adamw", nuisance=(("b1", values),)),
        at.arm("adamw", name=TIED, nuisance=(("b1=b2", values),)),
        at.arm("signum", nuisance=(("b1", values),)),
    )
    claims = (
        AlikeAt(
            name="tied",
            text="AdamW with b1 = b2 does as Signum.",
            arms=(TIED, "signum"),
            values=tuple(value for value in values if value != 0.9),  # Signum's own
            within=at.alike,
            noise=at.seed_noise,
        ),
        LessSensitiveTo(
            name="b2 fixed",
            text="With b2 fixed, AdamW is less sensitive to b1 than Signum.",
            arm="adamw",
            than="signum",
            noise=at.seed_noise,
        ),
    )
    return at.study(arms, (*at.settings("150m", variants=({}, WITHOUT)), *at.settings("300m")), claims)
