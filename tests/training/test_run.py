"""Runs in this process: what they leave behind, how they resume, and what they refuse."""

import dataclasses
import io
import json
import math
import shutil
from pathlib import Path

import chex
import jax
import pytest
from rich.console import Console

from jaxopt_lm.chips import CHIPS, peak_flops
from jaxopt_lm.config import CheckpointConfig, EvalConfig, LoggingConfig, MeshConfig
from jaxopt_lm.config_io import load
from jaxopt_lm.data.tokens import Manifest
from jaxopt_lm.dumps import to_json
from jaxopt_lm.errors import InputError
from jaxopt_lm.model import num_params
from jaxopt_lm.optimizers import SgdwConfig
from jaxopt_lm.optimizers.schedules import (
    ConstantConfig,
    InverseSqrtConfig,
    LinearConfig,
    WarmupCosineConfig,
    WarmupStableDecayConfig,
)
from jaxopt_lm.runs.folder import RunFolder
from jaxopt_lm.runs.machine import machine
from jaxopt_lm.runs.read import read_machines, read_metrics
from jaxopt_lm.training.loop import Throughput
from jaxopt_lm.training.run import train
from jaxopt_lm.training.sharding import make_mesh
from tests.conftest import timeless, write_tokens

pytestmark = pytest.mark.usefixtures("standard_promotion")


def quiet_train(config):
    output = io.StringIO()
    return train(config, Console(file=output, width=80)), output.getvalue()


@pytest.fixture
def short(tiny):
    return dataclasses.replace(tiny, num_train_steps=12, checkpoint=CheckpointConfig(every_steps=4))


def checkpoints(config) -> list[int]:
    return sorted(int(path.name) for path in Path(config.workdir, "checkpoints").iterdir())


def test_a_run_and_what_it_leaves(tiny):
    tiny = dataclasses.replace(tiny, logging=LoggingConfig(every_steps=7, tensorboard=True))
    result, output = quiet_train(tiny)
    lines = list(read_metrics(tiny.workdir))
    assert [line["step"] for line in lines] == sorted({0, *range(7, 61, 7), *range(10, 61, 10)})
    assert [line["step"] for line in lines if "eval/loss" in line] == [0, 20, 40, 60]
    assert lines[-1]["eval/loss"] < lines[0]["eval/loss"] - 0.1
    for line in lines:
        assert line["tokens_seen"] == line["step"] * 8 * 16
        if "eval/loss" in line:
            assert line["eval/perplexity"] == pytest.approx(math.exp(line["eval/loss"]))
            assert line["eval/bits_per_byte"] == pytest.approx(line["eval/loss"] / math.log(2) / 4)
    assert load(f"{tiny.workdir}/config.json") == tiny
    unigram_entropy = Manifest.read(Path(tiny.data.tokens_dir)).splits["validation"].unigram_entropy
    saved = json.loads(Path(tiny.workdir, "result.json").read_text())
    assert (saved["status"], saved["step"], saved["num_params"]) == ("completed", 60, num_params(tiny.model))
    assert saved["eval/loss"] == result.metrics["eval/loss"] == lines[-1]["eval/loss"]
    assert saved["eval/unigram_entropy"] == unigram_entropy
    assert (result.status, result.step, result.exit_code) == ("completed", 60, 0)
    assert f"above the unigram entropy {unigram_entropy:.3f} of the validation tokens" in output
    assert "step 20/60" in output
    assert checkpoints(tiny) == [50, 60]
    assert any(Path(tiny.workdir, "tensorboard").iterdir())
    assert read_machines(tiny.workdir) == [{"after_step": 0} | machine(make_mesh(tiny.mesh))]


def test_a_finished_run_is_left_alone(short):
    first, _ = quiet_train(short)
    lines = list(read_metrics(short.workdir))
    saved = Path(short.workdir, "result.json").read_text()
    again, _ = quiet_train(short)
    assert Path(short.workdir, "result.json").read_text() == saved
    assert again == first
    assert list(read_metrics(short.workdir)) == lines


def test_keep_every(tiny):
    keep = CheckpointConfig(every_steps=5, keep_last=1, keep_every_steps=20)
    quiet_train(dataclasses.replace(tiny, checkpoint=keep))
    assert checkpoints(tiny) == [20, 40, 60]


def test_lines_of_lost_work_are_replaced(short):
    """Lines beyond the newest checkpoint, and one cut off by a kill, are written again, once."""
    quiet_train(short)
    whole = timeless(short.workdir)
    last = max(checkpoints(short))
    folder = Path(short.workdir, "checkpoints", str(last))
    folder.rename(folder.with_name("gone"))
    with open(Path(short.workdir, "metrics.jsonl"), "a") as file:
        file.write('{"step": 12, "train/lo')
    folder.with_name("gone").rename(Path(short.workdir, "gone"))
    quiet_train(short)
    assert timeless(short.workdir) == whole


def test_a_run_killed_before_its_first_checkpoint_starts_anew(short):
    quiet_train(short)
    whole = timeless(short.workdir)
    Path(short.workdir, "checkpoints").rename(Path(short.workdir, "gone"))
    quiet_train(short)
    assert timeless(short.workdir) == whole


