"""What a study will train, and how long that takes, before it trains anything."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.dumps import flat, to_dict
from jaxopt_lm.model.summary import flops_per_token
from jaxopt_lm.studies.search import wanted, written
from jaxopt_lm.studies.study import Run, Study, run_id
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


def counted(study: Study) -> dict[str, Any]:
    """Counts of the study, runs of equal configs once; and what every arm trains in every setting: `contests`."""
    configs = _configs(study)
    contests: dict[tuple[str, str], list[Run]] = {}
    for run in configs:
        contests.setdefault((run.setting, run.arm), []).append(run)
    return _totals(configs) | {"contests": [_contest(study, runs, configs[runs[0]]) for runs in contests.values()]}


def _configs(study: Study) -> dict[Run, TrainConfig]:
    """Of the planned runs; of runs of equal configs the first."""
    first: dict[str, Run] = {}
    configs = {run: study.config(run) for run in planned(study)}
    for run, config in configs.items():
        first.setdefault(run_id(config), run)
    return {run: configs[run] for run in first.values()}


def _totals(configs: Mapping[Run, TrainConfig]) -> dict[str, Any]:
    tokens = sum(config.num_train_tokens for config in configs.values())
    each = (flops_per_token(config.model, config.length) * config.num_train_tokens for config in configs.values())
    return {"runs": len(configs), "tokens": tokens, "flops": float(sum(each))}


def _contest(study: Study, runs: Sequence[Run], config: TrainConfig) -> dict[str, Any]:
    """What an arm trains in a setting; `config` is that of any of the runs."""
    arm = study.arm(runs[0].arm)
    dump = to_dict(arm.optimizer)
    numbers = {"name": dump["name"]} | dict(flat(dump))
    return {
        "setting": runs[0].setting,
        "arm": arm.name,
        "runs": len(runs),
        "steps": config.num_train_steps,
        "global_batch_size": config.global_batch_size,
        "length": config.length,
        "learning_rates": sorted({run.learning_rate for run in runs}),
        "changed": list(dict.fromkeys(written(run.changed) for run in runs if run.changed)),
        "optimizer": {name: value for name, value in numbers.items() if name not in ("version", arm.rate)},
    }


def estimated(study: Study, workers: int) -> dict[str, Any]:
    """Counts of the study and its hours on so many processes, by the time of a step of each of its programs here."""
    found = _configs(study)
    configs = list(found.values())
    groups = {_group(config): config for config in configs}
    seconds = {group: _seconds_per_step(config) for group, config in groups.items()}
    hours = sum(seconds[_group(config)] * config.num_train_steps for config in configs) / workers / 3600
    return _totals(found) | {"groups": len(groups), "hours": hours}


def text(study: Study, workers: int, *, as_json: bool, measure: bool = True) -> str:
    """What `--dry_run` prints."""
    found = estimated(study, workers) if measure else counted(study)
    if as_json:
        return json.dumps(found)
    if not measure:
        return "\n".join([_in_words(found), *map(_line, found["contests"])])
    return (
        f"{found['runs']} runs of {found['groups']} programs (more where an optimum is not inside its grid), "
        f"{found['tokens']:,} tokens, {found['flops']:.3g} FLOPs, {found['hours']:.2f} h on {workers} processes by a "
        "measured step, without evaluation, compilation and start-up"
    )


def _in_words(found: Mapping[str, Any]) -> str:
    return (
        f"{found['runs']} runs (more where an optimum is not inside its grid), {found['tokens']:,} tokens, "
        f"{found['flops']:.3g} FLOPs"
    )


def _line(contest: Mapping[str, Any]) -> str:
    where = f"{contest['setting']}: " if contest["setting"] else ""
    runs = f"{contest['runs']} runs of {contest['steps']:,} steps"
    tokens = f"{contest['global_batch_size']} x {contest['length']} tokens"
    rates = " ".join(f"{rate:g}" for rate in contest["learning_rates"])
    numbers = " ".join(f"{name}={value}" for name, value in contest["optimizer"].items())
    changed = f"; also {' '.join(contest['changed'])}" if contest["changed"] else ""
    return f"{where}{contest['arm']}: {runs} of {tokens} at {rates}; {numbers}{changed}"


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
