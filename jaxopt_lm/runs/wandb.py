"""Metrics in Weights & Biases, where it is installed and asked for."""

import importlib
import os
import secrets
from pathlib import Path
from typing import Any

from jaxopt_lm.errors import InputError
from jaxopt_lm.files import write_atomically


class WandbLog:
    """A run in Weights & Biases; going on with a run's folder goes on with it there.

    The environment decides the rest, as always with wandb: with WANDB_MODE=offline all is kept in `wandb/` below the
    folder, for `wandb sync`.

    Args:
      folder: of the run; `wandb_id` in it names the run there.
      project: in Weights & Biases.
      config: of the run, as JSON values.

    Raises:
      InputError: wandb is not installed, or cannot start (no login, no network).
    """

    def __init__(self, folder: Path, project: str, config: dict[str, Any]):
        try:
            wandb = importlib.import_module("wandb")
        except ImportError:
            raise InputError(
                f"logging.wandb_project={project}: wandb is not installed; pip install 'jaxopt_lm[wandb]'"
            ) from None
        name = folder / "wandb_id"
        if not name.exists():
            write_atomically(name, secrets.token_hex(8).encode())
        offline = os.environ.get("WANDB_MODE") == "offline"  # where it knows of no run to resume
        try:
            self._run = wandb.init(
                project=project,
                id=name.read_text(),
                name=folder.name,
                dir=folder,
                config=config,
                resume=None if offline else "allow",
                settings=wandb.Settings(console="off", silent=True),
            )
        except (wandb.Error, OSError) as error:
            raise InputError(
                f"logging.wandb_project={project}: wandb cannot start: {error}; wandb login, or WANDB_MODE=offline"
            ) from None
        self._run.define_metric("*", step_metric="step")  # after a resume, lines of lost work come again

    def write(self, line: dict[str, Any]) -> None:
        """Logs one line of metrics."""
        self._run.log(line)

    def close(self) -> None:
        """Returns when all is sent, or written."""
        self._run.finish()
