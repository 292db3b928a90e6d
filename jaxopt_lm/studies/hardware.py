"""What the runs of a study were trained on, as a page says it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Kind = tuple[tuple[str, str], ...]
"""Names and values: a device, a processor, versions."""


def kind(machines: Sequence[Mapping[str, Any]]) -> Kind:
    """What a run was trained on, by its `machines.json`; of one that went on elsewhere, both values of what differs."""
    if not machines:
        return (("machine", "not recorded"),)
    names = [name for name in dict.fromkeys(name for each in machines for name in each) if name != "after_step"]
    values = ([str(each.get(name, "not recorded")) for each in machines] for name in names)
    return tuple((name, ", then ".join(dict.fromkeys(found))) for name, found in zip(names, values, strict=True))


def facts(kinds: Counter[Kind]) -> dict[str, dict[str, str]]:
    """A heading for each kind, with its number of runs: the most frequent first."""
    most = kinds.most_common()
    return {
        f"Hardware{f' {i} of {len(most)}' if len(most) > 1 else ''}: {runs} run{'s' if runs > 1 else ''}": dict(found)
        for i, (found, runs) in enumerate(most, 1)
    }
