"""A study as one tidy table, a row a run, made from the files of its runs."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from jaxopt_lm.files import write_atomically
from jaxopt_lm.model.summary import flops_per_token, num_params
from jaxopt_lm.runs.read import read_metrics
from jaxopt_lm.studies.coordinate import progress
from jaxopt_lm.studies.search import written
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Run

_KEYS = ["setting", "arm", "changed", "learning_rate", "seed"]


def load(folder: str | os.PathLike) -> pd.DataFrame:
    """The table of the study in `folder`, sorted by setting, arm, changed, rate and seed; its sources are executed.

    A row is a run that is wanted so far. Columns: `id` of its folder below `runs/`; `setting`, `arm`; `seed` (0: the
    tuning seed); `learning_rate`; `changed`, other numbers that are not the arm's own (`weight_decay=0.1`); `status`:
    completed, diverged, failed (it crashed too often) or missing; `loss`, the last eval/loss in nats per token, NaN
    unless completed; `loss_at_init`; `early_loss`, at the first evaluation after a quarter of the steps;
    `diverged_step` and `diverged_metric`, 0 and "" unless diverged; `unigram_entropy` of the validation tokens, nats;
    `num_params`; `steps`, `tokens` and `flops` of the whole run; `tokens_per_sec`, the median, and `seconds` of the
    steps at it; NaN where a run has not got that far.

    Raises:
      InputError: the folder holds no study, or a file of it is damaged.
    """
    store = Store.read(Path(folder))
    return table(store, progress(store).runs)


def save(runs: pd.DataFrame, folder: str | os.PathLike) -> None:
    """Writes a table as `table.parquet` and `table.csv`.

    Raises:
      InputError: the folder cannot be written to.
    """
    write_atomically(Path(folder, "table.parquet"), runs.to_parquet())
    write_atomically(Path(folder, "table.csv"), runs.to_csv(index=False).encode())


def table(store: Store, runs: Iterable[Run]) -> pd.DataFrame:
    """`load` of some runs of a store."""
    rows = [_row(store, run) for run in runs]
    columns = {"seed": "int64", "diverged_step": "int64", "num_params": "int64", "steps": "int64", "tokens": "int64"}
    return pd.DataFrame(rows).astype(columns).sort_values(_KEYS, ignore_index=True)


def _row(store: Store, run: Run) -> dict[str, Any]:
    config, result = store.config(run), store.result(run)
    tokens = config.num_train_tokens
    ended, values = result is not None, result or {}
    diverged = values.get("status") == "diverged"
    missing = "missing" if store.failure(run) is None else "failed"
    rate = values.get("tokens_per_sec", math.nan)
    at_init, early = _losses_before_the_end(store, run, config.num_train_steps)
    return {
        "id": store.id(run),
        "setting": run.setting,
        "arm": run.arm,
        "seed": run.seed,
        "learning_rate": run.learning_rate,
        "changed": written(run.changed),
        "status": values["status"] if ended else missing,
        "loss": values["eval/loss"] if ended and not diverged else math.nan,
        "loss_at_init": at_init,
        "early_loss": early,
        "diverged_step": values["step"] if diverged else 0,
        "diverged_metric": values.get("diverged_metric", "") if diverged else "",
        "unigram_entropy": values.get("eval/unigram_entropy", math.nan),
        "num_params": num_params(config.model),
        "steps": config.num_train_steps,
        "tokens": tokens,
        "seconds": tokens / rate,
        "tokens_per_sec": rate,
        "flops": float(flops_per_token(config.model, config.length) * tokens),
    }


def _losses_before_the_end(store: Store, run: Run, steps: int) -> tuple[float, float]:
    """The evaluation losses at initialisation and, the first, after a quarter of the steps; NaN where there is none."""
    at_init = math.nan
    for line in read_metrics(store.folder(run)):
        loss = line.get("eval/loss", math.nan)
        if line["step"] == 0:
            at_init = loss
        elif "eval/loss" in line and 4 * line["step"] >= steps:
            return at_init, loss
    return at_init, math.nan
