"""The command lines as a user meets them: help that is quick and complete, bad input in one line with exit code 2."""

import dataclasses
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxopt_lm import report
from jaxopt_lm.config import TrainConfig
from jaxopt_lm.errors import report_input_errors
from tests import forked
from tests.conftest import command_line, write_tokens
from tests.write_config_dumps import ROOT

QUICKSTART = f"--config={ROOT}/configs/quickstart.py"


def run(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    """`python ARGUMENTS`: modules in forked processes, code in a new interpreter."""
    if arguments[0] == "-m":
        return forked.run([sys.executable, *arguments], cwd=cwd)
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120, cwd=cwd
    )


def test_help_loads_no_tensorflow_and_starts_no_backend():
    """Of every command, one after another in one interpreter."""
    code = """
import sys, runpy
from jax._src import xla_bridge
for module in ("train", "prepare", "plan", "evaluate", "export", "report"):
    sys.argv = [module, "--help"]
    try:
        runpy.run_module(f"jaxopt_lm.{module}", run_name="__main__")
    except SystemExit as stop:
        assert stop.code == 0, (module, stop.code)
    heavy = [name for name in ("tensorflow", "seqio", "tensorflow_datasets", "flax", "orbax") if name in sys.modules]
    assert not heavy, (module, heavy)
    assert not xla_bridge._backends, module
    print(f"that was {module}")
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    shown = re.split(r"that was \w+\n", done.stdout)
    assert len(shown) == 7
    assert "--config" in shown[0]
    assert all("usage: " in text for text in shown[:-1])


def test_help_shows_every_field_with_doc_and_default():
    shown = run("-m", "jaxopt_lm.train", QUICKSTART, "--help")
    text = " ".join(line.strip("│ ") for line in shown.stdout.splitlines())

    def check(config, path):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                check(value, f"{path}.{field.name}")
            else:
                assert f"{path}.{field.name} " in text

    from jaxopt_lm.config_io import load

    check(load(f"{ROOT}/configs/quickstart.py"), "--config")
    assert "Peak learning rate; the schedule multiplies it. (default: 0.006)" in text


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    """Also of those that are imported late; what a user's own file lacks, or another package, keeps its traceback."""
    for name in ("tyro", "matplotlib"):
        with monkeypatch.context() as patched:
            patched.delitem(sys.modules, "jaxopt_lm.studies.figures", raising=False)
            patched.setitem(sys.modules, name, None)
            patched.setattr(sys, "argv", ["report", "--workdir=x"])
            assert report.main() == 2
        line = f"error: {name} is not installed, which this command needs: pip install 'jaxopt_lm[train]'\n"
        assert capsys.readouterr().err == line

    def main():
        import not_there  # noqa: F401  # pyright: ignore

    with pytest.raises(ModuleNotFoundError):
        report_input_errors(main)()


def test_optimizers_need_jax_and_optax_alone():
    code = """
import sys
import jaxopt_lm.optimizers
third_party = {"flax", "orbax", "tyro", "rich", "grain", "tensorboardX", "tensorflow", "seqio", "matplotlib", "chex"}
assert not third_party & set(sys.modules), third_party & set(sys.modules)
"""
    assert run("-c", code).returncode == 0


def assert_one_line(done: subprocess.CompletedProcess, *parts: str) -> None:
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("--config is missing",)),
        (("--config=configs/none.py",), ("no such file configs/none.py",)),
        ((f"{QUICKSTART}:optimizer=adamm",), ("optimizer='adamm'", "adamw")),
        ((QUICKSTART, "--config.optimizer.learing_rate=1"), ("learing_rate=1", "--config.optimizer.learning_rate")),
        ((QUICKSTART, "--config.optimizer.learning_rate=fast"), ("--config.optimizer.learning_rate", "'fast'")),
        ((QUICKSTART, "--config.optimizer.learning_rate=nan"), ("optimizer.learning_rate=nan", "[0, inf)")),
        ((QUICKSTART, "--config.num_train_steps=1.5"), ("--config.num_train_steps", "'1.5'")),
        ((QUICKSTART, "--config.model.vocab_size=100"), ("model.vocab_size=100", "data.vocab_size=4096")),
        ((QUICKSTART, "--config.model.mlp=relu"), ("relu", "gelu")),
        ((QUICKSTART, "stray"), ("stray",)),
    ],
)
def test_bad_arguments(arguments, parts):
    assert_one_line(run("-m", "jaxopt_lm.train", *arguments), *parts)


