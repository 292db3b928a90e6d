"""Configs: dumps, round trips, cross-field checks, and that every field is read."""

import ast
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from jaxopt_lm.config import DataConfig, TrainConfig, parse_arg
from jaxopt_lm.config_io import (
    WithConfig,
    from_command_line,
    load,
    parse_command_line,
)
from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.dumps import REGISTRIES, differences, from_dict, to_dict, to_json
from jaxopt_lm.errors import InputError
from jaxopt_lm.model import PRESETS, preset
from jaxopt_lm.optimizers import OPTIMIZERS, SCHEDULES
from tests.write_config_dumps import DUMPS, ROOT, SPECS, STUDY_DUMPS, STUDY_SPECS, dump, dump_of_study

BASE = TrainConfig(workdir="runs/x")


@pytest.mark.parametrize("name", SPECS)
def test_shipped_configs_are_as_dumped(name):
    assert dump(SPECS[name]) == (DUMPS / f"{name}.json").read_text(), "python -m tests.write_config_dumps"


def test_every_shipped_config_has_a_dump():
    """But those of papers, whose numbers tests/papers has."""
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").glob("*.py")}
    assert shipped == {spec.partition(":")[0] for spec in (*SPECS.values(), *STUDY_SPECS.values())}
    assert {f"{name}.json" for name in SPECS} == {path.name for path in DUMPS.iterdir()}
    assert {f"{name}.json" for name in STUDY_SPECS} == {path.name for path in STUDY_DUMPS.iterdir()}


@pytest.mark.parametrize("name", STUDY_SPECS)
def test_shipped_studies_are_as_dumped(name):
    assert dump_of_study(STUDY_SPECS[name]) == (STUDY_DUMPS / f"{name}.json").read_text()


@pytest.mark.parametrize("name", SPECS)
def test_one_flag_shortens_every_shipped_config(name):
    """To 20 steps and to one. Calibration alone is longer than that: its steps come before the schedule's."""
    config = load(f"{ROOT}/{SPECS[name]}")
    for steps in (1, 20):
        if config.optimizer.calibration_steps:
            with pytest.raises(InputError, match=rf"optimizer.calibration_steps=100: must be less than .*={steps}"):
                dataclasses.replace(config, num_train_steps=steps)
        else:
            assert dataclasses.replace(config, num_train_steps=steps).num_train_steps == steps


@pytest.mark.parametrize(
    "path", sorted({Path(ROOT, spec.partition(":")[0]) for spec in SPECS.values()}), ids=lambda path: path.stem
)
def test_one_flag_shortens_every_config_file(path):
    """On the command line; where the warmup is a fraction the peak is reached, and the end."""
    arg = ":files=my_texts" if path.stem == "text" else ""
    shorter = from_command_line(WithConfig, "", [f"--config={path}{arg}", "--config.num_train_steps=20"]).config
    multipliers = shorter.schedule.multiplier(np.arange(20), 20)
    assert float(multipliers.max()) == 1.0
    assert float(multipliers[-1]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("quickstart", {"warmup_steps": 200}),
        ("quickstart_warmup_stable_decay", {"warmup_steps": 200, "decay_steps": 240}),
        ("quickstart_frozen", {"warmup_steps": 200}),
        ("text", {"warmup_steps": 200}),
        ("fineweb", {"warmup_steps": 1000}),
        ("c4", {"warmup_steps": 2500}),
        ("c4_1.2b", {"warmup_steps": 20_000}),
    ],
)
def test_fractions_are_the_steps_of_the_shipped_lengths(name, before):
    config = load(f"{ROOT}/{SPECS[name]}")
    none = {"warmup_fraction": None} | ({"decay_fraction": None} if "decay_steps" in before else {})
    steps = dataclasses.replace(config.schedule, **(none | before))
    total, lead = config.num_train_steps, config.optimizer.calibration_steps
    counts = np.arange(total)
    np.testing.assert_array_equal(
        config.schedule.multiplier(counts, total, lead), steps.multiplier(counts, total, lead)
    )


