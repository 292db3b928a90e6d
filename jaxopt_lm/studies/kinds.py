"""Every kind of claim by its name, as a study's dump has it."""

from jaxopt_lm.studies.claims import Alike, Better, Claim, LessSensitive, OptimumMoves, SameRanking
from jaxopt_lm.studies.claims_of_numbers import AlikeAt, LessSensitiveTo, LowerAt, SmallGain
from jaxopt_lm.studies.claims_of_rates import Coincide, LessSensitiveIn, LowerBeside, LowerRate, OptimumAt
from jaxopt_lm.studies.claims_of_seeds import BetterEarly, Gap, GapGrows, LowerIn, Steadier

KINDS: dict[str, type[Claim]] = {
    kind.__name__: kind
    for kind in (
        *(Better, Alike, SameRanking, LessSensitive, OptimumMoves),
        *(LowerAt, AlikeAt, LessSensitiveTo, SmallGain),
        *(Coincide, LowerBeside, LowerRate, OptimumAt, LessSensitiveIn),
        *(Gap, BetterEarly, LowerIn, Steadier, GapGrows),
    )
}
