"""The page of results: from the tables of studies that have ended, by one command, to the same bytes."""

import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from jaxopt_lm.config_io import load_as
from jaxopt_lm.dumps import to_json
from jaxopt_lm.papers import results
from jaxopt_lm.studies import Study
from jaxopt_lm.studies.store import Store
from tests.studies.ended import end_all
from tests.write_config_dumps import ROOT

ASKED = '''"""Figure 0: a line for the page.

And more.
"""
from jaxopt_lm.config_io import load
from jaxopt_lm.optimizers import AdamWConfig, LionConfig
from jaxopt_lm.studies import Arm, Better, Rules, Study

RATES = (1e-4, 1e-3, 1e-2)

def get_config(arg):
    adamw = Arm(name="adamw", optimizer=AdamWConfig(learning_rate=1e-3), learning_rates=RATES)
    lion = Arm(name="lion", optimizer=LionConfig(learning_rate=1e-3), learning_rates=(*RATES, 1.0))
    lower = Better(name="lower", text="Lion ends lower.", arm="lion", than="adamw")
    higher = Better(name="higher", text="AdamW ends lower.", arm="adamw", than="lion")
    rules = Rules(seeds=3, noise_seeds=2)
    return Study(base=load("base.json"), arms=(adamw, lion), rules=rules, claims=(lower, higher))
'''
SPEC = "configs/paper/fig00.py:scale=tiny"


@pytest.fixture
def store(tiny, tmp_path, monkeypatch) -> Store:
    """A study that has been trained, and one that has not, in the folder where commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.json").write_text(to_json(tiny))
    folder = tmp_path / "configs" / "paper"
    folder.mkdir(parents=True)
    for name in ("fig00", "fig01"):
        (folder / f"{name}.py").write_text(ASKED.replace("Figure 0", f"Figure {name[-1]}"))
    store = Store(tmp_path / "run", load_as(Study, SPEC))
    store.begin().close()
    end_all(store)
    return store


def command(monkeypatch, capsys, *arguments: str) -> tuple[object, str]:
    monkeypatch.setattr(sys, "argv", ["results", "--configs=configs", "--out=out", *arguments])
    try:
        code = results.main() or 0
    except SystemExit as stop:
        code = stop.code
    shown = capsys.readouterr()
    return code, shown.out + shown.err


@pytest.mark.usefixtures("store")
def test_a_study_is_added_judged_and_the_page_comes_again(tmp_path, monkeypatch, capsys):
    code, shown = command(monkeypatch, capsys, f"--add={SPEC}")
    assert code == 0, shown
    assert "1 studies have not been run" in shown
    assert "--config=configs/paper/fig01.py:scale=tiny" in shown
    page = (tmp_path / "out" / "README.md").read_text()
    assert "Of 4 claims: holds 1, does not hold 1, not resolved 0, not run 2." in page
    first, second = page.split("### ")[1:]
    assert first.startswith("Figure 0: a line for the page\n")
    assert "| Lion ends lower. |" in first
    assert first.count("| holds |") == first.count("| does not hold |") == 1
    assert "| adamw | 0.001 | 4.000 | 4.005 [3.995, 4.015] | 3 |" in first  # 4 + .001, .004, .009 and 4.303 s / sqrt(3)
    assert second.count("| not run |") == 2
    kept = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert sorted(path.name for path in kept) == [
        "README.md",
        *(f"paper_fig00.{kind}" for kind in ("json", "parquet", "png")),
    ]
    runs = pd.read_parquet(tmp_path / "out" / "tiny" / "paper_fig00.parquet")
    assert set(runs.arm) == {"adamw", "lion"}
    assert (runs.status == "diverged").any()
    assert command(monkeypatch, capsys)[0] == 0
    assert {path: path.read_bytes() for path in kept} == kept


def test_what_is_not_trained_is_refused(store, monkeypatch, capsys):
    victim = next(store.path.glob("runs/*/result.json"))
    victim.unlink()
    code, shown = command(monkeypatch, capsys, f"--add={SPEC}")
    assert code == 2
    assert f"not trained; python -m jaxopt_lm.sweep --config={SPEC}" in shown
    for spec in ("configs/paper/fig00.py:scale=small", "base.json:scale=tiny"):
        assert command(monkeypatch, capsys, f"--add={spec}")[0] == 2


def test_the_committed_page_comes_from_the_committed_tables(tmp_path, monkeypatch):
    """Words and numbers; figures are drawn into the copy."""
    monkeypatch.chdir(ROOT)
    copy = shutil.copytree("docs/results", tmp_path / "results")
    committed = (copy / "README.md").read_text()
    assert results.page(Path("configs/papers"), copy) == committed, "make results"
    tables = {path.stem for path in copy.glob("tiny/*.parquet")}
    assert tables == {path.stem for path in copy.glob("tiny/*.json")} == {path.stem for path in copy.glob("tiny/*.png")}