def test_a_duration_given_twice_is_refused_in_one_line():
    arguments = [f"--config={ROOT}/configs/quickstart.py", "--config.schedule.warmup_steps=50"]
    with pytest.raises(InputError, match=r"^schedule.warmup_steps=50: warmup_fraction=0.16666666666666666 is given to"):
        from_command_line(WithConfig, "", arguments)
    config = from_command_line(WithConfig, "", [*arguments, "--config.schedule.warmup_fraction=None"]).config
    assert (config.schedule.warmup_steps, config.schedule.warmup_fraction) == (50, None)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_round_trip(optimizer, schedule, tmp_path):
    config = dataclasses.replace(BASE, optimizer=OPTIMIZERS[optimizer](), schedule=SCHEDULES[schedule](warmup_steps=3))
    assert from_dict(TrainConfig, json.loads(to_json(config))) == config
    path = tmp_path / "config.json"
    path.write_text(to_json(config))
    assert from_command_line(WithConfig, "", [f"--config={path}"]).config == config


def test_overrides_and_arguments():
    spec = f"--config={ROOT}/configs/quickstart.py:optimizer=lion"
    config = from_command_line(
        WithConfig,
        "",
        [
            *(spec, "--config.optimizer.b2=0.5", "--config.model.scan_layers=True", "--config.max_grad_norm", "None"),
            *("--config.optimizer.decay_roles", "mlp", "head", "--config.workdir=elsewhere"),
        ],
    ).config
    base = load(f"{ROOT}/configs/quickstart.py:optimizer=lion")
    assert differences(to_dict(base), to_dict(config)) == {
        "max_grad_norm": (1.0, None),
        "model.scan_layers": (False, True),
        "optimizer.b2": (0.99, 0.5),
        "optimizer.decay_roles": (["embedding", "attention", "mlp", "norm", "head"], ["mlp", "head"]),
        "workdir": ("runs/quickstart_lion", "elsewhere"),
    }
    assert type(config.optimizer) is OPTIMIZERS["lion"]


