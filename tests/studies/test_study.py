"""Studies as values: axes, configs of their runs, dumps, and what is refused."""

import dataclasses
import json

import pytest

from jaxopt_lm.config import TrainConfig, choose
from jaxopt_lm.errors import InputError
from jaxopt_lm.optimizers import AdamWConfig, FrozenConfig, HybridConfig, LionConfig
from jaxopt_lm.studies import Arm, Better, Rules, SameRanking, Study, chain, over, prod, zipped
from jaxopt_lm.studies.study import Run, run_id
from tests.write_config_dumps import ROOT

BASE = TrainConfig(workdir="x", seed=5)
ADAMW = Arm(name="adamw", optimizer=AdamWConfig(b2=0.9), learning_rates=(1e-3, 1e-2), nuisance=(("b1", (0.8,)),))


def study(*arms: Arm, **fields) -> Study:
    return Study(**{"base": BASE, "arms": arms or (ADAMW,)} | fields)


def lion(*rates: float, **fields) -> Arm:
    return Arm(name="x", optimizer=LionConfig(learning_rate=1e-3), learning_rates=rates, **fields)


def test_axes():
    a, b = over("model.mlp_dim", 16, 32), over("optimizer.b1", 0.8, 0.9)
    assert prod(a, b) == [{"model.mlp_dim": x, "optimizer.b1": y} for x in (16, 32) for y in (0.8, 0.9)]
    assert zipped(a, b) == [{"model.mlp_dim": 16, "optimizer.b1": 0.8}, {"model.mlp_dim": 32, "optimizer.b1": 0.9}]
    assert chain(a, b) == [*a, *b]
    with pytest.raises(InputError, match="zipped: its axes have 2, 1 points"):
        zipped(a, over("seed", 1))
    with pytest.raises(InputError, match="seed: is in two axes"):
        prod(over("seed", 1), over("seed", 2))


def test_the_config_of_a_run():
    settings = prod(over("model.mlp_dim", 16, 32), over("optimizer.b1", 0.7))
    asked = study(settings=tuple(settings))
    assert asked.setting_names == ["mlp_dim=16, b1=0.7", "mlp_dim=32, b1=0.7"]
    config = asked.config(Run("mlp_dim=32, b1=0.7", "adamw", (("weight_decay", 0.3),), 1e-2, 4))
    assert config == dataclasses.replace(
        BASE,
        model=dataclasses.replace(BASE.model, mlp_dim=32),
        optimizer=AdamWConfig(learning_rate=1e-2, b1=0.7, b2=0.9, weight_decay=0.3),
        seed=9,
        data=dataclasses.replace(BASE.data, seed=4),
    )


def test_a_setting_may_have_a_name():
    named = study(settings=({"name": "wide", "model.mlp_dim": 32}, *over("model.mlp_dim", 16)))
    assert named.setting_names == ["wide", "mlp_dim=16"]
    assert named.config(Run("wide", "adamw", (), 1e-2, 0)).model.mlp_dim == 32


def test_one_value_of_two_fields():
    config = study().config(Run("", "adamw", (("b1=b2", 0.8),), 1e-2, 0))
    assert (config.optimizer.b1, config.optimizer.b2) == (0.8, 0.8)
    assert study(dataclasses.replace(ADAMW, nuisance=(("b1=b2", (0.8, 0.9)),)))


def test_an_arm_may_have_values_of_its_own_and_another_rate():
    adaptive = HybridConfig(adaptive=AdamWConfig(learning_rate=1e-3), adaptive_roles=("embedding", "attention"))
    own = Arm(
        name="own",
        optimizer=adaptive,
        learning_rates=(1e-2, 1e-1),
        rate="adaptive.learning_rate",
        values={"max_grad_norm": None},
    )
    asked = study(ADAMW, own)
    config = asked.config(Run("", "own", (), 1e-1, 0))
    assert config.max_grad_norm is None
    assert config.optimizer == dataclasses.replace(adaptive, adaptive=AdamWConfig(learning_rate=1e-1))
    assert asked.config(Run("", "adamw", (), 1e-2, 0)).max_grad_norm == 1.0


def test_an_arm_competes_in_the_settings_that_it_names():
    asked = study(ADAMW, lion(1e-3, settings=("mlp_dim=32",)), settings=tuple(over("model.mlp_dim", 16, 32)))
    found = [(setting, arm.name) for setting, arm in asked.contests]
    assert found == [("mlp_dim=16", "adamw"), ("mlp_dim=32", "adamw"), ("mlp_dim=32", "x")]


