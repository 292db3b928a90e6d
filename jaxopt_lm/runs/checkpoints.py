"""Checkpoints of a run, by Orbax: the state and what was fed to it, saved in the background, with checksums."""

import itertools
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxopt_lm import processes
from jaxopt_lm.config import CheckpointConfig
from jaxopt_lm.errors import InputError, mend_of
from jaxopt_lm.runs import integrity
from jaxopt_lm.runs.read import saved_steps

DAMAGED = "damaged"


class Checkpoints:
    """The checkpoints of one run; a context manager that on leaving waits for saves under way.

    A save is a folder `checkpoints/STEP` that appears whole or not at all, with its checksums. The newest are checked
    on opening: damaged ones are moved to `damaged/` beside the folder. Dtypes are not checked on restoring (Orbax casts
    in silence): the run's config, which decides them, is.

    Args:
      folder: `checkpoints` of a run.
      config: which saves stay.

    Attributes:
      moved: a line about each checkpoint that was found damaged.
    """

    def __init__(self, folder: Path, config: CheckpointConfig):
        self._folder = folder.absolute()
        with processes.together():
            self.moved = self._move_damaged() if processes.is_primary() else []
        self._saving: int | None = None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=config.keep_last,
            keep_period=config.keep_every_steps,
            enable_async_checkpointing=True,
            async_options=ocp.options.AsyncOptions(
                post_finalization_callback=self._sign,
                barrier_sync_fn=_barrier if jax.process_count() > 1 else None,
            ),
        )
        self._manager = _Manager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None and jax.process_count() > 1:
            return  # a save under way waits for the others, which may be waiting for this process
        try:
            self._manager.wait_until_finished()
        except (ValueError, OSError) as error:
            raise self._not_written(error) from None
        finally:
            self._manager.close()
        self._seal()

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

        Raises:
          InputError: this save, or the one before, cannot be written: the disk is full.
        """
        if self.latest_step == step:
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(_filled(state)), meta=ocp.args.JsonSave(meta))
        try:
            self._manager.wait_until_finished()
            self._seal()
            self._saving = step
            saved = self._manager.save(step, args=args)
        except (ValueError, OSError) as error:
            raise self._not_written(error) from None
        if not saved:
            raise RuntimeError(f"checkpoint {step} was not saved; the newest is {self.latest_step}")

    def restore(self, step: int, target: Any) -> tuple[Any, dict[str, Any]]:
        """The state and the meta saved at `step`; `target` is the state as `ShapeDtypeStruct`s with shardings."""
        return _restore(self._manager, step, target)

    def _move_damaged(self) -> list[str]:
        """Moves the newest checkpoints away until one is sound; a line about each."""
        lines = []
        for step in reversed(saved_steps(self._folder)):
            folder = self._folder / str(step)
            reason = integrity.damage(folder)
            if reason is None:
                break
            places = (self._folder.parent / DAMAGED / f"{step}.{number}" for number in itertools.count(1))
            place = next(place for place in places if not place.exists())
            place.parent.mkdir(exist_ok=True)
            shutil.move(folder, place)
            lines.append(f"checkpoint {step} of {self._folder.parent}: {reason}; moved to {place}")
        return lines

    def _sign(self) -> None:
        """Called by Orbax when all files of a save are written and before it is committed."""
        integrity.sign(self._folder / f"{self._saving}.orbax-checkpoint-tmp")

    def _seal(self) -> None:
        for step in saved_steps(self._folder) if processes.is_primary() else ():
            integrity.seal(self._folder / str(step))

    def _not_written(self, error: Exception) -> Exception:
        """What a full disk or the like raises becomes an `InputError`; any other error stays what it is."""
        code = re.search(r"os_error_code='(\d+)'", str(error))
        number = error.errno if isinstance(error, OSError) else int(code[1]) if code else None
        if number is None:
            return error
        kept = f"that of step {saved[-1]} is whole" if (saved := saved_steps(self._folder)) else "there is none yet"
        return InputError(
            f"{self._folder}: a checkpoint cannot be written: {os.strerror(number)}; {kept}; " + mend_of(number)
        )


class _Manager(ocp.CheckpointManager):
    """Leaves JAX's preemption service alone: it counts the polls of training, and a step would upset its count."""

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


def _barrier(*, key: str, timeout_ms: int) -> None:
    """Where the processes of a save wait for each other: not one that has failed at it, which would never say so."""
    if (error := sys.exception()) is not None:
        raise error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def read_checkpoint(folder: Path, step: int, target: Any) -> tuple[Any, dict[str, Any]]:
    """`Checkpoints.restore` for a process that does not train."""
    with ocp.CheckpointManager(folder.absolute(), options=ocp.CheckpointManagerOptions(create=False)) as manager:
        return _restore(manager, step, target)


def _restore(manager: ocp.CheckpointManager, step: int, target: Any) -> tuple[Any, dict[str, Any]]:
    args = ocp.args.Composite(state=ocp.args.StandardRestore(_filled(target)), meta=ocp.args.JsonRestore())
    restored = manager.restore(step, args=args)

    def emptied(x: Any, wanted: jax.ShapeDtypeStruct) -> jax.Array:
        return x if wanted.size else jnp.zeros(wanted.shape, wanted.dtype, device=wanted.sharding)

    return jax.tree.map(emptied, restored["state"], target), restored["meta"]


def _filled(tree: Any) -> Any:
    """The tree with a number in place of every array of size zero, which Orbax refuses; Adafactor's state has such."""
    return jax.tree.map(lambda x: x if x.size else np.zeros(1, x.dtype), tree)
