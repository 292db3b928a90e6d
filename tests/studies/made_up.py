"""A study that nobody ran: a table, choices, verdicts and histories for tests of figures and the page."""

import math

import numpy as np
import pandas as pd

from jaxopt_lm.runs.read import Series
from jaxopt_lm.studies.findings import Report
from jaxopt_lm.studies.frames import groups, only

RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
BEST = {"adamw": 0.003, "muon": 0.01, "lion": 0.0003, "<b>sgd & co": 0.003}
SHIFT = {"adamw": 0.0, "muon": -0.06, "lion": 0.01, "<b>sgd & co": 0.3}
STEPS, AT_INIT = 400, 6.9
BASELINE = "adamw"
CHOICE = ["setting", "arm", "learning_rate", "changed", "loss", "inside", "trials", "neighbours"]
VERDICT = ["setting", "arm", "kind", "difference", "low", "high", "p", "n", "seeds_needed", "sentence"]


def loss_of(arm: str, rate: float, seed: int, size: int) -> float:
    """A parabola in the logarithm of the rate, with a little of the seed."""
    noise = 0.02 * ((seed * 7 + len(arm)) % 5 - 2)
    return 4.2 - 0.3 * math.log10(size / 1e5) + SHIFT[arm] + 0.25 * math.log10(rate / BEST[arm]) ** 2 + noise


def row(setting: str, arm: str, seed: int, rate: float, *, size: int, changed: str = "", status: str = "") -> dict:
    status = status or ("diverged" if rate > 5 * BEST[arm] and arm != "muon" else "completed")
    completed = status == "completed"
    return {
        "id": f"{setting}/{arm}/{changed}/{rate}/{seed}",
        "setting": setting,
        "arm": arm,
        "seed": seed,
        "learning_rate": rate,
        "changed": changed,
        "status": status,
        "loss": loss_of(arm, rate, seed, size) if completed else math.nan,
        "loss_at_init": AT_INIT,
        "diverged_step": 120 if status == "diverged" else 0,
        "diverged_metric": "train/loss" if status == "diverged" else "",
        "unigram_entropy": 5.5,
        "num_params": size,
        "steps": STEPS,
        "tokens": STEPS * 1024,
        "seconds": 20.0 * (1 + 0.5 * (arm == "muon")) if completed else math.nan,
        "tokens_per_sec": STEPS * 1024 / 20,
        "flops": 6.0 * size * STEPS * 1024,
    }


def table(sizes: dict[str, int] | None = None, *, arms=tuple(BEST), seeds: int = 3) -> pd.DataFrame:
    """Every arm at every rate on the tuning seed, and at its best one and the neighbours on fresh seeds."""
    rows = []
    for setting, size in (sizes or {"": 100_000}).items():
        for arm in arms:
            rows += [row(setting, arm, 0, rate, size=size) for rate in RATES]
            near = [rate for rate in RATES if abs(math.log10(rate / BEST[arm])) < 0.6]
            rows += [row(setting, arm, seed, rate, size=size) for rate in near for seed in range(1, seeds + 1)]
    return pd.DataFrame(rows)


def choices(runs: pd.DataFrame) -> pd.DataFrame:
    found = []
    for (setting, arm), mine in groups(only(runs, seed=0, status="completed"), "setting", "arm"):
        best = mine.loc[mine.loss.idxmin()]
        inside = mine.learning_rate.min() < best.learning_rate < mine.learning_rate.max()
        found.append((setting, arm, best.learning_rate, best.changed, best.loss, bool(inside), len(RATES), ()))
    return pd.DataFrame(found, columns=CHOICE)


def verdicts(runs: pd.DataFrame, *, seeds: int = 3) -> pd.DataFrame:
    found = []
    for setting in dict.fromkeys(runs.setting):
        for arm in dict.fromkeys(runs.arm):
            d, half = SHIFT[arm], 0.015
            kind = "better" if d < -half else "worse" if d > half else "not resolved"
            needed, p = (14.0, 0.3) if kind == "not resolved" else (2.0, 0.001)
            sentence = (
                f"{setting}: " * bool(setting) + f"{arm} is {kind}: {d:+.3f} nats [{d - half:+.3f}, {d + half:+.3f}]"
            )
            if arm == BASELINE:
                kind, d, p, needed, sentence = (
                    "baseline",
                    math.nan,
                    math.nan,
                    math.nan,
                    f"{arm}, the baseline, 4.2 nats",
                )
            found.append((setting, arm, kind, d, d - half, d + half, p, seeds, needed, sentence))
    return pd.DataFrame(found, columns=VERDICT)


def history(name: str) -> dict[str, Series]:
    """Losses that fall from the loss at initialisation to the run's; norms of 3 layers; effective rates of 2 roles."""
    _, arm, _, rate, seed = name.rsplit("/", 4)
    steps = np.arange(0, STEPS + 1, 40)
    end = loss_of(arm, float(rate), int(seed), 100_000)
    losses = end + (AT_INIT - end) * np.exp(-steps / 60)
    found = {"eval/loss": Series(steps, losses)}
    watched = steps[1:]
    for layer in range(3):
        for role, share in (("attention_out", 0.6), ("mlp_down", 0.8)):
            norms = share * (layer + 1) / (1 + watched / 100)
            found[f"telemetry/grads_norm/{role}/layer_{layer:02d}"] = Series(watched, norms)
    for role in ("embedding", "mlp_down"):
        found[f"telemetry/grads_norm/{role}"] = Series(watched, np.ones(len(watched)))
        for i, quantile in enumerate(("min", "q25", "median", "q75", "max")):
            rates = float(rate) * 10.0 ** (i - 1) * (1 + watched / 200)
            found[f"telemetry/effective_learning_rate/{role}/{quantile}"] = Series(watched, rates)
    return found


def report(runs: pd.DataFrame | None = None, **changes) -> Report:
    runs = table() if runs is None else runs
    claims = pd.DataFrame(
        [
            ("Muon beats AdamW at its best rate", "holds", "-0.060 nats"),
            ("AdamW is <least> sensitive", "not resolved", ""),
        ],
        columns=["claim", "judgement", "evidence"],
    )
    values = {
        "name": "four optimizers",
        "asked": "Which optimizer has the least loss after 400 steps?",
        "baseline": BASELINE,
        "arms": tuple(dict.fromkeys(runs.arm)),
        "table": runs,
        "choices": changes["choices"] if "choices" in changes else choices(runs),
        "verdicts": changes["verdicts"] if "verdicts" in changes else verdicts(runs),
        "claims": claims,
        "history": history,
        "facts": {
            "Versions": {"jax": "0.10.2", "jaxopt_lm": "0.1.0"},
            "Hardware": {"processor": "a CPU & more", "cores": "2"},
        },
    }
    return Report(**(values | changes))
