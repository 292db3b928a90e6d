"""What is known of a study, as plain data: what its page is made of."""

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from jaxopt_lm.studies.points import Histories


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What is known of a study.

    Attributes:
      name: of the study.
      asked: what was asked, in a few words.
      baseline: the arm that others are compared with.
      arms: all, in the order in which they are named.
      table: one row a run, as `jaxopt_lm.studies.load` gives it.
      choices: columns setting, arm, learning_rate, changed, loss, inside, trials, and what `tuned` adds; one row an arm
        and setting.
      verdicts: columns setting, arm, kind, difference, low, high, p, n, seeds_needed and sentence of `Verdict`.
      claims: one row a claim that the study judges; whatever columns it has.
      history: a run's metrics by its id.
      facts: headings, each with names and values: the config, versions, the hardware.
      one_machine: whether all runs were trained on the same hardware and versions; else their seconds do not compare.
      running: whether runs are still wanted.
      level: of the intervals.
    """

    name: str
    asked: str
    baseline: str
    arms: Sequence[str]
    table: pd.DataFrame
    choices: pd.DataFrame
    verdicts: pd.DataFrame
    claims: pd.DataFrame
    history: Histories
    facts: Mapping[str, Mapping[str, str]]
    one_machine: bool = True
    running: bool = False
    level: float = 0.95
