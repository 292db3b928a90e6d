"""What a person sees of a study while it runs: on a terminal a line of it and one a run under way, else plain lines."""

import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from jaxopt_lm import terminal
from jaxopt_lm.runs.read import read_metrics
from jaxopt_lm.studies.search import Progress, written
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Run


def named(run: Run) -> str:
    """`lion 1e-3 seed 0`, with its setting and changed numbers where it has any."""
    parts = run.setting, run.arm, written(run.changed), f"{run.learning_rate:.3g}", f"seed {run.seed}"
    return " ".join(part for part in parts if part)


class StudyDisplay:
    """Shows where a study is; a context manager."""

    def __init__(self, console: Console, store: Store):
        self._console, self._store = console, store
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None
        self._begun, self._first = time.monotonic(), 0.0
        self._told: set[Run] | None = None
        self._looked = 0.0

    def __enter__(self) -> "StudyDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, at: Progress, running: Sequence[str]) -> None:
        """Shows the study, and what has ended since the last call; what goes on, every few seconds on a terminal."""
        now = time.monotonic()
        if self._told == at.losses.keys() and (self._live is None or now - self._looked < terminal.PLAIN_SECONDS):
            return
        self._looked = now
        under_way = {self._store.id(run): run for run in at.open if self._store.id(run) in running}
        steps = {name: self._newest(run) for name, run in under_way.items()}
        line = self._line(at, steps)
        if self._told is None:
            self._told, self._first = set(at.losses), self._done_tokens(at, steps)
            if at.losses:
                self.say(f"{len(at.losses)} runs had ended before")
        for run in at.losses.keys() - self._told:
            loss = at.losses[run]
            self.say(f"{line}  {named(run)}: " + (f"{loss:.4f}" if loss == loss else "no loss"))
        self._told |= at.losses.keys()
        if self._live:
            rows = [f"  {named(run)}: {_step(steps[name])}" for name, run in under_way.items()]
            self._live.update(Group(Text(line), *map(Text, rows)))

    def say(self, text: str) -> None:
        """Prints a line above what changes."""
        terminal.say(self._console, text)

    def _newest(self, run: Run) -> dict[str, float]:
        *_, line = ({}, *read_metrics(self._store.folder(run)))
        return line

    def _line(self, at: Progress, steps: dict[str, dict[str, float]]) -> str:
        text = f"{len(at.losses)}/{len(at.runs)} runs"
        done, seconds = self._done_tokens(at, steps) - self._first, time.monotonic() - self._begun
        if self._told is not None and done > 0:
            left = sum(map(self._store.num_train_tokens, at.runs)) - self._first - done
            minutes, rest = divmod(round(left / (done / seconds)), 60)
            text += f"  {done / seconds:,.0f} tok/s  left {minutes}:{rest:02}"
        return text

    def _done_tokens(self, at: Progress, steps: dict[str, dict[str, float]]) -> float:
        return sum(map(self._store.num_train_tokens, at.losses)) + sum(
            line.get("tokens_seen", 0) for line in steps.values()
        )


def _step(line: dict[str, float]) -> str:
    if not line:
        return "starting"
    loss = line.get("train/loss", line.get("eval/loss"))
    return f"step {line['step']}" + ("" if loss is None else f"  loss {loss:.3f}")
