"""A user's own optimizer in a run: found, dumped, kept, read back, chosen by name, and refused where it changed."""

import dataclasses
import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxopt_lm.config import TrainConfig, choose, chosen
from jaxopt_lm.config_io import WithConfig, from_command_line, load
from jaxopt_lm.dumps import from_dict, sources, to_dict, to_json
from jaxopt_lm.errors import InputError
from jaxopt_lm.model import PRESETS, preset
from jaxopt_lm.optimizers import AdamWConfig, FromOptax, HybridConfig, LionConfig, MuonConfig
from jaxopt_lm.optimizers.schedules import ConstantConfig, LinearConfig, WarmupCosineConfig
from jaxopt_lm.optimizers.sources import LOADED
from jaxopt_lm.training.evaluation import evaluate_run
from tests.training.test_run import quiet_train
from tests.write_config_dumps import ROOT

pytestmark = pytest.mark.usefixtures("standard_promotion")

EXAMPLE = ROOT / "examples" / "my_optimizer.py"
QUICKSTART = f"--config={ROOT}/configs/quickstart.py"
BASE = TrainConfig(workdir="runs/x")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with the example, where a user stands; what is imported from it is forgotten."""
    shutil.copy(EXAMPLE, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


def parsed(*arguments: str) -> TrainConfig:
    return from_command_line(WithConfig, "", arguments).config


def kept(config: TrainConfig, folder: Path) -> Path:
    """What a run keeps: its dump and its sources."""
    folder.mkdir()
    for name, content in sources(config).items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text(to_json(config))
    return folder / "config.json"


def short(tiny, **fields) -> TrainConfig:
    return dataclasses.replace(tiny, num_train_steps=12, **fields)


def forget(module: str, monkeypatch) -> None:
    """As a new process would: nothing of it is imported."""
    for name in list(sys.modules):
        if re.match(rf"{module}\b", name):
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delitem(LOADED, name, raising=False)


def test_a_run_is_read_back_where_its_folder_alone_is_left(here, tiny, monkeypatch):
    """Evaluated and gone on with; the user's file is gone and nothing of it is imported."""
    optimizer = dataclasses.replace(choose("my_optimizer.py:Mine", AdamWConfig()), b1=0.8)
    quiet_train(short(tiny, optimizer=optimizer, workdir="run"))
    assert (here / "run" / "my_optimizer.py").read_bytes() == EXAMPLE.read_bytes()
    assert json.loads(Path("run/config.json").read_text())["optimizer"]["name"] == "my_optimizer.py:Mine"
    shutil.rmtree("run/checkpoints/12")
    Path("my_optimizer.py").unlink()
    forget("my_optimizer", monkeypatch)
    assert evaluate_run("run").step == 10
    config = load("run/config.json")
    assert (type(config.optimizer) is not type(optimizer), config.optimizer.b1) == (True, 0.8)
    result, output = quiet_train(config)
    assert result.step == 12
    assert "resuming run from step 10" in output


def test_changed_source_is_refused_by_name(here, tiny):
    def config():
        return short(tiny, optimizer=choose("my_optimizer.py:Mine", AdamWConfig()), workdir="run")

    quiet_train(config())
    before = Path("my_optimizer.py").read_text()
    Path("my_optimizer.py").write_text(before + "# changed\n")
    with pytest.raises(InputError) as error:
        quiet_train(config())
    assert str(error.value) == (
        "the source of optimizer=my_optimizer.py:Mine (the run keeps the one it began with): cannot change in run; "
        "give another --config.workdir"
    )
    assert Path("run/my_optimizer.py").read_text() == before
    Path("my_optimizer.py").write_text(before)
    assert quiet_train(config())[0].step == 12


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "kept/my_optimizer.py: no such file; it is the source of my_optimizer.py:Mine"),
        (lambda path: path.write_text("x"), "kept/my_optimizer.py: is not the source that the run began with"),
    ],
    ids=["missing", "changed"],
)
def test_a_kept_source_is_missed(here, damage, message):
    path = kept(dataclasses.replace(BASE, optimizer=choose("my_optimizer.py:Mine", AdamWConfig())), here / "kept")
    damage(here / "kept" / "my_optimizer.py")
    with pytest.raises(InputError) as error:
        load("kept/config.json")
    assert str(error.value).startswith(f"optimizer.name: {message}")
    assert path.exists()


