"""What a study has found, one sentence an optimizer, and how far it is: pieces of HTML."""

import html
import math
from collections.abc import Iterable
from typing import Any

from jaxopt_lm.studies.findings import Report
from jaxopt_lm.studies.frames import distinct, groups, only, rows

JUDGED = ("better", "worse", "not resolved")
"""Kinds of verdicts that have a difference."""

_MARKS = {"better": "▼", "worse": "▲", "not resolved": "○"}  # the loss is lower, higher

_MOST_SETTINGS = 3
"""Settings up to which each has its own sentences; of more, an optimizer's are counted."""


def answers(report: Report) -> str:
    """A list of sentences, the best optimizer first; under a heading a setting, where there are a few."""
    settings = distinct(report.table, "setting")
    if len(settings) > _MOST_SETTINGS:
        return _listed(_counted(report, arm, len(settings)) for arm in _others(report))
    parts = []
    for setting in settings:
        heading = f"<h3>{html.escape(setting)}</h3>\n" if setting else ""
        parts.append(heading + _listed(_sentence(report, setting, arm) for arm in [*_others(report), report.baseline]))
    return "\n".join(parts)


def _listed(lines: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{line}</li>" for line in lines if line) + "\n</ul>"


def _others(report: Report) -> list[str]:
    """All arms but the baseline, the least loss first, those without a verdict last."""
    judged = only(report.verdicts, kind=JUDGED)
    mean = {arm: mine.difference.mean() for arm, mine in groups(judged, "arm")}
    return sorted((arm for arm in report.arms if arm != report.baseline), key=lambda arm: mean.get(arm, math.inf))


def _sentence(report: Report, setting: str, arm: str) -> str:
    found = list(rows(only(report.verdicts, setting=setting, arm=arm)))
    if not found:
        return f"<b>{html.escape(arm)}</b>: {_waiting(report)}"
    text = str(found[0].sentence).removeprefix(f"{setting}: ")
    rest = html.escape(text.removeprefix(arm))
    name = f"<b>{html.escape(arm)}</b>" if text.startswith(arm) else ""
    return f"{_badge(found[0].kind)} {name}{rest}.".strip()


def _badge(kind: str) -> str:
    return f'<span class="{kind.replace(" ", "-")}">{_MARKS[kind]} {kind}</span>' if kind in _MARKS else ""


def _waiting(report: Report) -> str:
    return "no verdict yet." if report.running else "no verdict."


def _counted(report: Report, arm: str, settings: int) -> str:
    """`muon against adamw in 5 settings: better in 3, worse in 0, not resolved in 2.`"""
    kinds = list(only(report.verdicts, arm=arm).kind)
    parts = [f'<span class="{kind.replace(" ", "-")}">{kind} in {kinds.count(kind)}</span>' for kind in JUDGED]
    if missing := settings - sum(kinds.count(kind) for kind in JUDGED):
        parts.append(f"{_waiting(report)[:-1]} in {missing}")
    names = f"<b>{html.escape(arm)}</b> against {html.escape(report.baseline)}"
    return f"{names} in {settings} settings: {', '.join(parts)}."


def status(report: Report) -> str:
    """How far the study is, and what did not go well."""
    counts: dict[Any, int] = report.table.status.value_counts().to_dict()
    total, missing = len(report.table), counts.get("missing", 0)
    parts = [f"{total - missing} of {total} runs have ended" if report.running else f"{total} runs"]
    parts += [f"{counts[name]} {name}" for name in ("diverged", "failed") if counts.get(name)]
    if missing and not report.running:
        parts.append(f"{missing} missing")
    seconds = float(report.table.seconds.sum())
    if seconds > 0:
        parts.append(f"{_duration(seconds)} of training{' so far' if report.running else ''}")
    text = html.escape(", ".join(parts))
    if report.running:
        return f'<p class="running"><b>Still running:</b> {text}. What is below may change.</p>'
    return f"<p>{text}.</p>"


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"
