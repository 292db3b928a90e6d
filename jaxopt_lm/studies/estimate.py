"""What a study will train, and how long that takes, before it trains anything."""

import json
import math
import time
from typing import Any

import jax
import numpy as np

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.model.summary import flops_per_token
from jaxopt_lm.studies.search import wanted
from jaxopt_lm.studies.study import Run, Study
from jaxopt_lm.training import sharding
from jaxopt_lm.training.program import Program
from jaxopt_lm.training.step import HParams

_STEPS = 5  # timed of each program, after one that compiles


def planned(study: Study) -> list[Run]:
    """The runs of the study if every optimum is inside its first grid; arms whose best is at an end need more."""
    losses: dict[Run, float] = {}
    while True:
        runs = wanted(study, losses)
        if all(run in losses for run in runs):
            return runs
        losses |= {run: _in_the_middle(study, run) for run in runs}


def _in_the_middle(study: Study, run: Run) -> float:
    """A loss that is least in the middle of the arm's grid."""
    rates = study.arm(run.arm).learning_rates
    return abs(math.log(run.learning_rate / rates[len(rates) // 2]))


def estimated(study: Study, workers: int) -> dict[str, Any]:
    """Counts of the study and its hours on so many processes, by the time of a step of each of its programs here."""
    runs = planned(study)
    configs = [study.config(run) for run in runs]
    groups = {_group(config): config for config in configs}
    seconds = {group: _seconds_per_step(config) for group, config in groups.items()}
    tokens = sum(config.num_train_tokens for config in configs)
    flops = sum(flops_per_token(config.model, config.length) * config.num_train_tokens for config in configs)
    hours = sum(seconds[_group(config)] * config.num_train_steps for config in configs) / workers / 3600
    return {"runs": len(runs), "groups": len(groups), "tokens": tokens, "flops": flops, "hours": hours}


def text(study: Study, workers: int, *, as_json: bool) -> str:
    """What `--dry_run` prints."""
    found = estimated(study, workers)
    if as_json:
        return json.dumps(found)
    return (
        f"{found['runs']} runs of {found['groups']} programs (more where an optimum is not inside its grid), "
        f"{found['tokens']:,} tokens, {found['flops']:.3g} FLOPs, {found['hours']:.2f} h on {workers} processes by a "
        "measured step, without evaluation, compilation and start-up"
    )


def _group(config: TrainConfig) -> Any:
    """What runs of one compiled program have in common."""
    return Program.of(config), config.global_batch_size, config.length


def _seconds_per_step(config: TrainConfig) -> float:
    """The median time of a step on tokens drawn at random."""
    program = Program.of(config)
    rows = sharding.Rows(program.mesh, config.global_batch_size)
    shape = config.global_batch_size, config.length
    tokens = np.random.default_rng(0).integers(0, config.data.vocab_size, shape, np.int32)
    batch, hparams = rows.place((tokens, np.ones(shape, np.float32))), HParams.of(config)
    state, times = program.init(hparams), []
    for _ in range(_STEPS + 1):
        begun = time.perf_counter()
        state, _ = jax.block_until_ready(program.step(state, batch, hparams))
        times.append(time.perf_counter() - begun)
    return float(np.median(times[1:]))