def test_parse_arg():
    values = parse_arg("b=2,c=x,d=false", a=1, b=0.5, c="y", d=True)
    assert (values.a, values.b, values.c, values.d) == (1, 2.0, "x", False)
    for arg, message in (("z=1", "'z=1'"), ("a", "'a'"), ("a=1.5", "must be of type int"), ("d=no", "of type bool")):
        with pytest.raises(InputError, match=message):
            parse_arg(arg, a=1, d=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_train_steps": 0}, "num_train_steps=0: must be at least 1"),
        ({"length": 1}, "length=1: must be at least 2"),
        ({"global_batch_size": 10, "num_microbatches": 4}, "num_microbatches=4: must divide global_batch_size=10"),
        ({"z_loss": float("nan")}, "z_loss=nan: must be finite and in [0, inf)"),
        ({"z_loss": -1.0}, "z_loss=-1.0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0: must be finite and in (0, inf)"),
        ({"seed": -1}, "seed=-1: must be at least 0"),
        ({"workdir": ""}, "workdir=''"),
        ({"seed": 2**32}, "seed=4294967296: must be less than 2^32"),
        ({"num_train_steps": 2**31}, "num_train_steps=2147483648: must be less than 2^31"),
        ({"workdir": 3}, "workdir=3: must be str"),
        ({"num_train_steps": 2.5}, "num_train_steps=2.5: must be int"),
        ({"max_grad_norm": "1"}, "max_grad_norm='1': must be float | None"),
        ({"model": preset("150m", vocab_size=4000)}, "model.vocab_size=4000: must be at least data.vocab_size=4096"),
        ({"schedule": SCHEDULES["linear"](warmup_steps=10_000)}, "schedule.warmup_steps=10000: must be less than"),
        ({"schedule": SCHEDULES["linear"](warmup_steps=1.5)}, "schedule.warmup_steps=1.5: must be int"),
        ({"optimizer": OPTIMIZERS["adamw"](learning_rate="1e-3")}, "optimizer.learning_rate='1e-3': must be float"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(InputError) as error:
        dataclasses.replace(BASE, **fields)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ("mesh", {"data": 0}, "mesh.data=0: must be -1 or at least 1"),
        (
            "mesh",
            {"data": 5},
            "global_batch_size / num_microbatches=256: must be a multiple of the mesh's data",
        ),
        ("data", {"vocab_size": 0}, "data.vocab_size=0: must be at least 1"),
        ("data", {"tokens_dir": ""}, "data.tokens_dir='': must be a path"),
        ("data", {"task": "c5"}, "data.task='c5': must be one of sotu, c4, fineweb, text"),
        ("data", {"task": "text"}, "data.files=None: task text needs the place of its text"),
        ("data", {"files": "x"}, "data.files='x': task sotu brings its own text"),
        ("data", {"extra_ids": 4096}, "data.extra_ids=4096: must be below data.vocab_size=4096"),
        ("data", {"validation_fraction": 1.0}, "data.validation_fraction=1.0: must be between 0 and 1"),
        ("data", {"max_train_files": 0}, "data.max_train_files=0: must be at least 1"),
        ("data", {"vocabulary": "v", "vocabulary_sha256": "AB"}, "data.vocabulary_sha256='AB': must be 64 digits"),
        ("data", {"vocabulary_sha256": "0" * 64}, "data.vocabulary_sha256: is of the file data.vocabulary"),
        ("model", {"rope_theta": 1e300}, "model.rope_theta=1e+300: must be positive and at most 1e38"),
        ("eval", {"every_steps": 0}, "eval.every_steps=0: must be at least 1"),
        ("checkpoint", {"keep_last": 0}, "checkpoint.keep_last=0: must be at least 1"),
        ("checkpoint", {"keep_every_steps": 1500}, "checkpoint.keep_every_steps=1500: must be a multiple of"),
        ("logging", {"every_steps": -3}, "logging.every_steps=-3: must be at least 1"),
        ("model", {"num_heads": 3}, "model.num_heads=3: must divide model.embed_dim=1024, or give model.head_dim"),
        ("model", {"num_kv_heads": 3}, "model.num_kv_heads=3: must divide model.num_heads=16"),
        ("model", {"head_dim": 7}, "model.head_dim=7: must be even"),
        ("model", {"num_layers": 0}, "model.num_layers=0: must be at least 1"),
        ("model", {"norm_eps": float("inf")}, "model.norm_eps=inf: must be positive and at most 1e38"),
        ("model", {"mlp": "relu"}, "model.mlp='relu': must be one of gelu, swiglu"),
        ("model", {"compute_dtype": "float16"}, "model.compute_dtype='float16': must be one of float32"),
    ],
)
def test_sections_are_checked(section, fields, message):
    with pytest.raises(InputError) as error:
        dataclasses.replace(BASE, **{section: dataclasses.replace(getattr(BASE, section), **fields)})
    assert message in str(error.value)


def test_damaged_dumps_are_refused_by_name():
    whole = to_dict(BASE)
    for change, message in (
        ({"optimizer": whole["optimizer"] | {"name": "adagrad"}}, "optimizer.name='adagrad': must be one of adafactor"),
        ({"optimizer": whole["optimizer"] | {"b3": 1}}, "optimizer.b3: no such field"),
        ({"optimizer": 3}, "optimizer=3: must be an object"),
        ({"model": {"vocab_size": 3}}, "model.attention_inverse_layer_scale, "),
        ({"learning_rate": 1}, "learning_rate: no such field"),
    ):
        with pytest.raises(InputError) as error:
            from_dict(TrainConfig, whole | change)
        assert message in str(error.value)


def put(fields, path, value):
    """Sets a dump's field by its dotted name."""
    *outer, name = path.split(".")
    for section in outer:
        fields = fields[section]
    fields[name] = value


