"""Writes docs/optimizers.md, the convention cards: python -m jaxopt_lm.optimizers > docs/optimizers.md."""

import sys

from jaxopt_lm.optimizers import OPTIMIZERS
from jaxopt_lm.optimizers.describe import cards_table

if __name__ == "__main__":
    sys.stdout.write(cards_table(OPTIMIZERS))
