"""A study beside the same runs as commands, and beside bare steps: what sharing programs and pinning processes gain.

    python benchmarks/study.py

Trains 16 runs of configs/compare.py's model, 200 steps each: as one `sweep`, as `train` commands one after another, and
as bare steps of one pinned process a core, without evaluation, files and start-up. Prints seconds and tokens/s of each,
and two ratios: commands to study in seconds, study to bare steps in tokens/s. Tokens are prepared before.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS, STEPS = 16, 200

ASKED = f"""
import dataclasses
from jaxopt_lm.config_io import load_as
from jaxopt_lm.studies import Rules, Study

def get_config(arg):
    study = load_as(Study, "configs/compare.py:optimizers=adamw,steps={STEPS}")
    rates = tuple(1e-3 * 1.1**i for i in range({RUNS}))
    arms = (dataclasses.replace(study.arms[0], learning_rates=rates),)
    return dataclasses.replace(study, arms=arms, rules=Rules(seeds=0, noise_seeds=0, max_extensions=0))
"""

BARE = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
import jax, numpy as np
from jaxopt_lm import compilation_cache
from jaxopt_lm.config_io import load_as
from jaxopt_lm.studies import Study
from jaxopt_lm.studies.search import wanted
from jaxopt_lm.training import HParams, Program
from jaxopt_lm.training.sharding import Rows

compilation_cache.enable()
study = load_as(Study, sys.argv[2])
config = study.config(wanted(study, {})[0])
program, hparams, shape = Program.of(config), HParams.of(config), (config.global_batch_size, config.length)
tokens = np.random.default_rng(0).integers(0, config.data.vocab_size, shape, np.int32)
batch = Rows(program.mesh, shape[0]).place((tokens, np.ones(shape, np.float32)))
state, _ = jax.block_until_ready(program.step(program.init(hparams), batch, hparams))
begun, steps = time.perf_counter(), 0
while time.perf_counter() - begun < 20:
    state, _ = jax.block_until_ready(program.step(state, batch, hparams))
    steps += 1
print(steps * batch.tokens.size / (time.perf_counter() - begun))
"""


def timed(*commands: list[str]) -> float:
    """The seconds of commands one after another."""
    begun = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def bare_tokens_per_second(asked: Path) -> float:
    """Of one process for each core, all at once."""
    from jaxopt_lm import allocator

    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BARE, str(core), str(asked)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | allocator.variables(),
        )
        for core in sorted(os.sched_getaffinity(0))
    ]
    return sum(float(process.communicate()[0]) for process in processes)


def main() -> None:
    """Prints the comparison and, in the last line, the same as JSON."""
    from jaxopt_lm.config_io import load_as
    from jaxopt_lm.dumps import to_json
    from jaxopt_lm.studies import Study
    from jaxopt_lm.studies.search import wanted

    module = [sys.executable, "-m"]
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder, "asked.py")
        asked.write_text(ASKED)
        study = load_as(Study, str(asked))
        commands = []
        for i, run in enumerate(wanted(study, {})):
            path = Path(folder, f"{i}.json")
            path.write_text(to_json(dataclasses.replace(study.config(run), workdir=f"{folder}/train/{i}")))
            commands.append([*module, "jaxopt_lm.train", f"--config={path}"])
        subprocess.run([*module, "jaxopt_lm.prepare"], check=True)
        tokens = RUNS * STEPS * study.base.tokens_per_step
        bare = bare_tokens_per_second(asked)
        swept = timed([*module, "jaxopt_lm.sweep", f"--config={asked}", f"--config.workdir={folder}/study"])
        trained = timed(*commands)
        again = bare_tokens_per_second(asked)
    bare = (bare + again) / 2
    print(f"{RUNS} runs of {STEPS} steps on {len(os.sched_getaffinity(0))} cores")
    print(f"study      {swept:7.1f} s  {tokens / swept:9,.0f} tokens/s")
    print(
        f"commands   {trained:7.1f} s  {tokens / trained:9,.0f} tokens/s  {trained / swept:.2f} of the study's seconds"
    )
    print(f"bare steps            {bare:9,.0f} tokens/s  the study has {tokens / swept / bare:.2f} of them")
    found = {"study_seconds": swept, "commands_seconds": trained, "tokens": tokens, "bare_tokens_per_second": bare}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