def test_whoever_names_it_the_dump_is_the_same(here):
    """As a file, as a module, imported by a config file beside it, and from another folder."""
    (here / "mine.py").write_text(
        "from jaxopt_lm.config import TrainConfig\n"
        "def get_config(arg):\n"
        "    from my_optimizer import Mine\n"
        "    return TrainConfig(workdir='runs/x', optimizer=Mine())\n"
    )
    (here / "other").mkdir()
    shutil.copy(EXAMPLE, here / "other")
    configs = [load("mine.py")]
    for spec in ("my_optimizer.py:Mine", "my_optimizer:Mine", "./other/my_optimizer.py:Mine"):
        configs.append(parsed("--config=mine.py", f"--config.optimizer={spec}"))
    assert len({to_json(config) for config in configs}) == 1
    assert all(sources(config) == {"my_optimizer.py": EXAMPLE.read_bytes()} for config in configs)


def test_a_name_with_dots_is_a_files(here):
    (here / "my_optimizer.py").rename(here / "mine.v2.py")
    config = parsed(QUICKSTART, "--config.optimizer=mine.v2.py:Mine")
    assert to_dict(config)["optimizer"]["name"] == "mine.v2.py:Mine"
    assert load(str(kept(config, here / "kept"))) == config
    assert (here / "kept" / "mine.v2.py").exists()


def test_a_module_that_is_imported_anew_is_the_new_one(here):
    import my_optimizer  # pyright: ignore[reportMissingImports]

    old = my_optimizer.Mine
    changed = EXAMPLE.read_text() + "# changed\n"
    (here / "my_optimizer.py").write_text(changed)
    config = dataclasses.replace(BASE, optimizer=importlib.reload(my_optimizer).Mine())
    assert sources(config) == {"my_optimizer.py": changed.encode()}
    with pytest.raises(InputError, match="could not find it again"):
        sources(dataclasses.replace(BASE, optimizer=old()))


CONFIG_FILE = """
from __future__ import annotations

import dataclasses

import optax

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.optimizers import FromOptax, MuonConfig, OptimizerConfig, traceable


@traceable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Here(OptimizerConfig):
    learning_rate: float = 0.1
    inner: OptimizerConfig | None = None
    betas: tuple[float, ...] = (0.9, 0.99)

    def direction(self, labels):
        return optax.scale_by_adam(*self.betas)


def function(learning_rate, *, beta=0.5):
    return optax.sgd(learning_rate, beta)


def get_config(arg):
    made = {"class": Here(inner=Here()), "function": FromOptax(function, {"learning_rate": 0.1})}
    return TrainConfig(workdir="runs/x", optimizer=MuonConfig(rest=made[arg]))
"""


@pytest.mark.parametrize("arg", ["class", "function"])
def test_what_a_config_file_defines_is_kept_with_the_file(here, arg):
    (here / "mine.py").write_text(CONFIG_FILE)
    config = load(f"mine.py:{arg}")
    path = kept(config, here / "kept")
    assert sources(config) == {"mine.py": CONFIG_FILE.encode()}
    (here / "mine.py").unlink()
    assert load(str(path)) == config
    assert to_dict(config)["optimizer"]["rest"]["name"] == f"mine.py:{'Here' if arg == 'class' else 'function'}"


def test_a_module_of_a_package_is_imported_while_it_is_the_same(here, monkeypatch):
    """Then what the run keeps is executed in its place, with its relative imports."""
    package = here / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("from .optimizer import Mine\n")
    (package / "rates.py").write_text("RATE = 0.25\n")
    source = "from .rates import RATE\n" + EXAMPLE.read_text().replace("1e-3", "RATE")
    (package / "optimizer.py").write_text(source)
    config = dataclasses.replace(BASE, optimizer=choose("their_package:Mine", AdamWConfig()))
    assert config.optimizer.learning_rate == 0.25
    assert to_dict(config)["optimizer"]["name"] == "their_package.optimizer:Mine"
    path = kept(config, here / "kept")
    assert type(load(str(path)).optimizer) is type(config.optimizer)
    (package / "optimizer.py").write_text(source + "# changed\n")
    forget("their_package", monkeypatch)
    again = load(str(path))
    assert type(again.optimizer) is not type(config.optimizer)
    assert to_json(again) == path.read_text()
    changed = dataclasses.replace(BASE, optimizer=choose("their_package:Mine", AdamWConfig()))
    assert to_json(changed) != path.read_text()


