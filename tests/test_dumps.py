"""Config dumps of other versions, and a run folder that was written before dumps had one."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxopt_lm import dumps
from jaxopt_lm.config import TrainConfig
from jaxopt_lm.config_io import load
from jaxopt_lm.dumps import from_dict, to_dict
from jaxopt_lm.errors import InputError
from jaxopt_lm.export import ExportConfig, export
from jaxopt_lm.model import huggingface
from jaxopt_lm.optimizers import HybridConfig, MuonConfig
from jaxopt_lm.runs.read import read_metrics
from jaxopt_lm.training.evaluation import evaluate_run
from tests.conftest import GOLDEN
from tests.training.test_run import quiet_train
from tests.write_config_dumps import FIELDS, fields

BASE = TrainConfig(workdir="runs/x", optimizer=MuonConfig())


def test_a_version_has_the_fields_that_it_was_given():
    """A new field without a new VERSION would make the dumps of this one unreadable: they lack it."""
    advice = "add 1 to dumps.VERSION, see AS_BEFORE, then python -m tests.write_config_dumps"
    assert fields() == FIELDS.read_text(), advice


@pytest.mark.parametrize(("name", "version"), [("before_versions", None), ("version_2", 2)])
def test_a_run_from_before_is_evaluated_and_goes_on(
    name, version, tmp_path, monkeypatch, standard_promotion, optimized
):
    """The recorded numbers of its steps after the checkpoint come out again."""
    shutil.copytree(GOLDEN / "runs" / "before_versions" / "tokens", tmp_path / "tokens")
    shutil.copytree(GOLDEN / "runs" / name / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    recorded = {line["step"]: line for line in read_metrics("run")}
    found = evaluate_run("run").metrics["eval/loss"]
    assert found == pytest.approx(recorded[10]["eval/loss"], rel=1e-5)
    assert json.loads(Path("run/config.json").read_text()).get("version") == version
    if load("run/config.json").model.qk_norm == "per_head":
        export(ExportConfig(workdir="run", out="out", tokenizer=False))
        params = huggingface.read_params("out", huggingface.read_config("out"))
        norm = sum(float(np.square(np.asarray(x, np.float64)).sum()) for x in jax.tree.leaves(params)) ** 0.5
        assert norm == pytest.approx(recorded[10]["params/norm"], rel=1e-6)
    result, output = quiet_train(load("run/config.json"))
    assert "resuming run from step 10" in output
    assert result.step == 20
    assert json.loads(Path("run/config.json").read_text())["version"] == dumps.VERSION
    for line in read_metrics("run"):
        for metric in ("train/loss", "learning_rate", "params/norm", "grads/norm"):
            if metric in recorded[line["step"]]:
                assert line[metric] == pytest.approx(recorded[line["step"]][metric], rel=1e-4), (line["step"], metric)
    assert result.metrics["eval/loss"] == pytest.approx(recorded[20]["eval/loss"], rel=1e-4)


def test_a_field_that_an_earlier_version_lacks_means_what_was_so_then(monkeypatch):
    whole = to_dict(dataclasses.replace(BASE, optimizer=HybridConfig()))
    del whole["version"], whole["optimizer"]["mu_dtype"], whole["optimizer"]["adaptive"]["mu_dtype"]
    del whole["mesh"], whole["max_grad_norm"], whole["schedule"]["end_fraction"]
    assert from_dict(TrainConfig, whole) == dataclasses.replace(BASE, optimizer=HybridConfig())
    before = {("TrainConfig", "max_grad_norm"): None, ("_DecayConfig", "end_fraction"): 0.5}
    monkeypatch.setattr(dumps, "AS_BEFORE", before)
    config = from_dict(TrainConfig, whole)
    assert (config.max_grad_norm, config.schedule.end_fraction) == (None, 0.5)
    del whole["workdir"]
    with pytest.raises(InputError, match=r"^workdir: is missing$"):
        from_dict(TrainConfig, whole)


def test_a_dump_of_this_version_is_complete():
    whole = to_dict(BASE)
    del whole["optimizer"]["rest"]["b1"], whole["optimizer"]["rest"]["eps"]
    with pytest.raises(InputError, match=r"^optimizer\.rest\.b1, optimizer\.rest\.eps: is missing$"):
        from_dict(TrainConfig, whole)


def test_a_dump_of_a_later_version_is_refused_with_that_reason():
    whole = to_dict(BASE) | {"version": dumps.VERSION + 1}
    known = f"this one knows versions up to {dumps.VERSION}"
    newer = f"the config was written by a newer jaxopt_lm; {known}; use the newer one"
    with pytest.raises(InputError) as error:
        from_dict(TrainConfig, whole)
    assert str(error.value) == f"version={dumps.VERSION + 1}: {newer}"
    whole["optimizer"]["rest"]["b9"] = 0.5
    with pytest.raises(InputError) as error:
        from_dict(TrainConfig, whole)
    assert str(error.value) == f"optimizer.rest.b9: no such field; {newer}"
    whole["version"] = dumps.VERSION
    with pytest.raises(InputError, match=r"^optimizer\.rest\.b9: no such field$"):
        from_dict(TrainConfig, whole)


@pytest.mark.parametrize("version", [None, "1", 1.0, True, -1, [1]], ids=str)
def test_a_version_is_a_whole_number(version):
    with pytest.raises(InputError, match=r"^version=.*: must be a whole number, at least 0$"):
        from_dict(TrainConfig, to_dict(BASE) | {"version": version})
