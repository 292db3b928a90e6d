"""The tokens of a run: prepared where they are missing, in a process that has TensorFlow and ends."""

import contextlib
import subprocess
import sys
from pathlib import Path

from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.data.identity import check_text
from jaxopt_lm.data.prepare import is_prepared
from jaxopt_lm.data.tokens import Manifest
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.processes import StopSignals


def ensure_tokens(config: TokensConfig, stop: StopSignals, begun: bool = False) -> bool:
    """Prepares the tokens in a child process unless `config.tokens_dir` holds them; TensorFlow stays out of this one.

    Args:
      config: of the tokens.
      stop: whether a signal has come.
      begun: whether a run has begun with them, whose checkpoints tell them apart: their text may change under it.

    Returns:
      Whether they are there; False where a signal came first, and ended the child too.

    Raises:
      InputError: the folder holds other tokens, or of a text that has changed, or they cannot be made.
    """
    if is_prepared(config):
        manifest = Manifest.read(Path(config.tokens_dir))
        if not begun or manifest.source.get("files") != config.files:
            check_text(config, manifest, sums=False)
        return True
    default = TokensConfig()
    fields = config.identity() | {"tokens_dir": config.tokens_dir}
    flags = [f"--{name}={value}" for name, value in fields.items() if value != getattr(default, name)]
    command = [sys.executable, "-m", "jaxopt_lm.prepare", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, errors = child.communicate(timeout=0.2)
                break
            if stop.received:
                child.terminate()
    if child.returncode == 2:
        raise InputError(errors.strip().splitlines()[-1].removeprefix("error: "))
    if stop.received:
        return False
    number = 2 if child.returncode == 130 else -child.returncode  # 130: a Ctrl-C that this process has not heard
    where = f"data.tokens_dir={config.tokens_dir}"
    require(number <= 0, f"{where}: preparing tokens was ended by signal {number}; run the same command again")
    if child.returncode:
        raise RuntimeError(f"preparing tokens ended with exit code {child.returncode}:\n{errors}")
    return True