@pytest.mark.parametrize(
    "optimizer",
    [
        FromOptax("optax.contrib:muon", {"learning_rate": 0.02, "consistent_rms": 0.2, "ns_coeffs": (3.0, -4.0, 2.0)}),
        FromOptax("optax:sgd", {"learning_rate": 1.0, "momentum": None}, weight_decay=0.1, decay_roles=("mlp",)),
        HybridConfig(adaptive=FromOptax("optax:lion", {"learning_rate": 1e-4}, mu_dtype="bfloat16")),
    ],
    ids=["muon", "sgd", "nested"],
)
def test_functions_of_optax_come_back_equal(optimizer, tmp_path):
    config = dataclasses.replace(BASE, optimizer=optimizer)
    assert load(str(kept(config, tmp_path / "kept"))) == config
    assert {"_muon.py", "alias.py"} & {path.name for path in (tmp_path / "kept").iterdir()}


def test_two_sources_of_one_name_are_refused(here):
    (here / "other").mkdir()
    (here / "other" / "my_optimizer.py").write_text(EXAMPLE.read_text() + "# another\n")
    inner = choose("other/my_optimizer.py:Mine", AdamWConfig())
    outer = choose("my_optimizer.py:Mine", AdamWConfig())
    assert sources(dataclasses.replace(BASE, optimizer=MuonConfig(rest=inner))).keys() == {"my_optimizer.py"}
    both = HybridConfig(adaptive=MuonConfig(rest=inner))
    with pytest.raises(InputError, match=r"my_optimizer\.py:Mine: another source of this config is named my_optimizer"):
        sources(Two(outer, both))


@dataclasses.dataclass(frozen=True)
class Two:
    one: object
    other: object


def test_a_class_that_no_run_could_find_again_is_refused(tiny):
    class Inside(type(choose(f"{EXAMPLE}:Mine", AdamWConfig()))):
        pass

    with pytest.raises(InputError, match="must be decorated"):
        short(tiny, optimizer=Inside())
    namespace: dict = {"__name__": "__main__"}
    exec(EXAMPLE.read_text(), namespace)  # as a cell of a notebook would
    with pytest.raises(InputError, match=r"^Mine: is made in a function, in a notebook or at a prompt"):
        quiet_train(short(tiny, optimizer=namespace["Mine"]()))
    assert not Path(tiny.workdir).exists()


def test_what_a_file_imports_is_not_kept(here, monkeypatch):
    (here / "mine.py").write_text("import beside_it\n" + EXAMPLE.read_text())
    (here / "beside_it.py").write_text("")
    path = kept(dataclasses.replace(BASE, optimizer=choose("mine.py:Mine", AdamWConfig())), here / "kept")
    (here / "beside_it.py").unlink()
    (here / "mine.py").unlink()
    forget("mine", monkeypatch)
    forget("beside_it", monkeypatch)
    with pytest.raises(InputError, match=r"kept/mine\.py: No module named 'beside_it'; put what it imports beside it"):
        load(str(path))


def test_an_optimizer_and_a_schedule_are_chosen_by_name():
    config = parsed(QUICKSTART, "--config.optimizer=lion", "--config.schedule", "linear")
    assert (config.optimizer, config.schedule) == (LionConfig(), LinearConfig())
    assert config.num_train_steps == 1200
    again = parsed(QUICKSTART, "--config.optimizer=adamw", "--config.optimizer.b1=0.8", "--config.schedule=constant")
    assert again.optimizer == AdamWConfig(learning_rate=6e-3, b1=0.8, b2=0.99, weight_decay=0.1)
    assert again.schedule == ConstantConfig()
    inner = parsed(f"{QUICKSTART}:optimizer=muon", "--config.optimizer.rest=lion", "--config.optimizer.rest.b2=0.5")
    assert inner.optimizer == MuonConfig(rest=LionConfig(b2=0.5))
    late = parsed(QUICKSTART, "--config.optimizer=frozen", "--config.optimizer.calibration_steps=7")
    assert late.optimizer.calibration_steps == 7


