"""The README's table of presets against the models; its Python runs as it stands."""

import dataclasses
import re

import pytest

from jaxopt_lm import model
from jaxopt_lm.config_io import load, load_as
from jaxopt_lm.model import PRESETS, preset
from jaxopt_lm.studies import Study
from tests.write_config_dumps import ROOT


@pytest.mark.parametrize("name", PRESETS)
def test_table_of_presets(name):
    row = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert row, f"README.md has no row for {name}"
    _, shape, heads, mlp, vocabulary, whole, without = (cell.strip().replace(",", "") for cell in row[1].split("|"))
    config = preset(name)
    assert shape == f"{config.num_layers} x {config.embed_dim}"
    assert heads == str(config.num_heads)
    assert mlp.lower() == f"{config.mlp_dim} {config.mlp}"
    assert vocabulary == str(config.vocab_size)
    assert whole == str(model.num_params(config))
    assert without == str(model.num_params(config, embeddings=False))


def test_links_and_figures_are_there():
    text = (ROOT / "README.md").read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).is_file(), target


def examples() -> list[str]:
    """The blocks of Python, each of which a test below runs, or compares with a file that is run."""
    return re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.usefixtures("standard_promotion")
def test_the_example_of_training_runs(tiny, monkeypatch):
    """On a small config in place of the quickstart's."""
    short = dataclasses.replace(tiny, num_train_steps=12, eval=dataclasses.replace(tiny.eval, every_steps=4))
    monkeypatch.setattr("jaxopt_lm.config_io.load", {"configs/quickstart.py": short}.__getitem__)
    scope: dict = {}
    exec(examples()[0], scope)
    (line,) = scope["plt"].gca().lines
    scope["plt"].close()
    assert line.get_xdata().tolist() == [0, 4, 8, 12]
    assert line.get_ydata().tolist() == list(scope["result"].history["eval/loss"].values)


def test_the_example_of_ones_own_optimizer_is_shown_whole():
    assert examples()[1] == (ROOT / "examples" / "my_optimizer.py").read_text()


def test_the_config_file_with_a_function_of_optax_is_one(tmp_path, monkeypatch):
    (tmp_path / "muon.py").write_text(examples()[2])
    monkeypatch.chdir(ROOT)
    config = load(f"{tmp_path}/muon.py")
    assert (config.workdir, config.optimizer.learning_rate, config.optimizer.beta) == ("runs/muon", 0.02, 0.9)


def test_the_study_is_one(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(examples()[3])
    monkeypatch.chdir(ROOT)
    study = load_as(Study, f"{tmp_path}/mine.py")
    assert [arm.name for arm in study.arms] == ["adamw", "lion"]
    assert study.setting_names == ["num_layers=2, num_train_steps=500", "num_layers=4, num_train_steps=500"]


@pytest.mark.usefixtures("standard_promotion")
def test_compose_example_runs(capsys):
    _, _, _, _, example = examples()
    scope: dict = {}
    exec(example, scope)
    assert "layers/0/up" in capsys.readouterr().out
    updates, _ = scope["tx"].update(scope["params"], scope["tx"].init(scope["params"]), scope["params"])
    assert updates["head"].shape == (8, 100)
