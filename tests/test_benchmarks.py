"""Benchmarks run, on what is small, and refuse to compare what is not alike. What they measure here means nothing."""

import dataclasses
import importlib
import json
import os
import sys
from typing import Any

import pytest

from jaxopt_lm import model
from jaxopt_lm.dumps import to_json
from jaxopt_lm.errors import InputError
from jaxopt_lm.model import ModelConfig
from jaxopt_lm.model.summary import flops_per_token
from tests import forked
from tests.write_config_dumps import ROOT


def benchmark(name: str, *flags: str) -> str:
    """What `python benchmarks/NAME.py FLAGS` printed; in a forked process, where its module is found by its name."""
    path = os.pathsep.join(filter(None, (f"{ROOT}/benchmarks", os.environ.get("PYTHONPATH"))))
    env = os.environ | {"JAXOPT_LM_MALLOC": "off", "PYTHONPATH": path}
    return forked.run([sys.executable, "-m", name, *flags], cwd=ROOT, env=env, check=True).stdout


@pytest.fixture
def train_step(monkeypatch) -> Any:
    """The module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("train_step")


@pytest.mark.full
def test_train_step_compares_two_peers_of_one_model(tmp_path):
    peers = "ours:glibc", "flax:glibc"
    kept = f"--compiled={os.environ['JAX_COMPILATION_CACHE_DIR']}"
    flags = "--sizes", "least", "--rounds=1", "--steps=2", f"--json={tmp_path}/found.json", "--peers", *peers
    printed = benchmark("train_step", kept, *flags)
    record = json.loads((tmp_path / "found.json").read_text())
    found = record["sizes"]["least"]
    assert record["reference"] == "ours:glibc"
    assert list(found["peers"]) == list(peers)
    shape = ModelConfig(vocab_size=64, num_layers=1, embed_dim=128, num_heads=2, num_kv_heads=2, mlp_dim=512)
    for name, peer in found["peers"].items():
        assert peer["facts"]["num_params"] == model.num_params(shape)
        assert peer["facts"]["allocator"] == "glibc"
        (only,) = peer["rounds"]
        share = only["tokens_per_second"] * flops_per_token(shape, 16) / found["gemm_flops_per_second"][0]
        assert only["of_peak"] == pytest.approx(share)
        rate = found["peers"]["ours:glibc"]["rounds"][0]["tokens_per_second"]
        assert only["ratio"] == pytest.approx(only["tokens_per_second"] / rate)
        assert only["peak_bytes"] >= only["resident_bytes"] > 1e8
        assert f"{only['tokens_per_second']:,.0f}" in printed, name


@pytest.mark.parametrize(
    ("loss", "norm", "params", "named"),
    [
        (6.0, 2.0, 100.0, None),
        (6.0 + 5e-5, 2.0, 100.0, None),
        (6.0 + 7e-5, 2.0, 100.0, "the loss of flax is 6.00007, of ours 6"),
        (6.0, 2.0 - 3e-5, 100.0, "the gradient norm of flax"),
        (6.0, 2.0, 100.0 + 2e-4, "the norm of the parameters of flax"),
        (float("nan"), 2.0, 100.0, "the loss of flax is nan"),
    ],
)
def test_another_model_is_not_compared(loss, norm, params, named, train_step):
    check = train_step.Check()
    check("ours", {"losses": [6.0], "norms": [2.0]}, 100.0)
    other = {"losses": [loss], "norms": [norm]}, params
    if named is None:
        check("flax", *other)
    else:
        with pytest.raises(SystemExit, match=named):
            check("flax", *other)


def test_peers_that_cannot_be_had(train_step):
    with pytest.raises(InputError, match="'theirs': must be one of ours, flax, torch, torch-compile"):
        train_step.Spec.of("theirs:glibc", None)
    with pytest.raises(InputError, match="'torch' needs --torch=PYTHON: make bench-torch makes one"):
        train_step.Spec.of("torch", None).command(None)
    with pytest.raises(InputError, match=r"allocator 'none.so': must be mimalloc, glibc or the path of a library"):
        train_step.environment("none.so", ROOT)
    assert train_step.Spec.of("torch-compile", "/lib/tc.so").malloc == "/lib/tc.so"
    assert train_step.Spec.of("torch:glibc", "/lib/tc.so").malloc == "glibc"
    assert train_step.Spec.of("ours", "/lib/tc.so").malloc == "mimalloc"


@pytest.mark.full
def test_loop(tiny, tmp_path):
    (tmp_path / "config.json").write_text(to_json(dataclasses.replace(tiny, workdir="runs/tiny")))
    flags = f"--config={tmp_path}/config.json", f"--json={tmp_path}/found.json", "--steps=6", "--rounds=1", "--due=1"
    printed = benchmark("loop", *flags)
    record = json.loads((tmp_path / "found.json").read_text())
    assert record["steps"] == 6
    assert set(record["compilation_seconds"]) == {"cold", "warm"}
    (found,) = record["rounds"]
    assert min(found[f"{what}_seconds"] for what in ("bare", "loop", "evaluation", "before", "usual_step")) > 0
    assert f"{100 * (found['loop_seconds'] / found['bare_seconds'] - 1):.2f}\n" in printed