def test_two_runs_in_one_process_are_independent(short):
    other = dataclasses.replace(short, workdir=short.workdir + "2")
    quiet_train(short)
    quiet_train(other)
    assert timeless(short.workdir) == timeless(other.workdir)


def test_a_diverging_run_stops_and_keeps_the_last_good_checkpoint(short):
    """Without query and key norm, a rate of 1e30 overflows within a few steps."""
    config = dataclasses.replace(
        short,
        model=dataclasses.replace(short.model, qk_norm="none"),
        optimizer=SgdwConfig(learning_rate=1e30, momentum=0.0),
        schedule=ConstantConfig(warmup_steps=11, start_fraction=0.0),
        checkpoint=CheckpointConfig(every_steps=1),
    )
    result, output = quiet_train(config)
    assert (result.status, result.exit_code) == ("diverged", 1)
    assert f"training diverged at step {result.step}: " in output
    saved = json.loads(Path(config.workdir, "result.json").read_text())
    assert (saved["status"], saved["step"]) == ("diverged", result.step)
    assert all(math.isfinite(value) for line in read_metrics(config.workdir) for value in line.values())
    for step in checkpoints(config):
        assert step < result.step
        assert f"the last good checkpoint, step {max(checkpoints(config))}, is kept" in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": SgdwConfig()}, "optimizer.name='sgdw' (the run has 'adamw')"),
        ({"num_train_steps": 24, "seed": 1}, "num_train_steps=24 (the run has 12), seed=1 (the run has 0): cannot"),
        ({"seed": 1}, "seed=1 (the run has 0)"),
    ],
)
def test_a_changed_config_is_refused_by_name(short, change, message):
    quiet_train(short)
    before = Path(short.workdir, "config.json").read_text()
    with pytest.raises(InputError) as error:
        quiet_train(dataclasses.replace(short, **change))
    assert message in str(error.value)
    assert "give another --config.workdir" in str(error.value)
    assert Path(short.workdir, "config.json").read_text() == before


WSD = WarmupStableDecayConfig(warmup_steps=3, decay_steps=6)


@pytest.mark.parametrize(
    ("schedule", "begun", "later"),
    [
        (ConstantConfig(warmup_steps=3), 8, 12),
        (ConstantConfig(warmup_steps=3), 12, 8),
        (WSD, 12, 14),
    ],
    ids=["constant", "constant_shorter", "before_its_decay"],
)
def test_a_run_may_change_its_length_where_its_schedule_does_not_look_ahead(short, schedule, begun, later):
    """It is then the run that was as long from the beginning, bit for bit."""
    short = dataclasses.replace(short, schedule=schedule, checkpoint=CheckpointConfig(every_steps=2, keep_last=100))
    straight = dataclasses.replace(short, workdir=short.workdir + "2", num_train_steps=later)
    whole, _ = quiet_train(straight)
    quiet_train(dataclasses.replace(short, num_train_steps=begun))
    for step in checkpoints(short):
        if step > 6:
            shutil.rmtree(Path(short.workdir, "checkpoints", str(step)))
    grown, output = quiet_train(dataclasses.replace(short, num_train_steps=later))
    assert f"resuming {short.workdir} from step 6" in output
    chex.assert_trees_all_equal(grown.state, whole.state)
    assert timeless(short.workdir) == timeless(straight.workdir)
    assert load(f"{short.workdir}/config.json").num_train_steps == later


def test_a_run_that_is_done_may_go_on(short):
    """And equals one that never stopped, but for the evaluation that was its last."""
    short = dataclasses.replace(short, schedule=ConstantConfig())
    longer = dataclasses.replace(short, num_train_steps=20)
    whole, _ = quiet_train(dataclasses.replace(longer, workdir=short.workdir + "2"))
    quiet_train(short)
    assert json.loads(Path(short.workdir, "result.json").read_text())["step"] == 12
    grown, _ = quiet_train(longer)
    chex.assert_trees_all_equal(grown.state, whole.state)
    assert json.loads(Path(short.workdir, "result.json").read_text())["step"] == 20
    assert [line["step"] for line in read_metrics(short.workdir) if "eval/loss" in line] == [0, 12, 20]


def test_another_length_is_refused_with_the_reason(short):
    """One run that is at step 12, told again and again that it had another schedule."""
    quiet_train(short)
    run = Path(short.workdir)
    for schedule, change, message in (
        (
            WarmupCosineConfig(warmup_steps=3),
            {"num_train_steps": 24},
            "num_train_steps=24 (the run has 12): in RUN step 4, which is done, would have had another learning rate;"
            " give another --config.workdir. A length may change where the schedule so far does not depend on it",
        ),
        (LinearConfig(), {"num_train_steps": 24}, "num_train_steps=24 (the run has 12): in RUN step 1, which"),
        (WSD, {"num_train_steps": 24}, "num_train_steps=24 (the run has 12): in RUN step 7, which"),
        (ConstantConfig(warmup_fraction=0.5), {"num_train_steps": 24}, "in RUN step 1, which is done"),
        (
            ConstantConfig(),
            {"num_train_steps": 11},
            "num_train_steps=11 (the run has 12): RUN is at step 12 already; give another --config.workdir",
        ),
        (
            ConstantConfig(),
            {"schedule": ConstantConfig(warmup_steps=2)},
            "schedule.warmup_steps=2 (the run has None): in RUN step 1, which is done, would have had another",
        ),
        (ConstantConfig(), {"schedule": InverseSqrtConfig()}, "schedule.name='inverse_sqrt' (the run has 'constant'):"),
    ):
        config = dataclasses.replace(short, schedule=schedule)
        (run / "config.json").write_text(to_json(config))
        with pytest.raises(InputError) as error:
            RunFolder(dataclasses.replace(config, **change))
        assert message.replace("RUN", short.workdir) in str(error.value)


