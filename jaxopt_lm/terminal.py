"""What a person sees of a command: lines, and the progress of its work. Loads rich when that begins."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_SECONDS = 5.0


def say(console: "Console", text: str) -> None:
    """Prints a line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class ProgressLine:
    """The progress of some work: on a terminal one line with a bar, which changes, elsewhere plain lines.

    A context manager. `head`, a template of rich's, is shown before the bar, `text` after it.
    """

    def __init__(self, console: "Console", total: float, *, completed: int = 0, head: str = "", text: str = ""):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn(head), BarColumn(bar_width=16), TextColumn("{task.description}"), TimeRemainingColumn()
        self._console, self._head, self._printed = console, head and f"{head}  ", float("-inf")
        self._bar = Progress(*columns[0 if head else 1 :], console=console, disable=not console.is_terminal)
        self._bar.add_task(text, total=total, completed=completed)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def update(self, completed: float, text: str, seconds_left: float | None, *, at_once: bool) -> None:
        """Shows how much is done; as a plain line, which says how long is left, every five seconds or `at_once`."""
        (task,), now = self._bar.tasks, time.monotonic()
        self._bar.update(task.id, completed=completed, description=text)
        if not self._console.is_terminal and (at_once or now - self._printed >= PLAIN_SECONDS):
            self._printed = now
            left = "" if seconds_left is None else "  left {}:{:02}".format(*divmod(round(seconds_left), 60))
            say(self._console, self._head.format(task=task) + text + left)
