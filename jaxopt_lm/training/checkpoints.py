"""Checkpoints of a run, by Orbax: the state and what was fed to it, saved in the background."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxopt_lm.config import CheckpointConfig


class Checkpoints:
    """The checkpoints of one run; a context manager that on leaving waits for saves under way.

    A save is a folder `checkpoints/STEP` that appears whole or not at all. Dtypes are not checked on restoring (Orbax
    casts in silence): the run's config, which decides them, is.
    """

    def __init__(self, folder: Path, config: CheckpointConfig):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=config.keep_last, keep_period=config.keep_every_steps, enable_async_checkpointing=True
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The newest finished save, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts saving; the arrays are copied before it returns. Does nothing when `step` is already saved.

        Args:
          step: later than every save so far.
          state: a pytree of arrays.
          meta: JSON values kept beside it.
        """
        if self.latest_step == step:
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        if not self._manager.save(step, args=args):
            raise RuntimeError(f"checkpoint {step} was not saved; the newest is {self.latest_step}")

    def restore(self, step: int, shapes: Any, sharding: jax.sharding.Sharding) -> tuple[Any, dict[str, Any]]:
        """The state, on `sharding`, and the meta saved at `step`; `shapes` is the state as `ShapeDtypeStruct`s."""
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=args)
        return restored["state"], restored["meta"]
