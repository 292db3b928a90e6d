"""Figure 2: Adalayer* gives the logits of the head rates that are orders of magnitude apart.

Effective learning rates, lr / (sqrt(v) + eps), of each block over training, for Adalayer* at its best rate: those of
the head span orders of magnitude, those of the other matrices are alike, those of the norms small. The page's figure of
effective rates shows them; the run is one of Figure 9's.

Not judged: the table of a study has no effective rates. They are in the run's metrics, as quantiles by role:
telemetry/effective_learning_rate/ROLE/QUANTILE.

    runs, tokens: paper 1, 3.28e+09; small 1, 5.24e+06; tiny 1, 8.19e+05; smoke 1, 2.56e+03

    python -m jaxopt_lm.sweep --config=configs/papers/deconstructing/fig02_effective_rates.py:scale=tiny
"""

from jaxopt_lm.papers.deconstructing import scale
from jaxopt_lm.studies import Study


def get_config(arg: str = "") -> Study:
    at = scale(arg)
    return at.study((at.arm("adalayer_star", fixed=True),), at.settings("150m"), one_seed=True)
