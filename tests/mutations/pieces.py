"""How a wrong formula is written down: a place in the package, and which pieces of its code become others.

A *place* is `FILE::NAME`, NAME that of a function, a class or a variable, after dots where it is in another. A *piece*
is some of the code there, as short as it may be and still occur once. Signatures, decorators and docstrings are none of
that code. How it is laid out does not matter, and no name is found inside a longer one. So a table outlives whatever
leaves its formulas alone, and a piece that is no longer found is refused.
"""

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

Change = tuple[tuple[str, str], ...]
"""Pieces and what they become; changes add up."""
Rows = dict[str, list[tuple[Change, str, str]]]
"""By place: change, what is wrong, tests, as `Mutation` has them."""


def put(piece: str, other: str) -> Change:
    """One piece becomes another."""
    return ((piece, other),)


def drop(piece: str) -> Change:
    """A piece goes."""
    return put(piece, "")


def swap(piece: str, other: str) -> Change:
    """Two pieces change places."""
    return put(piece, other) + put(other, piece)


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One wrong formula.

    Attributes:
      place: the file is in jaxopt_lm; in jaxopt_lm/optimizers where it names no folder.
      change: of the pieces there.
      what: what is wrong now.
      tests: `FILE -k EXPRESSION`, the file in tests, likewise: tests quick to run, of which one must fail.
    """

    place: str
    change: Change
    what: str
    tests: str

    @property
    def file(self) -> str:
        """Its path in the project."""
        return in_folder("jaxopt_lm", self.place.partition("::")[0])

    def applied(self, source: str) -> str:
        """The file's text with the formula wrong.

        Raises:
          ValueError: the place, or a piece in it, is not there exactly once.
        """
        lines = source.splitlines(keepends=True)
        first, end = _lines(_parsed(source), self.place)
        text, found = "".join(lines[first:end]), []
        for piece, other in self.change:
            spans = [match.span() for match in re.finditer(_pattern(piece), text)]
            if len(spans) != 1:
                raise ValueError(f"{self.place}: {piece!r} occurs {len(spans)} times, not once")
            found.append((*spans[0], other))
        for start, stop, other in sorted(found, reverse=True):
            text = text[:start] + other + text[stop:]
        return "".join((*lines[:first], text, *lines[end:]))


def in_folder(folder: str, file: str) -> str:
    """The path of a mutation's file or tests: in the folder `optimizers` unless they name another."""
    return f"{folder}/{file}" if "/" in file else f"{folder}/optimizers/{file}"


_parsed = functools.cache(ast.parse)


def _lines(module: ast.Module, place: str) -> tuple[int, int]:
    """From which line up to which the code of a place goes, counted from 0."""
    nodes: list[Any] = [module]
    for name in place.partition("::")[2].split("."):
        nodes = [child for node in nodes for found, child in _defined(node) if found == name]
    if len(nodes) != 1:
        raise ValueError(f"{place}: there are {len(nodes)} of this name, not one")
    code: list[Any] = nodes
    if isinstance(nodes[0], ast.FunctionDef | ast.ClassDef):
        code = nodes[0].body[ast.get_docstring(nodes[0]) is not None :]
    return code[0].lineno - 1, code[-1].end_lineno


def _defined(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(Name, node) of what is defined in a node, but not in another definition there."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, child
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, child
            case _:
                yield from _defined(child)


def _pattern(piece: str) -> str:
    """What finds a piece however it is laid out."""
    words = re.findall(r"\w+|[^\w\s]", piece)
    starts, ends = (r"\b" * bool(re.match(r"\w", word)) for word in (words[0], words[-1]))
    return starts + r"\s*".join(r"(?:,\s*)?" * (word in ")]}") + re.escape(word) for word in words) + ends
