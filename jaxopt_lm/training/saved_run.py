"""Reading what a run has saved, without changing it; the run may be going on."""

import dataclasses
import os
from pathlib import Path

from jaxopt_lm.config import MeshConfig, TrainConfig
from jaxopt_lm.data.tokens import Manifest
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.runs import integrity
from jaxopt_lm.runs.checkpoints import read_checkpoint
from jaxopt_lm.runs.read import read_config, saved_steps
from jaxopt_lm.training import sharding
from jaxopt_lm.training.program import Program
from jaxopt_lm.training.step import TrainState

_ATTEMPTS = 5


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run as it was after some step.

    Attributes:
      config: of the run.
      step: after which it was saved.
      state: then, on one device.
      tokens: the digest of the manifest of the tokens it was trained on.
    """

    config: TrainConfig
    step: int
    state: TrainState
    tokens: str

    def check_tokens(self, manifest: Manifest) -> None:
        """Raises `InputError` unless the tokens in the folder that the config names are those of the run."""
        require(
            manifest.has_digest(self.tokens),
            f"data.tokens_dir={self.config.data.tokens_dir}: not the tokens that the run was trained on; put them back",
        )


def read_run(workdir: str | os.PathLike, step: int | None = None) -> SavedRun:
    """Reads a checkpoint of a run.

    Args:
      workdir: folder of the run.
      step: which checkpoint; None: the newest.

    Raises:
      InputError: there is no such run or checkpoint, or it is damaged.
    """
    config, folder = read_config(workdir), Path(workdir, "checkpoints")
    target = Program.of(config, sharding.make_mesh(MeshConfig(data=1))).layout
    for _ in range(_ATTEMPTS):
        newest = _sound_step(workdir, folder, step)
        if newest is None:
            continue
        try:
            state, meta = read_checkpoint(folder, newest, target)
            return SavedRun(config, newest, state, meta["tokens"])
        except Exception:
            if (folder / str(newest)).exists():
                raise
    raise InputError(
        f"workdir={workdir}: its checkpoints are deleted while they are read; train with a larger "
        "checkpoint.keep_last, or wait"
    )


def _sound_step(workdir: str | os.PathLike, folder: Path, step: int | None) -> int | None:
    """The step to read, checked; None where it was deleted meanwhile, as a run that goes on deletes its oldest."""
    steps = saved_steps(folder)
    require(bool(steps), f"workdir={workdir}: holds no checkpoint; train it first")
    step = steps[-1] if step is None else step
    require(step in steps, f"step={step}: {folder} has {', '.join(map(str, steps))}; give one of these")
    reason = integrity.damage(folder / str(step))
    if not (folder / str(step)).exists():
        return None
    if reason is not None:
        sound = next((s for s in reversed(steps) if s < step and integrity.damage(folder / str(s)) is None), None)
        mend = "no older one is whole" if sound is None else f"give --step={sound}"
        raise InputError(f"{folder / str(step)}: {reason}; {mend}")
    return step
