"""Wrong formulas, in files like those of the package, each a table from a place to what may be wrong there."""

from tests.mutations.pieces import Mutation
from tests.mutations.rows import adam, model, momentum, optax_shelf, second_order, shared, studies, training

MUTATIONS = tuple(
    Mutation(place, *row)
    for table in (adam, momentum, second_order, optax_shelf, shared, model, training, studies)
    for place, rows in table.ROWS.items()
    for row in rows
)