@pytest.mark.parametrize(
    ("optimizer", "path", "value", "message"),
    [
        ("muon", "optimizer.rest.eps", 0.0, "=0.0: must be finite in float32 and in (0, inf)"),
        ("muon", "optimizer.eps", 0.0, "=0.0: must be finite in float32 and in (0, inf)"),
        ("muon", "optimizer.rest.learning_rate", -1.0, "=-1.0: must be finite in float32 and in [0, inf)"),
        ("hybrid", "optimizer.adaptive.decay_roles", ["bias"], "=['bias']: roles are embedding, "),
        ("adamw", "schedule.end_fraction", 2.0, "=2.0: must be finite in float32 and in [0, 1]"),
        ("adamw", "model.num_heads", 3, "=3: must divide model.embed_dim=1024"),
        ("adamw", "data.seed", -1, "=-1: must be at least 0"),
    ],
)
def test_an_error_names_the_dotted_path(optimizer, path, value, message, tmp_path):
    """In a dump and on the command line, however deep the field."""
    whole = to_dict(dataclasses.replace(BASE, optimizer=OPTIMIZERS[optimizer]()))
    sound = tmp_path / "config.json"
    sound.write_text(json.dumps(whole))
    put(whole, path, value)
    texts = map(str, value) if isinstance(value, list) else [str(value)]
    for read in (
        lambda: from_dict(TrainConfig, whole),
        lambda: from_command_line(WithConfig, "", [f"--config={sound}", f"--config.{path}", *texts]),
    ):
        with pytest.raises(InputError) as error:
            read()
        assert str(error.value).startswith(path + message)


def test_what_does_not_fit_inside_a_nested_config_is_named_by_its_path():
    for optimizer, message in (
        (OPTIMIZERS["muon"](rest=OPTIMIZERS["adamw"](b1="x")), "optimizer.rest.b1='x': must be float"),
        (
            OPTIMIZERS["hybrid"](adaptive=OPTIMIZERS["frozen"](calibration_steps=10_000)),
            "optimizer.adaptive.calibration_steps=10000: must be less than num_train_steps=10000",
        ),
        (OPTIMIZERS["frozen"](calibration_steps=10_000), "optimizer.calibration_steps=10000: must be less than"),
    ):
        with pytest.raises(InputError) as error:
            dataclasses.replace(BASE, optimizer=optimizer)
        assert str(error.value).startswith(message)


def test_what_prepare_refuses_is_named_as_its_flag():
    with pytest.raises(InputError, match=r"^vocab_size=0: must be at least 1"):
        parse_command_line(TokensConfig, "", ["--vocab_size=0"])


def test_a_bool_of_the_command_may_stand_alone():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Words:
        dry_run: bool = False
        json: bool = True
        steps: int = 1

    def parsed(*argv: str) -> Words:
        return parse_command_line(Words, "", argv)

    assert parsed() == Words()
    assert (
        parsed("--dry-run", "--json=False") == parsed("--json", "False", "--dry_run") == Words(dry_run=True, json=False)
    )
    assert parsed("--dry_run", "False", "--steps=2") == Words(steps=2)


@pytest.mark.parametrize(
    ("flag", "mend"),
    [
        ("--config.num_train_step=5", "did you mean --config.num_train_steps?"),
        ("--config.optimizer.beta2=.9", "did you mean --config.optimizer.b2 or --config.optimizer.b1"),
        ("--nonsense=1", "see --help"),
    ],
)
def test_an_unknown_option_is_named_with_what_was_meant(flag, mend):
    with pytest.raises(InputError) as refused:
        from_command_line(WithConfig, "", [f"--config={ROOT}/configs/quickstart.py", flag])
    assert str(refused.value).startswith(f"{flag}: unknown option; {mend}")


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("model", "vocab_size", "abc"),
        ("model", "norm_eps", None),
        ("eval", "every_steps", "3"),
        ("mesh", "data", "x"),
        ("optimizer", "decay_roles", 5),
        ("optimizer", "decay_roles", [["a"]]),
        ("optimizer", "name", ["a"]),
        ("schedule", "warmup_steps", 2.5),
        ("model", "mlp", ["gelu"]),
        ("data", "seed", True),
    ],
)
def test_wrong_types_in_a_dump_are_refused_by_name(section, name, value):
    whole = to_dict(BASE)
    whole[section][name] = value
    with pytest.raises(InputError, match=rf"{section}.{name}=.*: must be "):
        from_dict(TrainConfig, whole)


def test_presets_are_by_name():
    assert set(PRESETS) == {"150m", "300m", "600m", "1.2b", "83m", "134m", "500m", "1b", "quickstart", "text"}
    assert preset("134m", qk_norm="none").qk_norm == "none"
    with pytest.raises(InputError, match="model preset '7b': must be one of 150m"):
        preset("7b")


