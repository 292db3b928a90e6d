"""Malformed configs and inputs, generated: each ends in one clear line, never in a traceback or a hang.

A case is a command line of ours, run in this process as it would run in its own, on a config or on a file that was
changed so that it cannot be right. 200 cases with --full, a fixed slice without.
"""

import contextlib
import dataclasses
import io
import json
import math
import runpy
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.dumps import to_dict
from tests.conftest import GOLDEN

pytestmark = [
    pytest.mark.usefixtures("standard_promotion"),
    pytest.mark.filterwarnings("ignore:.* found in sys.modules:RuntimeWarning"),  # another test imported it
]

SECONDS = 60


def main(module: str, *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of `python -m jaxopt_lm.MODULE arguments`; more than `SECONDS` is a failure."""
    errors = io.StringIO()
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"{module} {arguments}: hangs"))
    signal.alarm(SECONDS)
    try:
        with (
            mock.patch.object(sys, "argv", [module, *arguments]),
            mock.patch.object(sys, "unraisablehook"),
            contextlib.redirect_stderr(errors),
            contextlib.redirect_stdout(io.StringIO()),
            pytest.raises(SystemExit) as stop,
        ):
            runpy.run_module(f"jaxopt_lm.{module}", run_name="__main__", alter_sys=False)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return stop.value.code, errors.getvalue()  # pyright: ignore


def assert_one_line(module: str, *arguments: str) -> None:
    code, errors = main(module, *arguments)
    assert code == 2, (arguments, errors)
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    assert len(errors) < 2500


def leaves(fields: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    if isinstance(fields, dict):
        for name, value in fields.items():
            yield from leaves(value, (*path, name))
    else:
        yield path, fields


def wrong_values(value: Any) -> st.SearchStrategy:
    """What a field that holds `value` can never hold."""
    odd = st.sampled_from([{}, [[]], {"a": 1}, [None], ["\x00"]])
    if isinstance(value, bool):
        return odd | st.sampled_from([0, 1, "true", None, 0.5, math.nan])
    if isinstance(value, int):
        return odd | st.sampled_from(["1", "", None, 1.5, math.nan, math.inf, True, -(2**40), -2, 2**70, "\ud800"])
    if isinstance(value, float):
        return odd | st.sampled_from(["1e-3", "", math.nan, math.inf, -math.inf, True, -1.0, 1e300, 10**400])
    if isinstance(value, list):
        return st.sampled_from([{}, 3, "mlp", ["mlp2"], [3], [["mlp"]], math.nan])
    return odd | st.sampled_from([3, 1.5, True, math.nan])


MAY_BE_NONE = {"max_grad_norm", "max_batches"}  # of the fields that are not None in these configs


@st.composite
def broken_config(draw, config: TrainConfig) -> str:
    """The JSON of a config in which one thing is wrong."""
    fields = to_dict(config)
    kind = draw(st.sampled_from(["value", "value", "value", "missing", "unknown", "text", "section"]))
    if kind == "text":
        text = json.dumps(fields)
        return draw(
            st.sampled_from([text[: draw(st.integers(0, len(text) - 1))], "[]", "3", "null", "\x00", "[" * 9999])
        )
    if kind == "section":
        fields[draw(st.sampled_from(sorted(fields)))] = draw(st.sampled_from([[], [1], {"name": 3}, {"": None}]))
        return json.dumps(fields)
    candidates = [(path, value) for path, value in leaves(fields) if value is not None and path != ("version",)]
    path, value = draw(st.sampled_from(candidates))
    section = fields
    for name in path[:-1]:
        section = section[name]
    if kind == "missing":
        del section[path[-1]]
    elif kind == "unknown":
        section[draw(st.text(min_size=1, max_size=12).filter(lambda name: name not in section))] = value
    else:
        wrong = draw(wrong_values(value))
        section[path[-1]] = wrong if wrong is not None or path[-1] not in MAY_BE_NONE else {}
    return json.dumps(fields)


def examples(number: int, slice_of_it: int, full: bool):
    """`number` cases with --full, `slice_of_it` without; the same ones each time."""
    return settings(
        max_examples=number if full else slice_of_it,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def test_configs(tiny, tmp_path, full):
    path = tmp_path / "broken.json"

    @examples(100, 20, full)
    @given(broken_config(tiny))
    def check(text):
        path.write_text(text, errors="surrogatepass")
        assert_one_line("train", f"--config={path}")

    check()
    assert not Path(tiny.workdir, "checkpoints").exists()


def test_flags(full):
    """Flags of every command line: unknown names, values of the wrong type, missing ones."""
    names = st.sampled_from(
        ["--config.length", "--config.optimizer.b1", "--config.data.seed", "--config.model.num_layers"]
    )
    values = st.sampled_from(["", "x", "nan", "-1", "1e999", "[]", "0x10", "1,5", "--", "1" * 5000])
    words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)
    quickstart = "--config=configs/quickstart.py"
    arguments = st.one_of(
        st.tuples(st.just("train"), st.just(quickstart), st.builds("{}={}".format, names, values)),
        st.tuples(st.just("train"), st.just(quickstart), st.builds("--config.{}=1".format, words)),
        st.tuples(st.just("train"), st.builds("--config={}".format, words)),
        st.tuples(st.just("train"), st.builds("--config=configs/quickstart.py:{}".format, words)),
        st.tuples(st.just("prepare"), st.builds("--task={}".format, words)),
        st.tuples(st.just("prepare"), st.just("--task=text"), st.builds("--files=nowhere/{}.txt".format, words)),
        st.tuples(st.just("evaluate"), st.builds("--workdir=nowhere/{}".format, words)),
        st.tuples(st.just("export"), st.just("--out=nowhere/out"), st.builds("--workdir=nowhere/{}".format, words)),
        st.tuples(st.just("report"), st.builds("--workdir=nowhere/{}".format, words)),
    )

    @examples(50, 10, full)
    @given(arguments.filter(lambda a: not {"-h", "--help", "--config.help=1", "--config.h=1"} & set(a)))
    def check(arguments):
        assert_one_line(*arguments)

    check()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tokens_dir):
    """A run and its tokens, to be damaged."""
    from tests.corrupt import small_run

    with jax.numpy_dtype_promotion("standard"):
        return small_run(tmp_path_factory.mktemp("finished"))


def damaged(content: bytes, draw) -> bytes:
    """Bytes that are not the given ones."""
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    junk = draw(st.binary(min_size=1, max_size=40))
    changed = draw(
        st.sampled_from([content[:at], content[:at] + junk + content[at:], junk, b"", b"{}", b"[]", b"null"])
    )
    return changed if changed != content else content + b"\x00"


def same_json(one: bytes, other: bytes) -> bool:
    """Whether white space is all that differs."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_files_of_a_run(finished, tmp_path, full):
    """config.json, the manifest, shards and vocabulary of the tokens: damaged in every way, and then trained on."""

    @examples(30, 8, full)
    @given(st.data())
    def check(data):
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(finished.workdir).parent, folder)
        config = dataclasses.replace(
            finished,
            workdir=str(folder / "run"),
            data=dataclasses.replace(finished.data, tokens_dir=str(folder / "tokens")),
        )
        (folder / "asked.json").write_text(json.dumps(to_dict(config)))
        files = ["run/config.json", "run/metrics.jsonl"]
        files += [f"tokens/{path.name}" for path in (folder / "tokens").iterdir() if path.stat().st_size]
        path = folder / data.draw(st.sampled_from(files))
        content = damaged(path.read_bytes(), data.draw)
        assume(path.suffix != ".json" or not same_json(content, path.read_bytes()))
        if path.name == "metrics.jsonl":
            content = b"junk\n" + content
        path.write_bytes(content)
        assert_one_line("train", f"--config={folder / 'asked.json'}")

    check()


