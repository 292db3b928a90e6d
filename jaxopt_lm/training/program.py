"""A run's compiled functions. They depend on the structure of its config and on the mesh; numbers are their arguments.

Two runs of one process whose configs differ in nothing but numbers (rates, betas, seeds, lengths of the schedule) have
the same `Program`, and what one of them has compiled serves the other. Programs are kept until the process ends;
`jax.clear_caches()` frees what they have compiled.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxopt_lm import model
from jaxopt_lm.config import TrainConfig
from jaxopt_lm.optimizers import eval_params
from jaxopt_lm.training import population, sharding
from jaxopt_lm.training.step import HParams, TrainState, init_state, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What runs on the devices; jitted, compiled when first called with arguments of some shapes.

    With `members`, all are of a population: see `population.stack` for its `HParams`.

    Attributes:
      mesh: the devices.
      members: of a population; None: one run.
      layout: the state with a `jax.ShapeDtypeStruct`, that has its sharding, in place of each array.
      init: `init(hparams, params=None) -> state`: the state before the first step, of parameters drawn by the seed in
        `hparams`, or of these; made where `layout` says, never whole on one device of many.
      step: `step(state, batch, hparams) -> (state, metrics)`, see `make_train_step`; the state is donated.
      telemetry_step: the same with the optimizer's telemetry among the metrics.
      eval_params: `eval_params(state) -> params`: those that are to be evaluated, see `optimizers.eval_params`.
      evaluate: `evaluate(params, batch) -> (sum of cross-entropy in nats, number of targets)`.
    """

    mesh: jax.sharding.Mesh
    members: int | None
    layout: TrainState
    init: jax.stages.Wrapped
    step: jax.stages.Wrapped
    telemetry_step: jax.stages.Wrapped
    eval_params: Callable[[TrainState], Any]
    evaluate: jax.stages.Wrapped

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        mesh: jax.sharding.Mesh | None = None,
        token_counts: np.ndarray | None = None,
        members: int | None = None,
    ) -> "Program":
        """The program of a config's structure, the same object for every config that shares it.

        Args:
          config: of a run; what is not structure is not looked at.
          mesh: the devices; None: those that the config asks for.
          token_counts: occurrences of every vocabulary entry in the training text, for telemetry by frequency.
          members: of a population; None: one run.

        Raises:
          InputError: a mesh axis does not divide an axis of a parameter, or float64 is asked for and jax has none.
        """
        mesh = sharding.make_mesh(config.mesh) if mesh is None else mesh
        hparams = HParams.of(config)
        counts = None if token_counts is None else (token_counts.dtype.str, token_counts.tobytes())
        structure = jax.tree.structure(hparams)
        # By its representation too: 1 and True are equal, and are other structures.
        key = (config.model, config.num_microbatches, counts, structure, repr((config.model, structure)), mesh)
        key = *key, members, jax.config.read("jax_enable_x64")
        if key not in _built:
            _built[key] = _build(config.model, config.num_microbatches, token_counts, hparams, mesh, members)
        return _built[key]


_built: dict[Any, Program] = {}


def _build(
    decoder: model.ModelConfig,
    num_microbatches: int,
    token_counts: np.ndarray | None,
    hparams: HParams,
    mesh: jax.sharding.Mesh,
    members: int | None,
) -> Program:
    """`hparams`: of any numbers, which are traced."""
    place = sharding.placement(mesh)
    init = functools.partial(init_state, decoder)
    layout = sharding.layout(decoder, mesh, functools.partial(jax.jit(init), hparams))
    step = make_train_step(decoder, num_microbatches, place)
    telemetry_step = make_train_step(decoder, num_microbatches, place, telemetry=True, token_counts=token_counts)
    evaluate, params_of = make_eval_step(decoder, place), _eval_params
    if members is not None:
        axes = population.axes(layout)
        init = population.init_of_all(init, layout, members)
        step, telemetry_step = (population.step_of_all(f, layout, members) for f in (step, telemetry_step))
        params_of = jax.vmap(params_of, in_axes=(axes,))
        evaluate = jax.vmap(evaluate, in_axes=(0, None), out_axes=(0, None))
        layout = jax.tree.map(functools.partial(sharding.with_members, members), layout, axes)
    everywhere = sharding.replicated(mesh)
    where = sharding.shardings(layout)
    jit_step = functools.partial(jax.jit, donate_argnums=0, out_shardings=(where, everywhere))
    return Program(
        mesh=mesh,
        members=members,
        layout=layout,
        init=jax.jit(init, out_shardings=where),
        step=jit_step(step),
        telemetry_step=jit_step(telemetry_step),
        eval_params=params_of,
        evaluate=jax.jit(evaluate, out_shardings=everywhere),
    )


def _eval_params(state: TrainState) -> Any:
    return eval_params(state.opt_state, state.params)
