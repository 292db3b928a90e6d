"""Progress as a person sees it: a line with a bar on a terminal, elsewhere plain lines that are not too many."""

import io

import pytest
from rich.console import Console

from jaxopt_lm import terminal
from jaxopt_lm.data.prepare import Report
from jaxopt_lm.prepare import PreparationLine
from jaxopt_lm.runs.display import Display


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which a test sets."""
    clock = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    return clock


def console(**options) -> Console:
    return Console(file=io.StringIO(), width=60, **options)


def printed(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_plain_lines_come_every_five_seconds_or_at_once(clock):
    out = console()
    with terminal.ProgressLine(out, 8, head="{task.completed:.0f} of {task.total:.0f}") as line:
        for seconds, at_once in ((0, False), (4.9, False), (0.1, False), (1, True), (4.9, False), (0.1, False)):
            clock[0] += seconds
            line.update(clock[0] - 100, f"at {clock[0]:.1f} [b]", 61.0 if at_once else None, at_once=at_once)
    assert printed(out) == [
        "0 of 8  at 100.0 [b]",
        "5 of 8  at 105.0 [b]",
        "6 of 8  at 106.0 [b]  left 1:01",
        "11 of 8  at 111.0 [b]",
    ]


def test_a_terminal_gets_a_bar_and_no_plain_line():
    out = console(force_terminal=True, color_system=None)
    with terminal.ProgressLine(out, 8, completed=2, head="{task.completed:.0f} of 8", text="begun") as line:
        line.update(4, "halfway", 61.0, at_once=True)
    assert isinstance(out.file, io.StringIO)
    shown = out.file.getvalue()
    assert "2 of 8 ━━━━             begun -:--:--" in shown
    assert "4 of 8 ━━━━━━━━         halfway -:--:--" in shown
    assert "left" not in shown


def test_a_run_shows_its_newest_metrics(clock):
    out = console()
    with Display(out, 0, 100) as display:
        display.show({"step": 10, "tokens_seen": 640, "train/loss": 3.25, "learning_rate": 0.001, "mfu": 0.5})
        display.show({"step": 20, "tokens_seen": 1280, "train/loss": 3.0})
        display.show({"step": 25, "tokens_seen": 1600, "eval/loss": 2.5, "tokens_per_sec": 64.0})
    assert printed(out) == [
        "step 10/100  loss 3.250  lr 1.00e-03  MFU 50.0%",
        "step 25/100  loss 3.000  eval 2.500  lr 1.00e-03  tok/s 64  MFU 50.0%  left 1:15",
    ]


def test_a_preparation_shows_its_rate_and_what_is_left(clock):
    out = console()
    with PreparationLine(out) as line:
        line.show(Report("train", 0, 4, 0.25, 0))
        clock[0] += 10
        line.show(Report("train", 1, 4, 0.5, 20_000))
        line.show(Report("validation", 3, 4, 1.0, 20_000))
    assert printed(out) == [
        "tokens of train: shard 0, 4 in all  25.0%  0 tokens  0 tokens/s",
        "tokens of train: shard 1, 4 in all  50.0%  20,000 tokens  2,000 tokens/s  left 0:20",
        "tokens of validation: shard 3, 4 in all  100.0%  20,000 tokens  2,000 tokens/s  left 0:00",
    ]
