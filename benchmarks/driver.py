"""What the drivers of benchmarks share: child processes that answer in JSON, spreads, the machine."""

import datetime
import functools
import json
import os
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxopt_lm.runs.machine import available_cores, processor

HERE = Path(__file__).parent


class Child:
    """A process of `peers/serve.py`; leaving its context ends it.

    Args:
      command: its program and arguments.
      env: all of its environment.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str]):
        self._command, self._env = list(command), dict(env)

    def __enter__(self) -> "Child":
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._command,
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        return self

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What it says about itself, when it is ready."""
        return self._answer()

    def ask(self, request: object) -> dict[str, Any]:
        """The answer to a line."""
        _ = self.facts  # which come first
        assert self._process.stdin
        print(request, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{' '.join(self._command)}: ended with {code}\n{self._errors.read()[-4000:]}")
        return json.loads(line)

    def __exit__(self, *exception: object) -> None:
        if exception and exception[0] is not None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """The median and, where there are several, the least and the greatest; of none nothing."""
    if not values:
        return ""
    middle = f"{statistics.median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} [{min(values):{form}}, {max(values):{form}}]"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *rest = widths
    lines = (
        "  ".join([row[0].ljust(first), *(text.rjust(width) for text, width in zip(row[1:], rest, strict=True))])
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def machine() -> dict[str, Any]:
    """For the record."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor(),
        "cores": available_cores(),
        "memory_bytes": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
    }


def machine_line(found: Mapping[str, Any]) -> str:
    """The same in a line."""
    size = found["memory_bytes"] / 1e9
    return f"{found['cores']} cores of {found['processor']}, {size:.0f} GB; {found['date']}; Python {found['python']}"


def write_json(path: str | None, record: Any) -> None:
    if path:
        Path(path).write_text(json.dumps(record, indent=1) + "\n")