def test_ones_own_is_chosen_by_where_it_is(here):
    config = parsed(QUICKSTART, "--config.optimizer=my_optimizer.py:Mine", "--config.optimizer.learning_rate=0.5")
    assert config.optimizer == choose("my_optimizer.py:Mine", AdamWConfig()).__class__(learning_rate=0.5)
    lion = parsed(QUICKSTART, "--config.optimizer=optax:lion", "--config.optimizer.learning_rate=0.5")
    assert lion.optimizer == FromOptax("optax:lion", {"learning_rate": 0.5})
    path = kept(dataclasses.replace(BASE, optimizer=dataclasses.replace(config.optimizer, b1=0.7)), here / "kept")
    assert parsed(f"--config={path}", "--config.optimizer=my_optimizer.py:Mine").optimizer.b1 == 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.optimizer=lionn"], "--config.optimizer: 'lionn': must be one of adafactor, "),
        (["--config.optimizer"], "--config.optimizer: expected one argument"),
        (["--config.schedule=lion"], "--config.schedule: 'lion': must be one of constant, "),
        (
            ["--config.schedule=optax:lion"],
            "--config.schedule: 'optax._src.alias:lion': must be a subclass of",
        ),
        (["--config.optimizer=optax:lion"], "--config.optimizer.learning_rate: is missing; give it a value"),
        (
            ["--config.optimizer=optax:lion", "--config.optimizer.learning_rate=-1"],
            "optimizer.learning_rate=-1.0: ",
        ),
        (["--config.optimizer=frozen", "--config.num_train_steps=9"], "optimizer.calibration_steps=1000: must be less"),
        (["--config.optimizer=os:getcwd"], "--config.optimizer: getcwd: is made in a function, in a notebook or"),
    ],
    ids=range(8),
)
def test_a_wrong_choice_is_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        parsed(QUICKSTART, *arguments)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_help_says_what_does_not_carry_over(capsys):
    with pytest.raises(SystemExit):
        parsed(QUICKSTART, "--config.optimizer=lion", "--help")
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--config.optimizer=NAME and --config.schedule=NAME choose another one: of adafactor, ",
        "Its fields then have its own defaults, whatever those of the same name are in the config",
        "Weight of the momentum in the direction. (default: 0.9)",
    ):
        assert part in text


@pytest.mark.parametrize(
    "spec", ["c4.py:size=300m", "fineweb.py:size=83m", "quickstart.py:size=83m", "text.py:files=x,size=83m"]
)
def test_every_config_file_takes_optimizer_schedule_and_size(spec, here):
    plain = load(f"{ROOT}/configs/{spec}")
    assert isinstance(plain.schedule, WarmupCosineConfig)
    assert isinstance(plain.optimizer, AdamWConfig)
    assert plain.model.num_layers in (12, 24)
    config = load(f"{ROOT}/configs/{spec},optimizer=my_optimizer.py:Mine,schedule=linear")
    assert to_dict(config)["optimizer"]["name"] == "my_optimizer.py:Mine"
    assert config.schedule == dataclasses.replace(LinearConfig(), warmup_fraction=plain.schedule.warmup_fraction)
    assert config.workdir == f"{plain.workdir}_Mine_linear"
    with pytest.raises(InputError, match=r"config argument optimizer='lionn': must be one of adafactor, "):
        load(f"{ROOT}/configs/{spec},optimizer=lionn")
    with pytest.raises(InputError, match=r"optimizer=optax:lion: has no default for learning_rate; leave it out"):
        load(f"{ROOT}/configs/{spec},optimizer=optax:lion")


@pytest.mark.parametrize("size", PRESETS)
@pytest.mark.parametrize("spec", ["fineweb.py:", "quickstart.py:", "text.py:files=x,vocab_size=8000,"])
def test_the_size_may_be_any_preset_with_the_vocabulary_of_the_tokens(spec, size):
    config = load(f"{ROOT}/configs/{spec}size={size}")
    assert config.model == preset(size, vocab_size=config.data.vocab_size)


def test_the_name_of_a_run_has_what_was_chosen():
    arg = "files=x,schedule=linear,optimizer=a/b.py:Mine"
    assert chosen(arg, "optimizer", "schedule") == "_linear_Mine"
    assert chosen("", "optimizer") == ""


def test_a_dump_without_the_hash_of_its_source_is_refused():
    whole = to_dict(dataclasses.replace(BASE, optimizer=FromOptax("optax:lion", {"learning_rate": 1.0})))
    del whole["optimizer"]["source_sha256"]
    with pytest.raises(InputError, match=r"^optimizer\.name='optax\._src\.alias:lion': must be one of .*SHA-256"):
        from_dict(TrainConfig, whole)
