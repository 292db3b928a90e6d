"""Table 1: the best rates of AdamW and Adafactor are alike, those of Lion and Signum ten times lower.

From Figure 1's runs without SGD. The rates themselves are judged at paper's scale alone: 3.16e-3 for AdamW and
Adafactor at 150m, then 1e-3; 3.16e-4 for Lion, 1e-4 at 1.2b; 3.16e-4 for Signum. A best rate is known to half the
grid's ratio, 10^.25 either way.

    runs, tokens: paper 144, 1.77e+12; small 56, 4.4e+08; tiny 56, 6.88e+07; smoke 4, 1.02e+04

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/table1_best_rates.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import ADAPTIVE, SIZES, scale
from jaxopt_lm.studies import Claim, LowerRate, OptimumAt, OptimumMoves, Study

TABLE = {
    "adamw": (3.16e-3, 1e-3, 1e-3, 1e-3),
    "adafactor": (3.16e-3, 1e-3, 1e-3, 1e-3),
    "lion": (3.16e-4, 3.16e-4, 3.16e-4, 1e-4),
    "signum": (3.16e-4, 3.16e-4, 3.16e-4, 3.16e-4),
}
"""The paper's, by size."""

HALF = 10**0.25
"""How well a grid of ratio sqrt(10) tells a rate."""


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    claims: list[Claim] = [
        LowerRate(name=f"{arm} is lower", text=f"{arm}'s best rate is below AdamW's.", arm=arm, factor=HALF)
        for arm in ("lion", "signum")
    ]
    for arm, rates in TABLE.items():
        moves = max(rates) / min(rates) * HALF
        text = f"{arm}'s best rate moves by a factor of {moves / HALF:.3g} at most."
        claims.append(OptimumMoves(name=f"{arm} moves little", text=text, arm=arm, at_most=moves))
        if at.name == "paper":
            claims += [_at(arm, size, rate) for size, rate in zip(SIZES, rates, strict=True)]
    return at.study(at.arms(*ADAPTIVE), at.settings(*SIZES), tuple(claims), one_seed=True)


def _at(arm: str, size: str, rate: float) -> OptimumAt:
    text = f"{arm}'s best rate at {size} is {rate:g}."
    return OptimumAt(name=f"{arm} at {size}", text=text, arm=arm, learning_rate=rate, within=HALF, across=(size,))