def test_hugging_face_folders(tiny, tmp_path, full):
    """A run that is to start from one whose files are damaged."""
    source = GOLDEN / "model" / "qwen3_tied"
    from jaxopt_lm.model import huggingface

    model = dataclasses.replace(
        huggingface.read_config(source), compute_dtype="float32", scan_layers=False, vocab_size=512
    )
    folder, workdir = tmp_path / "hf", tmp_path / "from_hf"
    config = dataclasses.replace(tiny, model=model, init_from=str(folder), workdir=str(workdir))
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps(to_dict(config)))

    @examples(20, 6, full)
    @given(st.data())
    def check(data):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        config_file = folder / "config.json"
        fields = json.loads(config_file.read_text()) | {"eos_token_id": None}  # the tokens' vocabulary is none
        config_file.write_text(json.dumps(fields))
        path = folder / data.draw(st.sampled_from(["config.json", "model.safetensors"]))
        content = path.read_bytes()
        if path.suffix == ".json":
            fields = json.loads(content)
            name = data.draw(
                st.sampled_from(["hidden_size", "num_hidden_layers", "head_dim", "rms_norm_eps", "vocab_size"])
            )
            fields[name] = data.draw(st.sampled_from([None, "x", -1, 1e300, [], 3, 2**80]))
            if fields[name] is None:
                fields[name] = {}
            content = json.dumps(fields).encode()
        else:
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        path.write_bytes(content)
        assert_one_line("train", f"--config={asked}")

    check()
