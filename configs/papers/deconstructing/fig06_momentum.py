"""Figure 6: all but SGD do alike with b1 from .8 to .98; SGD is the most sensitive.

b1 over seven values (SGD's momentum likewise) at each optimizer's best rate, which Figure 1's and 4's runs tell, in
three settings: 150m, 150m without QK norm and z-loss, 300m. Above .98 Lion is the best; below .8 AdamW and Adafactor
are, and Lion and Signum are more sensitive. At .9, all but SGD's own, it is Figure 1's comparison.

    runs, tokens: paper 225, 9.83e+11; small 195, 1.36e+09; tiny 195, 2.13e+08; smoke 30, 7.68e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig06_momentum.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import ADAPTIVE, FIVE, MOMENTA, WITHOUT, scale
from jaxopt_lm.studies import AlikeAt, LowerAt, Study

LOW, USUAL, HIGH = (0.0, 0.5), (0.8, 0.95, 0.98), (0.99,)


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    arms = tuple(
        at.arm(name, nuisance=(("momentum" if name == "sgdw" else "b1", at.values(*MOMENTA)),)) for name in FIVE
    )
    noise = at.seed_noise
    alike = AlikeAt(
        name="alike",
        text="From .8 to .98 all but SGD do alike.",
        arms=ADAPTIVE,
        values=USUAL,
        within=at.alike,
        noise=noise,
    )
    high = (
        LowerAt(
            name=f"high, {arm}",
            text=f"Above, Lion is better than {arm}.",
            arm="lion",
            than=arm,
            values=HIGH,
            noise=noise,
        )
        for arm in ("adamw", "adafactor", "signum")
    )
    low = (
        LowerAt(
            name=f"low, {arm}", text=f"Below, {arm} is better than Lion.", arm=arm, than="lion", values=LOW, noise=noise
        )
        for arm in ("adamw", "adafactor")
    )
    settings = (*at.settings("150m", variants=({}, WITHOUT)), *at.settings("300m"))
    return at.study(arms, settings, (alike, *at.sgd_is_most_sensitive(), *high, *low), one_seed=True)
