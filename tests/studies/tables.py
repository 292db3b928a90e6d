"""Tables of studies that were never run."""

import math
from collections.abc import Mapping

import pandas as pd

from jaxopt_lm.studies.choice import Choice

LOSS_AT_INIT = 10.0


def row(arm: str, seed: int, loss: float, rate: float = 0.01, setting: str = "", changed: str = "", status: str = ""):
    """A run; one whose loss is NaN has diverged."""
    return {
        "id": f"{setting}{arm}{changed}{rate}{seed}",
        "setting": setting,
        "arm": arm,
        "seed": seed,
        "learning_rate": rate,
        "changed": changed,
        "status": status or ("diverged" if math.isnan(loss) else "completed"),
        "loss": loss,
        "loss_at_init": LOSS_AT_INIT,
    }


def table_of(rows: list[dict]) -> pd.DataFrame:
    """As `load` sorts it; the columns that statistics do not read are left out."""
    return pd.DataFrame(rows).sort_values(["setting", "arm", "changed", "learning_rate", "seed"], ignore_index=True)


def choice(arm: str, rate: float = 0.01, setting: str = "", inside: bool = True, changed: str = "", loss=3.0) -> Choice:
    return Choice(setting, arm, rate, changed, loss, inside, 5, ())


def fresh_table(losses: Mapping[str, object], settings: tuple[str, ...] = ("",)) -> tuple[pd.DataFrame, list[Choice]]:
    """By arm, the losses on seeds 1, 2, …, the same in each setting; and the choices of these arms."""
    return fresh_tables(dict.fromkeys(settings, losses))


def fresh_tables(losses: Mapping[str, Mapping[str, object]]) -> tuple[pd.DataFrame, list[Choice]]:
    """By setting and arm."""
    rows = [
        row(arm, seed, float(loss), setting=setting)
        for setting, arms in losses.items()
        for arm, each in arms.items()
        for seed, loss in enumerate(each, 1)
    ]
    return table_of(rows), [choice(arm, setting=setting) for setting, arms in losses.items() for arm in arms]


def swept(arm: str, rates, losses, setting: str = "") -> list[dict]:
    """The tuning seed's runs of an arm."""
    return [row(arm, 0, float(loss), float(rate), setting) for rate, loss in zip(rates, losses, strict=True)]
