"""Runs of one structure side by side in one program: a *population*, whose arrays have a member axis in front.

Counters, the integer scalars of a state, are those of all members and have none. A conditional on one, Sophia's every
k-th step say, then stays a conditional under `vmap`; batched, it would become a select, computed at every step. An
optimizer that counts what depends on a member's numbers, its steps without finite gradients say, has no population.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.training.step import HParams

_T = TypeVar("_T")


def stack(members: Sequence[_T]) -> _T:
    """The members' trees, `HParams` or states of the same step, as one of a population, with arrays of its own.

    Every leaf [...] becomes [members, ...], but for integer scalars that are equal in all: they stay one, the seed of
    `HParams` apart. Numbers that differ only as integers do not (durations in steps) have a member axis too, and what
    branches on one of them is computed at every step.

    Raises:
      InputError: the trees differ in structure, or are states of different steps.
    """
    same = all(jax.tree.structure(tree) == jax.tree.structure(members[0]) for tree in members)
    require(same, "population: its members differ in more than numbers; give them one structure")
    together: Any = jax.tree.map(_stacked, *members)
    if isinstance(members[0], HParams):
        return together._replace(seed=jnp.stack([jnp.asarray(each.seed) for each in members]))  # pyright: ignore[reportAttributeAccessIssue]
    for (path, x), first in zip(jax.tree.leaves_with_path(together), jax.tree.leaves(members[0]), strict=True):
        if _is_counter(first) and x.ndim:
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(f"population: {where} is {x.tolist()} in its members; give states of the same step")
    return together


def _stacked(*xs: Any) -> jax.Array:
    arrays = [jnp.asarray(x) for x in xs]
    shared = _is_counter(arrays[0]) and all(int(x) == int(arrays[0]) for x in arrays)
    return arrays[0].copy() if shared else jnp.stack(arrays)


def member(population: _T, index: int) -> _T:
    """One member of a population's tree, of its state, metrics or `HParams`, with arrays of its own."""
    return jax.tree.map(lambda x: x.copy() if x.ndim == 0 else x[index], population)


def _is_counter(x: Any) -> bool:
    return x.ndim == 0 and jnp.issubdtype(x.dtype, jnp.integer)


def axes(member_state: Any) -> Any:
    """The tree with 0 in place of each array that a population has one of for every member, None for its counters."""
    return jax.tree.map(lambda x: None if _is_counter(x) else 0, member_state)


def init_of_all(init: Callable[..., Any], member_state: Any, members: int) -> Callable[..., Any]:
    """`init(hparams, params)` of a population, from that of one member, whose state's shapes are given."""

    def init_all(hparams: HParams, params: Any = None) -> Any:
        return jax.vmap(init, in_axes=(_given(hparams, members), None), out_axes=axes(member_state))(hparams, params)

    return init_all


def step_of_all(step: Callable[..., Any], member_state: Any, members: int) -> Callable[..., Any]:
    """`step(state, batch, hparams)` of a population, whose members share the batch, likewise."""
    kept = axes(member_state)

    def step_all(state: Any, batch: Any, hparams: HParams) -> Any:
        return jax.vmap(step, in_axes=(kept, None, _given(hparams, members)), out_axes=(kept, 0))(state, batch, hparams)

    return step_all


def _given(hparams: HParams, members: int) -> Any:
    """The axes of a population's `HParams`; raises `InputError` where they are not of so many members."""
    found = next((len(x) for x in jax.tree.leaves(hparams) if x.ndim), "one run")
    require(found == members, f"hparams: are of {found}, the program is of {members} members; see population.stack")
    return jax.tree.map(lambda x: 0 if x.ndim else None, hparams)