def test_a_warmup_may_be_given_in_another_way(short):
    """As of runs that were begun before a config file gave it as a fraction."""
    short = dataclasses.replace(short, schedule=WarmupCosineConfig(warmup_steps=3))
    quiet_train(short)
    result, _ = quiet_train(dataclasses.replace(short, schedule=WarmupCosineConfig(warmup_fraction=0.25)))
    assert (result.status, result.step) == ("completed", 12)


def test_mesh_memory_logging_and_checkpoint_may_change(short):
    quiet_train(short)
    changed = dataclasses.replace(
        short,
        model=dataclasses.replace(short.model, remat="dots"),
        mesh=MeshConfig(data=1),
        num_microbatches=2,
        logging=LoggingConfig(every_steps=3),
        checkpoint=CheckpointConfig(keep_last=1),
    )
    assert quiet_train(changed)[0].status == "completed"


def test_other_tokens_are_refused(short, tmp_path):
    folder = write_tokens(tmp_path / "t")
    config = dataclasses.replace(short, data=dataclasses.replace(short.data, tokens_dir=str(folder)))
    quiet_train(config)
    folder.rename(tmp_path / "old")
    write_tokens(folder, num_train=4100)
    with pytest.raises(InputError, match="not the tokens that the run in"):
        quiet_train(config)


def test_files_that_are_not_a_runs_are_left_alone(short):
    folder = Path(short.workdir)
    folder.mkdir()
    (folder / "config.json").write_text('{"my": "precious"}')
    with pytest.raises(InputError, match="my: no such field"):
        quiet_train(short)
    assert (folder / "config.json").read_text() == '{"my": "precious"}'
    (folder / "config.json").unlink()
    (folder / "checkpoints").write_text("")
    with pytest.raises(InputError, match="checkpoints: is a file, must be a folder"):
        quiet_train(short)


def test_a_run_that_never_began_does_not_bind_its_config(short):
    with pytest.raises(InputError, match="length=4001"):
        quiet_train(dataclasses.replace(short, length=4001))
    assert not Path(short.workdir, "config.json").exists()
    assert quiet_train(short)[0].status == "completed"


def test_metrics_that_are_gone_or_damaged_are_refused(short):
    quiet_train(short)
    metrics = Path(short.workdir, "metrics.jsonl")
    whole = metrics.read_text()
    for text, message in (("", "has no line of step 12"), ("junk\n" + whole, "line 1 is not a line of metrics")):
        metrics.write_text(text)
        with pytest.raises(InputError, match=message):
            quiet_train(short)
        assert metrics.read_text() == text
        assert Path(short.workdir, "result.json").exists()


def test_float64_needs_jax_to_have_it(short):
    wide = dataclasses.replace(short.model, param_dtype="float64", compute_dtype="float64")
    with pytest.raises(InputError, match="set the environment variable JAX_ENABLE_X64=1"):
        quiet_train(dataclasses.replace(short, model=wide))


def test_a_second_process_is_refused(short):
    with RunFolder(short), pytest.raises(InputError, match="another process trains there"):
        RunFolder(short)
    with RunFolder(short):
        pass


def test_what_is_not_there_is_refused(short, tmp_path):
    devices = len(jax.devices())
    with pytest.raises(
        InputError, match=f"mesh.data={2 * devices} .*: needs {2 * devices} devices, there are {devices}"
    ):
        quiet_train(
            dataclasses.replace(short, mesh=MeshConfig(data=2 * devices), eval=EvalConfig(batch_size=4 * devices))
        )
    with pytest.raises(InputError, match="length=701: must be at most the 700 tokens of the validation split"):
        quiet_train(dataclasses.replace(short, workdir=str(tmp_path / "other"), length=701))


def test_throughput_leaves_pauses_out(monkeypatch):
    clock = iter([10.0, 12.0, 100.0, 101.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    throughput = Throughput()
    assert throughput._since is None
    throughput.tick(1)
    throughput.tick(2)
    assert throughput.read(5) == 4 / 2.0
    throughput.pause()
    throughput.tick(7)
    assert throughput.read(8) == 1.0


def test_peaks_are_known_by_device_kind():
    assert peak_flops("NVIDIA H100 80GB HBM3") == CHIPS["H100"].flops == 989e12
    assert peak_flops(jax.devices("cpu")[0].device_kind) is None
