"""Rows of tables, by what is in them; pandas has no types for this, so it is said here once."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from jaxopt_lm.studies.choice import TUNING_SEED

ENDED = ("completed", "diverged")
"""Status of runs that have a result."""


def only(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows whose columns have these values; of a tuple, any of them."""
    kept: Any = frame
    for name, value in values.items():
        kept = kept[kept[name].isin(value if isinstance(value, tuple) else (value,))]
    return kept


def fresh_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of all seeds but the tuning seed."""
    return only(frame, seed=tuple(set(frame.seed) - {TUNING_SEED}))


def rows(frame: pd.DataFrame) -> Iterator[Any]:
    """Its rows, with the columns as attributes."""
    return iter(frame.itertuples(index=False))


def groups(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """(value, rows) for each value of a column, or tuple of values of several, in the order in which they come."""
    keys: Any = columns[0] if len(columns) == 1 else list(columns)
    return iter(frame.groupby(keys, sort=False))


def distinct(frame: pd.DataFrame, column: str) -> list[str]:
    """The values of a column in the order in which they come, each once."""
    return list(dict.fromkeys(frame[column]))


def table(found: Any, columns: str) -> pd.DataFrame:
    """A table of tuples, `columns` apart by blanks; with no tuple it has the columns all the same."""
    return pd.DataFrame(list(found), columns=columns.split())  # pyright: ignore[reportArgumentType]
