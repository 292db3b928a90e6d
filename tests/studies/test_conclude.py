"""From the folder of a study to its page, by the command line."""

import json
import math
import sys
from pathlib import Path

import pytest

from jaxopt_lm import report
from jaxopt_lm.errors import InputError
from jaxopt_lm.optimizers import AdamWConfig, LionConfig
from jaxopt_lm.studies import conclude
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Arm, Rules, Study
from tests.studies.ended import end_all


@pytest.fixture
def store(tiny, tmp_path) -> Store:
    rates = (1e-4, 1e-3, 1e-2)
    adamw = Arm(name="adamw", optimizer=AdamWConfig(learning_rate=1e-3), learning_rates=rates)
    lion = Arm(name="lion", optimizer=LionConfig(learning_rate=1e-3), learning_rates=(*rates, 1.0))
    study = Study(base=tiny, arms=(adamw, lion), rules=Rules(seeds=3, noise_seeds=2))
    store = Store(tmp_path / "<study>", study)
    store.begin().close()
    return store


def draw(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    code = report.main()
    shown = capsys.readouterr()
    assert not code, shown.err
    return shown.out


def test_a_study_that_is_done(store, monkeypatch, capsys):
    end_all(store)
    found = conclude.collect(store.path)
    assert not found.running
    assert list(found.choices.arm) == ["adamw", "lion"]
    assert list(found.choices.learning_rate) == [1e-3, 1e-3]
    (lion,) = found.verdicts[found.verdicts.arm == "lion"].itertuples()
    assert (lion.kind, lion.n) == ("better", 3)
    assert lion.difference == pytest.approx(-0.2)
    assert found.facts["Config"]["model.embed_dim"] == "16"
    assert list(found.facts) == ["Hardware: 25 runs", "Config", "Drawn with"]
    assert (found.facts["Hardware: 25 runs"], found.one_machine) == ({"machine": "not recorded"}, True)
    assert list(found.choices.locally_optimal) == ["yes", "yes"]
    assert list(found.choices.infeasible) == [0, 0.25]
    assert list(found.choices.default_loss) == pytest.approx([4, 3.8])
    assert draw(monkeypatch, capsys, f"--workdir={store.path}", "--watch=True") == f"{store.path}/report.html\n"
    text = (store.path / "report.html").read_text()
    assert "<h1>&lt;study&gt;</h1>" in text
    assert "2 optimizers: whose loss is least after 60 steps, each at its best learning rate?" in text
    assert "<b>lion</b> is better than adamw by 0.200 nats" in text
    assert "Still running" not in text


def test_the_table_has_losses_at_initialisation_and_after_a_quarter_of_the_steps(store):
    """Of 60: the first evaluation after 15 is at 20."""
    end_all(store)
    runs = conclude.collect(store.path).table
    (run,) = runs[(runs.arm == "adamw") & (runs.learning_rate == 1e-3) & (runs.seed == 1)].itertuples()
    assert (run.loss, run.loss_at_init, run.early_loss) == pytest.approx((4.001, 6.001, 6.001 - 20 / 30))
    folder = store.path / "runs" / run.id
    (folder / "metrics.jsonl").write_text('{"step": 14, "eval/loss": 5.0}\n{"step": 20, "train/loss": 5.0}\n')
    again = conclude.collect(store.path).table
    (run,) = again[again.id == run.id].itertuples()
    assert math.isnan(run.loss_at_init)
    assert math.isnan(run.early_loss)


def test_two_kinds_of_hardware_are_both_shown(store, monkeypatch, capsys):
    end_all(store)
    for i, folder in enumerate(Path(store.path, "runs").iterdir()):
        machine = {"after_step": 0, "device": "cpu" if i < 5 else "NVIDIA <H100>", "cores": 2, "jax": "0.10.2"}
        (folder / "machines.json").write_text(json.dumps([machine]))
    assert not conclude.collect(store.path).one_machine
    draw(monkeypatch, capsys, f"--workdir={store.path}")
    text = (store.path / "report.html").read_text()
    for kind in ("Hardware 1 of 2: 20 runs", "NVIDIA &lt;H100&gt;", "Hardware 2 of 2: 5 runs", ">cpu<"):
        assert text.count(kind) == 1, kind
    assert "several kinds of hardware" in text


def test_a_damaged_list_of_machines_is_one_line(store):
    end_all(store)
    path = next(Path(store.path, "runs").iterdir()) / "machines.json"
    for content in ("[", "{}", "[1]", '[{"device": "cpu"}]'):
        path.write_text(content)
        with pytest.raises(InputError, match=r"machines\.json: .*; remove it"):
            conclude.collect(store.path)


def test_watching_draws_until_the_study_ends(store, monkeypatch, capsys):
    """Nothing has ended, nothing has changed, all has ended: two pages."""
    pages, naps = [], [lambda: None, lambda: end_all(store)]

    def sleep(seconds: float) -> None:
        assert seconds == 5
        pages.append(Path(store.path, "report.html").read_text())
        naps.pop(0)()

    monkeypatch.setattr(report.time, "sleep", sleep)
    assert draw(monkeypatch, capsys, f"--workdir={store.path}", "--watch=True").count("report.html") == 2
    assert "<b>Still running:</b> 0 of 2 runs have ended." in pages[0]
    assert pages[0] == pages[1]
    assert "Still running" not in Path(store.path, "report.html").read_text()


def test_a_run_is_not_watched(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["report", f"--workdir={tmp_path}", "--watch=True"])
    assert report.main() == 2
    assert f"watch=True: {tmp_path} holds no study.json; give a study's folder" in capsys.readouterr().err
