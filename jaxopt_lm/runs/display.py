"""What a person sees while a run trains: one live line on a terminal, plain lines elsewhere."""

from typing import Any

from rich.console import Console

from jaxopt_lm.terminal import ProgressLine

_SHOWN = (
    ("loss", "train/loss", ".3f"),
    ("eval", "eval/loss", ".3f"),
    ("lr", "learning_rate", ".2e"),
    ("tok/s", "tokens_per_sec", ",.0f"),
    ("MFU", "mfu", ".1%"),
)


class Display(ProgressLine):
    """Shows lines of metrics as they come; a context manager.

    Args:
      console: where to; a terminal gets one line that changes, anything else a line at every evaluation and otherwise
        at most one every five seconds.
      step: the step training starts from.
      num_train_steps: where it ends.
    """

    def __init__(self, console: Console, step: int, num_train_steps: int):
        head = "step {task.completed:.0f}/{task.total:.0f}"
        super().__init__(console, num_train_steps, completed=step, head=head, text="compiling")
        self._num_train_steps, self._newest = num_train_steps, {}

    def show(self, line: dict[str, Any]) -> None:
        """Shows one line of metrics; values it lacks stay as last shown."""
        self._newest |= line
        shown = ((label, self._newest.get(name), form) for label, name, form in _SHOWN)
        text = "  ".join(f"{label} {value:{form}}" for label, value, form in shown if value is not None)
        self.update(line["step"], text, self._seconds_left(line), at_once="eval/loss" in line)

    def _seconds_left(self, line: dict[str, Any]) -> float | None:
        rate = self._newest.get("tokens_per_sec")
        if not rate or not line["step"]:
            return None
        return (self._num_train_steps - line["step"]) * line["tokens_seen"] / line["step"] / rate