@pytest.mark.parametrize(
    ("module", "work", "arguments"),
    [
        ("plan", "planning.make_plan", [QUICKSTART, "--chip=H100", "--devices=1"]),
        pytest.param("evaluate", "evaluation.evaluate_run", ["--workdir=x"], marks=pytest.mark.full),
    ],
)
def test_ctrl_c_kills_what_has_nothing_to_save(module, work, arguments):
    """A KeyboardInterrupt amid compiling ended in a segmentation fault, up to a minute later."""
    code = f"""
import signal, sys
from jaxopt_lm import {module}
from jaxopt_lm.planning import plan as planning
from jaxopt_lm.training import evaluation
{work} = lambda *args, **kwargs: signal.raise_signal(signal.SIGINT)
sys.argv = ["{module}", *{arguments}]
sys.exit({module}.main())
"""
    done = run("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def train(config: TrainConfig, tmp_path: Path) -> subprocess.CompletedProcess:
    return run(*command_line("train", config, tmp_path)[1:])


def test_tokens_of_another_vocabulary(tiny, tmp_path):
    wrong = dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, vocab_size=63))
    assert_one_line(train(wrong, tmp_path), "holds tokens of vocab_size=64, asked for vocab_size=63", "another folder")
    assert not Path(wrong.workdir, "checkpoints").exists()


def test_a_truncated_shard(tiny, tmp_path):
    folder = write_tokens(tmp_path / "tokens")
    (folder / "train-00000.bin").write_bytes(b"\x01\x00" * 10)
    config = dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, tokens_dir=str(folder)))
    assert_one_line(train(config, tmp_path), "train-00000.bin: 20 bytes, must be 8000 bytes")


def test_a_workdir_below_a_file(tiny, tmp_path):
    (tmp_path / "file").write_text("precious")
    config = dataclasses.replace(tiny, workdir=str(tmp_path / "file" / "run"))
    assert_one_line(train(config, tmp_path), f"workdir={tmp_path}/file/run", "Not a directory", "give another path")
    assert (tmp_path / "file").read_text() == "precious"


def test_a_workdir_that_is_a_file(tiny, tmp_path):
    (tmp_path / "file").write_text("precious")
    config = dataclasses.replace(tiny, workdir=str(tmp_path / "file"))
    assert_one_line(train(config, tmp_path), f"workdir={tmp_path}/file", "give another path")
    assert (tmp_path / "file").read_text() == "precious"


def test_tokens_that_cannot_be_prepared(tiny, tmp_path):
    """The child's line is the only one."""
    nowhere = dataclasses.replace(
        tiny.data, task="c4", files="nowhere", vocab_size=400, tokens_dir=str(tmp_path / "no")
    )
    config = dataclasses.replace(tiny, data=nowhere, model=dataclasses.replace(tiny.model, vocab_size=400))
    parts = ("data.files=nowhere: holds no c4/en/3.0.1/dataset_info.json", "give TFDS's data_dir")
    assert_one_line(train(config, tmp_path), *parts)


def test_report_draws_the_loss(tiny, tmp_path):
    short = dataclasses.replace(tiny, num_train_steps=6)
    assert train(short, tmp_path).returncode == 0
    done = run("-m", "jaxopt_lm.report", f"--workdir={short.workdir}")
    assert done.stdout.strip() == f"{short.workdir}/loss.png"
    assert Path(short.workdir, "loss.png").read_bytes().startswith(b"\x89PNG")
    assert_one_line(run("-m", "jaxopt_lm.report", f"--workdir={tmp_path}"), "holds no metrics.jsonl")


def test_training_loads_no_tensorflow(tiny, tmp_path):
    code = f"""
import sys
from jaxopt_lm.config_io import load
from jaxopt_lm.training.run import train
path = {command_line("train", dataclasses.replace(tiny, num_train_steps=6), tmp_path)[3][len("--config=") :]!r}
train(load(path))
assert "tensorflow" not in sys.modules and "seqio" not in sys.modules
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
