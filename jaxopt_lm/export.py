"""Writes a run's model as a Hugging Face checkpoint folder, which transformers loads.

    python -m jaxopt_lm.export --workdir=runs/mine --out=exported/mine
    python -m jaxopt_lm.export --workdir=runs/mine --out=exported/mine_1000 --step=1000
    python -m jaxopt_lm.export --workdir=/checkpoints/run_17 --out=/models/run_17

The folder gets config.json, model.safetensors (beyond 5 GB shards and an index) and the vocabulary of the run's tokens:
tokenizer.model, and tokenizer.json, by which transformers gives the same ids. The parameters are those that the run
evaluates. A model that no published class computes is refused; query-key norm over all heads is such a part.
"""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jaxopt_lm import allocator
from jaxopt_lm.errors import quiet_orbax, report_input_errors, require
from jaxopt_lm.files import sha256_of_file

if TYPE_CHECKING:
    from jaxopt_lm.training.saved_run import SavedRun


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, and where to."""

    workdir: str
    """Folder of a run."""
    out: str
    """Folder to fill; empty, or made if missing."""
    step: int | None = None
    """Which checkpoint; None: the newest."""
    tokenizer: bool = True
    """Write the vocabulary of the run's tokens too."""


def export(config: ExportConfig) -> str:
    """Exports a run, and says in one line what was written.

    Raises:
      InputError: there is no such run or checkpoint, no class computes its model, its vocabulary is damaged or has no
        form that transformers reads, or `out` is not empty.
    """
    from jaxopt_lm.model import huggingface, num_params
    from jaxopt_lm.model.huggingface.classes import class_of
    from jaxopt_lm.optimizers import eval_params
    from jaxopt_lm.runs.read import read_config
    from jaxopt_lm.training.saved_run import read_run

    class_of(read_config(config.workdir).model)  # refused before gigabytes are read
    run = read_run(config.workdir, config.step)
    tokenizer = _tokenizer(run) if config.tokenizer else None
    name = huggingface.write(
        config.out,
        run.config.model,
        eval_params(run.state.opt_state, run.state.params),
        max_length=run.config.length,
        tokenizer=tokenizer,
    )
    gone = config.tokenizer and tokenizer is None
    without = f", without a tokenizer, for {run.config.data.tokens_dir} has no vocabulary" if gone else ""
    return f"{name}, {num_params(run.config.model):,} parameters, step {run.step}{without}: {config.out}"


def _tokenizer(run: "SavedRun") -> Path | None:
    """The vocabulary of a run's tokens, if those are still there."""
    from jaxopt_lm.data.tokens import VOCABULARY, Manifest

    folder = Path(run.config.data.tokens_dir)
    path = folder / VOCABULARY
    if not path.is_file():
        return None
    manifest = Manifest.read(folder)
    run.check_tokens(manifest)
    whole = sha256_of_file(path) == manifest.vocabulary_sha256
    require(whole, f"{path}: is damaged, its SHA-256 is not the manifest's; prepare the tokens again")
    return path


@report_input_errors
def main() -> None:
    """The command line."""
    allocator.restart()
    from jaxopt_lm import compilation_cache  # jax
    from jaxopt_lm.config_io import parse_command_line

    config = parse_command_line(ExportConfig, __doc__ or "")
    quiet_orbax()
    compilation_cache.enable()
    print(export(config))


if __name__ == "__main__":
    sys.exit(main())
