"""From the folder of a study to what its page says."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from jaxopt_lm.dumps import flat, to_dict
from jaxopt_lm.runs.machine import versions
from jaxopt_lm.runs.read import read_history, read_machines
from jaxopt_lm.studies import hardware
from jaxopt_lm.studies.claims import Judgement
from jaxopt_lm.studies.coordinate import progress
from jaxopt_lm.studies.findings import Report
from jaxopt_lm.studies.frames import ENDED, only
from jaxopt_lm.studies.search import choices
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Study
from jaxopt_lm.studies.table import table
from jaxopt_lm.studies.tuned import tuned
from jaxopt_lm.studies.verdicts import Verdict, verdicts

_OF_VERDICTS = ("setting", "arm", "kind", "difference", "low", "high", "p", "n", "seeds_needed", "sentence")
_PACKAGES = ("jaxopt_lm", "jax", "jaxlib", "optax", "flax", "numpy")


def collect(folder: str | os.PathLike) -> Report:
    """What is known so far of the study in `folder`; executes the sources of a user's own optimizers that it keeps.

    Args:
      folder: of the study, which may be running.

    Raises:
      InputError: the folder holds no study, or a file of it is damaged.
    """
    path = Path(folder)
    store = Store.read(path)
    study, at = store.study, progress(store)
    runs = table(store, at.runs)
    chosen, baseline = choices(study, at.losses), study.baseline.name
    kinds = Counter(hardware.kind(read_machines(path / "runs" / name)) for name in only(runs, status=ENDED).id)
    config = {"Config": dict(flat(to_dict(study.base)))}
    judged = [claim.judge(runs, chosen, baseline) for claim in study.claims]
    return Report(
        name=path.resolve().name,
        asked=_asked(study),
        baseline=baseline,
        arms=[arm.name for arm in study.arms],
        table=runs,
        choices=tuned(study, at.losses, chosen),
        verdicts=verdict_table(verdicts(runs, chosen, baseline, study.rules.level)),
        claims=pd.DataFrame(judged, columns=list(Judgement._fields)),  # pyright: ignore[reportArgumentType]
        history=lambda name: read_history(path / "runs" / name),
        facts=hardware.facts(kinds) | config | {"Drawn with": versions(*_PACKAGES)},
        one_machine=len(kinds) < 2,
        running=bool(at.open),
        level=study.rules.level,
    )


def _asked(study: Study) -> str:
    arms, settings = len(study.arms), len(study.settings)
    where = f" in {settings} settings" if settings > 1 else ""
    steps = f"{study.base.num_train_steps:,} steps"
    return f"{arms} optimizers{where}: whose loss is least after {steps}, each at its best learning rate?"


def verdict_table(found: Sequence[Verdict]) -> pd.DataFrame:
    """Verdicts as a `Report` has them."""
    rows = [[getattr(verdict, name) for name in _OF_VERDICTS] for verdict in found]
    return pd.DataFrame(rows, columns=list(_OF_VERDICTS))  # pyright: ignore[reportArgumentType]
