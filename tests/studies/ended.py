"""Studies that were never trained: what their runs would have left, written by hand."""

import json
import math

from jaxopt_lm.studies.coordinate import progress
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Run


def end(store: Store, run: Run) -> None:
    """Writes what a run would have left: losses that are a parabola in the rate; lion is better, and diverges high."""
    folder = store.folder(run)
    folder.mkdir(parents=True)
    loss = 4 + math.log10(run.learning_rate / 1e-3) ** 2 - 0.2 * (run.arm == "lion") + 0.001 * run.seed**2
    lines = [{"step": step, "eval/loss": loss + 2 - step / 30} for step in (0, 20, 60)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    diverged = run.learning_rate > 0.5
    result = {"status": "diverged" if diverged else "completed", "step": 60, "eval/loss": loss}
    result |= {"eval/unigram_entropy": 4.1, "tokens_per_sec": 1000.0, "num_params": 1}
    (folder / "result.json").write_text(json.dumps(result))


def end_all(store: Store) -> None:
    while found := progress(store).open:
        for run in found:
            end(store, run)
