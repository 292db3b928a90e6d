"""Many runs and what they show: which are wanted, where they are kept, who trains them, and the table of all.

    from jaxopt_lm import studies
    table = studies.load("runs/compare")

All are imported when first asked for.
"""

from typing import TYPE_CHECKING

from jaxopt_lm.lazy import lazily

if TYPE_CHECKING:
    from jaxopt_lm.studies.claims import Alike, Better, Claim, LessSensitive, OptimumMoves, SameRanking
    from jaxopt_lm.studies.claims_of_numbers import AlikeAt, LessSensitiveTo, LowerAt, SmallGain
    from jaxopt_lm.studies.claims_of_rates import Coincide, LessSensitiveIn, LowerBeside, LowerRate, OptimumAt
    from jaxopt_lm.studies.claims_of_seeds import BetterEarly, Gap, GapGrows, LowerIn, Steadier
    from jaxopt_lm.studies.study import Arm, Rules, Study, chain, over, prod, zipped
    from jaxopt_lm.studies.table import load

_LAZY = {
    "claims": ("Alike", "Better", "Claim", "LessSensitive", "OptimumMoves", "SameRanking"),
    "claims_of_numbers": ("AlikeAt", "LessSensitiveTo", "LowerAt", "SmallGain"),
    "claims_of_rates": ("Coincide", "LessSensitiveIn", "LowerBeside", "LowerRate", "OptimumAt"),
    "claims_of_seeds": ("BetterEarly", "Gap", "GapGrows", "LowerIn", "Steadier"),
    "study": ("Arm", "Rules", "Study", "chain", "over", "prod", "zipped"),
    "table": ("load",),
}

__all__ = [
    "Alike",
    "AlikeAt",
    "Arm",
    "Better",
    "BetterEarly",
    "Claim",
    "Coincide",
    "Gap",
    "GapGrows",
    "LessSensitive",
    "LessSensitiveIn",
    "LessSensitiveTo",
    "LowerAt",
    "LowerBeside",
    "LowerIn",
    "LowerRate",
    "OptimumAt",
    "OptimumMoves",
    "Rules",
    "SameRanking",
    "SmallGain",
    "Steadier",
    "Study",
    "chain",
    "load",
    "over",
    "prod",
    "zipped",
]


__getattr__ = lazily(__name__, _LAZY)
