"""Every kind of claim by its name, as a study's dump has it."""

from jaxopt_lm.studies.claims import Alike, Better, Claim, LessSensitive, OptimumMoves, SameRanking

KINDS: dict[str, type[Claim]] = {
    kind.__name__: kind for kind in (Better, Alike, SameRanking, LessSensitive, OptimumMoves)
}
