"""What a person sees while a run trains: one live line on a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 5.0


class Display:
    """Shows lines of metrics as they come; a context manager.

    Args:
      console: where to; a terminal gets one line that changes, anything else a line at every evaluation and otherwise
        at most one every five seconds.
      step: the step training starts from.
      num_train_steps: where it ends.
    """

    def __init__(self, console: Console, step: int, num_train_steps: int):
        self._console, self._num_train_steps = console, num_train_steps
        self._last_plain = float("-inf")
        self._shown: dict[str, Any] = {}
        self._progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=16),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("compiling", total=num_train_steps, completed=step)

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, line: dict[str, Any]) -> None:
        """Shows one line of metrics; values it lacks stay as last shown."""
        self._shown |= line
        text = "  ".join(
            f"{label} {value:{form}}"
            for label, name, form in (
                ("loss", "train/loss", ".3f"),
                ("eval", "eval/loss", ".3f"),
                ("lr", "learning_rate", ".2e"),
                ("tok/s", "tokens_per_sec", ",.0f"),
                ("MFU", "mfu", ".1%"),
            )
            if (value := self._shown.get(name)) is not None
        )
        self._progress.update(self._task, completed=line["step"], description=text)
        now = time.monotonic()
        if not self._console.is_terminal and ("eval/loss" in line or now - self._last_plain >= PLAIN_SECONDS):
            self._last_plain = now
            text = f"step {line['step']}/{self._num_train_steps}  {text}{self._time_left(line)}"
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _time_left(self, line: dict[str, Any]) -> str:
        rate = self._shown.get("tokens_per_sec")
        if not rate or not line["step"]:
            return ""
        seconds = (self._num_train_steps - line["step"]) * line["tokens_seen"] / line["step"] / rate
        return "  left {}:{:02}".format(*divmod(round(seconds), 60))
