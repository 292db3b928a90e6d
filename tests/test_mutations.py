"""The tables of `tests.mutations` fit the package; and how they are read."""

import re

import pytest

from tests.mutations.pieces import Mutation, drop, in_folder, put, swap
from tests.mutations.rows import MUTATIONS
from tests.mutations.run import ROOT, Outcome, misfits, selection_of, verdict

SOURCE = '''
LIMITS = {"low": 1, "high": 12}


class Average:
    decay: float = 0.9

    @property
    def rest(self):
        """1 - decay."""
        return 1 - self.decay


def mean(x, axis=2):
    def total(y):
        return f(
            y,
            axis=0,
        ) / 2

    count = x + xs
    return g(x, xs) / 3
'''


def test_every_mutation_fits_the_package():
    """Whoever rewrites a formula mends the row that names it, in tests/mutations/rows."""
    assert misfits(ROOT) == []
    assert [m.what for m in MUTATIONS if not (ROOT / in_folder("tests", selection_of(m)[0])).exists()] == []
    assert len({m.what for m in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize(
    ("place", "change", "before", "after"),
    [
        ("LIMITS", put("1", "3"), '"low": 1', '"low": 3'),
        ("Average.decay", put("0.9", "0.5"), "0.9", "0.5"),
        ("Average.rest", put("1 -", "2 -"), "return 1 -", "return 2 -"),
        ("mean.count", put("x", "y"), "= x", "= y"),
        ("mean.total", drop(", axis=0"), ",\n            axis=0", ""),
        ("mean", put("f(y, axis=0) / 2", "y"), "f(\n            y,\n            axis=0,\n        ) / 2", "y"),
        ("mean", swap("x + xs", "3"), "x + xs\n    return g(x, xs) / 3", "3\n    return g(x, xs) / x + xs"),
        ("mean", put("x + xs", "x") + drop("/ 3"), "x + xs\n    return g(x, xs) / 3", "x\n    return g(x, xs) "),
    ],
)
def test_a_piece_is_changed_in_its_place(place, change, before, after):
    assert SOURCE.count(before) == 1
    assert Mutation(f"a.py::{place}", change, "", "").applied(SOURCE) == SOURCE.replace(before, after)


@pytest.mark.parametrize(
    ("place", "piece", "message"),
    [
        ("mean", "x", "a.py::mean: 'x' occurs 2 times, not once"),
        ("Average.rest", "decay.", "a.py::Average.rest: 'decay.' occurs 0 times, not once"),
        ("total", "y", "a.py::total: there are 0 of this name, not one"),
        ("mean.f", "y", "a.py::mean.f: there are 0 of this name, not one"),
    ],
)
def test_what_is_not_there_once_is_refused(place, piece, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Mutation(f"a.py::{place}", drop(piece), "", "").applied(SOURCE)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome(1, "test_a.py::test_b", "AssertionError: 1 != 2", ""), "test_a.py::test_b"),
        (Outcome(1, "test_a.py::test_b", "assert 1 == 2", ""), "test_a.py::test_b"),
        (Outcome(0, "", "", "1 passed"), "SURVIVED"),
        (
            Outcome(1, "test_a.py::test_b", "NameError: x", ""),
            "INVALID (pytest's exit code 1, test_a.py::test_b: NameError: x)",
        ),
        (Outcome(5, "", "", "no tests ran"), "INVALID (pytest's exit code 5, no test: no tests ran)"),
        (Outcome(-9, "", "", ""), "INVALID (pytest's exit code -9, no test: no output)"),
    ],
)
def test_only_an_assertion_that_fails_catches(outcome, expected):
    assert verdict(outcome) == expected
    assert outcome.caught == (expected == outcome.failed)
