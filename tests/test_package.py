"""The package as it is installed: its version, its types, its list of commands."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

import jaxopt_lm
from jaxopt_lm import __main__ as commands

PACKAGE = Path(jaxopt_lm.__file__).parent


def test_version_and_types():
    assert importlib.metadata.version("jaxopt_lm") == jaxopt_lm.__version__
    assert (PACKAGE / "py.typed").exists()


def test_every_command_is_listed_with_its_purpose_and_an_example(monkeypatch, capsys):
    modules = {path.stem for path in PACKAGE.glob("*.py") if "@report_input_errors\ndef main(" in path.read_text()}
    assert modules == set(commands.COMMANDS)
    monkeypatch.setattr(sys, "argv", ["jaxopt_lm"])
    assert commands.main() == 0
    printed = capsys.readouterr().out
    for name in commands.COMMANDS:
        assert f"\n{name} " in printed
        assert f"    python -m jaxopt_lm.{name} --" in printed


@pytest.mark.parametrize(("word", "mend"), [("train", "python -m jaxopt_lm.train"), ("trian", "lists all")])
def test_a_word_that_follows_is_answered(monkeypatch, capsys, word, mend):
    monkeypatch.setattr(sys, "argv", ["jaxopt_lm", word])
    assert commands.main() == 2
    assert mend in capsys.readouterr().err