def attributes_read(path: Path) -> set[str]:
    """Every `a.b` that a file reads outside its `__post_init__` checks, as "b" and, one level up, as "a.b"."""
    tree = ast.parse(path.read_text())
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__post_init__"]
    ignored = {id(inner) for check in checks for inner in ast.walk(check)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in ignored:
            owner = getattr(node.value, "attr", getattr(node.value, "id", ""))
            found |= {node.attr, f"{owner}.{node.attr}"}
    return found


def test_every_field_is_read():
    """Each field is read as `section.field` somewhere, or in the one module that is handed its section."""
    package = ROOT / "jaxopt_lm"
    anywhere = set().union(*(attributes_read(path) for path in package.rglob("*.py")))
    handed = {
        "model": [package / "model" / "decoder.py", package / "model" / "config.py"],
        "data": [
            package / "training" / "ensure_tokens.py",
            package / "data" / "tasks.py",
            package / "data" / "prepare.py",
        ],
        "checkpoint": [package / "runs" / "checkpoints.py"],
        "mesh": [package / "training" / "sharding.py"],
        "distributed": [package / "processes.py"],
        "optimizer": list((package / "optimizers").glob("*.py")),
        "schedule": [package / "optimizers" / "schedules.py"],
    }
    for field in dataclasses.fields(BASE):
        section = getattr(BASE, field.name)
        if not dataclasses.is_dataclass(section):
            assert {f"config.{field.name}", f"hparams.{field.name}"} & anywhere, field.name
            continue
        base = next((base for base in REGISTRIES if isinstance(section, base)), None)
        classes = REGISTRIES[base].values() if base else [type(section)]
        here = set().union(*(attributes_read(path) for path in handed.get(field.name, [])))
        for inner in {inner.name for cls in classes for inner in dataclasses.fields(cls)}:
            assert f"{field.name}.{inner}" in anywhere or inner in here, f"{field.name}.{inner}"


def test_identity_leaves_out_what_moves_no_number():
    """Field by field, so that a new one of a section that is compared is compared unless it is named here."""
    data = DataConfig(task="text", files="t", vocabulary="v", vocabulary_sha256="0" * 64)
    config = dataclasses.replace(BASE, data=data)
    left_out = differences(config.identity(), to_dict(config)).keys()
    assert left_out == {
        *("version", "workdir", "distributed", "mesh", "logging", "checkpoint", "num_microbatches", "model.remat"),
        *("data.tokens_dir", "data.files", "data.vocabulary", "data.vocabulary_sha256", "data.verify"),
    }


def test_no_config_file_is_one_line(tmp_path):
    for spec, message in (
        ("missing.py", "no such file missing.py"),
        ("missing", "must be FILE.py[:key=value,…] or FILE.json"),
        (f"{tmp_path}/x.json:a=1", "no such file"),
    ):
        with pytest.raises(InputError) as error:
            load(spec)
        assert message in str(error.value)
    for text in ("{", "[" * 100_000):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match="not JSON"):
            load(f"{tmp_path}/x.json")
    with pytest.raises(InputError, match="--config: expected one argument"):
        from_command_line(WithConfig, "", ["--config"])
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b" / "config.json").write_text(to_json(BASE))
    assert load(f"{tmp_path}/a:b/config.json") == BASE
    (tmp_path / "x.py").write_text("")
    with pytest.raises(InputError, match=r"has no get_config\(arg\)"):
        load(f"{tmp_path}/x.py")
    (tmp_path / "x.py").write_text("def get_config(arg):\n    return 3\n")
    with pytest.raises(InputError, match="get_config returned int"):
        load(f"{tmp_path}/x.py")


def test_docstrings_of_config_files_say_how_to_run_them():
    for path in Path(ROOT, "configs").rglob("*.py"):
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        of_study = f"configs/{path.name}" in STUDY_SPECS.values() or path.is_relative_to(ROOT / "configs/papers")
        command = "sweep" if of_study else "train"
        assert f"python -m jaxopt_lm.{command} --config={path.relative_to(ROOT).as_posix()}" in doc, path
