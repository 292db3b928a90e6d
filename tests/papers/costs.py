"""Writes the line of costs in the docstring of every study of configs/papers, which a test compares.

python -m tests.papers.costs
"""

import functools
import re
from pathlib import Path

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.config_io import load_as
from jaxopt_lm.papers.scales import SCALES
from jaxopt_lm.studies import Study
from jaxopt_lm.studies.estimate import planned
from jaxopt_lm.studies.study import Run, run_id
from tests.write_config_dumps import ROOT

PAPERS = ROOT / "configs" / "papers"
FILES = sorted(path.relative_to(PAPERS).with_suffix("").as_posix() for path in PAPERS.rglob("*.py"))
"""`deconstructing/fig01_learning_rate`."""

HEAD = "    runs, tokens:"


@functools.cache
def study(name: str, scale: str) -> Study:
    """The study of a file at a scale."""
    return load_as(Study, f"{PAPERS / name}.py:scale={scale}")


@functools.cache
def tokens_of_runs(name: str, scale: str) -> dict[str, int]:
    """Tokens by id of every run that is planned, each once, where each best rate is inside its first grid."""
    asked = study(name, scale)
    configs = map(asked.config, planned(asked))
    return {run_id(config): config.num_train_tokens for config in configs}


def config_of(asked: Study, arm: str, setting: str | None = None, seed: int = 0) -> TrainConfig:
    """The config of a run at the arm's lowest rate, in the first setting unless one is named."""
    first = asked.setting_names[0] if setting is None else setting
    return asked.config(Run(first, arm, (), asked.arm(arm).learning_rates[0], seed))


def cost_line(name: str) -> str:
    """`    runs, tokens: paper 180, 2.21e+12; small …`."""
    costs = {scale: tokens_of_runs(name, scale) for scale in SCALES}
    each = "; ".join(f"{scale} {len(runs)}, {sum(runs.values()):.3g}" for scale, runs in costs.items())
    return f"{HEAD} {each}"


def docstring_line(path: Path) -> str:
    """The line that a file has."""
    return next(line for line in path.read_text().splitlines() if line.startswith(HEAD))


if __name__ == "__main__":
    for name in FILES:
        path = PAPERS / f"{name}.py"
        path.write_text(re.sub(rf"^{HEAD}.*$", cost_line(name), path.read_text(), count=1, flags=re.MULTILINE))
