"""Reading what a run has saved, without changing it; the run may be going on."""

import dataclasses
import os
from pathlib import Path

import jax

from jaxopt_lm.config import MeshConfig, TrainConfig
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.training import integrity, sharding
from jaxopt_lm.training.checkpoints import read_checkpoint, saved_steps
from jaxopt_lm.training.run import read_config
from jaxopt_lm.training.step import HParams, TrainState, init_state


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run as it was after some step.

    Attributes:
      config: of the run.
      step: after which it was saved.
      state: then, on one device.
    """

    config: TrainConfig
    step: int
    state: TrainState


def read_run(workdir: str | os.PathLike, step: int | None = None) -> SavedRun:
    """Reads a checkpoint of a run.

    Args:
      workdir: folder of the run.
      step: which checkpoint; None: the newest.

    Raises:
      InputError: there is no such run or checkpoint, or it is damaged.
    """
    config, folder = read_config(workdir), Path(workdir, "checkpoints")
    steps = saved_steps(folder)
    require(bool(steps), f"workdir={workdir}: holds no checkpoint; train it first")
    step = steps[-1] if step is None else step
    require(step in steps, f"step={step}: {folder} has {', '.join(map(str, steps))}; give one of these")
    reason = integrity.damage(folder / str(step))
    if reason is not None:
        sound = next((s for s in reversed(steps) if s < step and integrity.damage(folder / str(s)) is None), None)
        mend = "no older one is whole" if sound is None else f"give --step={sound}"
        raise InputError(f"{folder / str(step)}: {reason}; {mend}")
    shapes = jax.eval_shape(lambda: init_state(config.model, HParams.of(config), jax.random.key(0)))
    one_device = sharding.replicated(sharding.make_mesh(MeshConfig(data=1)))
    state, _ = read_checkpoint(folder, step, shapes, one_device)
    return SavedRun(config, step, state)