def test_calibration_is_added_to_the_length():
    frozen = Arm(name="frozen", optimizer=FrozenConfig(calibration_steps=7), learning_rates=(1e-3,))
    lengths = study(frozen, settings=({}, {"num_train_steps": 50}))
    assert lengths.config(Run("", "frozen", (), 1e-3, 0)).num_train_steps == BASE.num_train_steps + 7
    assert lengths.config(Run("num_train_steps=50", "frozen", (), 1e-3, 0)).num_train_steps == 57


def test_ids_are_of_what_decides_a_runs_numbers():
    run = Run("", "adamw", (), 1e-3, 0)
    one, other = (study(base=dataclasses.replace(BASE, workdir=name)) for name in ("x", "y"))
    assert run_id(one.config(run)) == run_id(other.config(run))
    assert len(run_id(one.config(run))) == 16
    assert len({run_id(one.config(run._replace(seed=i, learning_rate=r))) for i in (0, 1) for r in (1e-3, 1e-2)}) == 4


def test_a_dump_is_read_back(tmp_path):
    own = choose(f"{ROOT}/examples/my_optimizer.py:Mine", AdamWConfig())
    mine = Arm(
        name="mine",
        optimizer=own,
        learning_rates=(1e-4, 1e-3),
        values={"max_grad_norm": None},
        settings=("mlp_dim=32",),
    )
    claims = (
        SameRanking(name="a", text="b", arms=("adamw", "mine")),
        Better(name="c", text="d", arm="mine", by=0.1, across=("mlp_dim=32",)),
    )
    widths, rules = tuple(over("model.mlp_dim", 16, 32)), Rules(seeds=7, level=0.9)
    asked = study(ADAMW, mine, settings=widths, rules=rules, claims=claims)
    for name, content in asked.sources().items():
        (tmp_path / name).write_bytes(content)
    again = Study.from_dict(json.loads(json.dumps(asked.to_dict())), tmp_path)
    assert again.to_dict() == asked.to_dict()
    assert again.claims == claims
    run = Run("mlp_dim=32", "mine", (), 1e-3, 2)
    assert run_id(again.config(run)) == run_id(asked.config(run))
    older = asked.to_dict()
    older["arms"] = [{name: older["arms"][0][name] for name in ("name", "config", "learning_rates", "nuisance")}]
    assert Study.from_dict(older | {"claims": []}, tmp_path).arms == (ADAMW,)
    with pytest.raises(InputError, match=r"study\.json is not that of a study"):
        Study.from_dict({"base": asked.to_dict()["base"]}, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Study(base=BASE, arms=()), "has no arms"),
        (lambda: study(ADAMW, ADAMW), "two arms are called adamw"),
        (lambda: study(settings=()), "settings is empty"),
        (lambda: study(settings=tuple(over("model.mlp_dim", 16, 16))), "two settings are called mlp_dim=16"),
        (lambda: study(settings=tuple(over("model.width", 16))), "arm adamw, width=16: model.width: there is no such"),
        (lambda: study(settings=tuple(over("model", 16))), "model=16: must be ModelConfig"),
        (lambda: study(settings=tuple(over("optimizer.rho", 16))), "rho: there is no such field"),
        (lambda: lion(), "arm x: learning_rates is empty"),
        (lambda: lion(0.0, 1.0), r"learning_rates=0\.0: must be finite"),
        (lambda: lion(1.0, float("inf")), "learning_rates=inf"),
        (lambda: lion(2.0, 1.0), "must grow"),
        (lambda: lion(1.0, nuisance=(("b1", ()),)), "axis b1 is empty"),
        (
            lambda: study(dataclasses.replace(ADAMW, nuisance=(("b9", (1.0,)),))),
            "adamw: b9: there is no such field",
        ),
        (
            lambda: study(dataclasses.replace(ADAMW, nuisance=(("b1", (1.0,)),))),
            r"adamw: AdamWConfig\.b1=1\.0: must",
        ),
        (lambda: study(claims=(Better(name="c", text="", arm="x"),)), "claim c: there is no arm x; name one of"),
        (
            lambda: study(claims=(Better(name="c", text="", arm="adamw", across=("wide",)),)),
            "claim c: there is no setting wide; name one of",
        ),
        (lambda: study(ADAMW, lion(1e-3, settings=("wide",))), "arm x: there is no setting wide; name one of"),
        (lambda: study(lion(1e-3, settings=("",))), "arm x: is the baseline; leave out its settings"),
        (lambda: study(lion(1e-3, values={"model.width": 16})), "arm x: model.width: there is no such"),
        (lambda: Rules(seeds=-1), r"study\.seeds=-1: must be at least 0"),
        (lambda: Rules(level=1.0), r"study\.level=1\.0: must be in \[0\.5, 1\)"),
    ],
)
def test_bad_studies_are_one_line(make, message):
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
