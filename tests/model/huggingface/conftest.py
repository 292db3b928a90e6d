"""Checkpoint folders that tests have in common."""

import shutil
from pathlib import Path

import pytest

from jaxopt_lm.model import huggingface
from tests.write_huggingface import MODELS, random_params


@pytest.fixture(scope="package")
def written(tmp_path_factory):
    """A folder of each class, and of a tied model."""
    folder = tmp_path_factory.mktemp("written")
    for name in ("qwen3", "qwen3_tied", "llama", "starcoder2"):
        huggingface.write(folder / name, MODELS[name], random_params(MODELS[name]), max_length=64)
    return folder


@pytest.fixture
def copied(written, tmp_path):
    """`copied(name)`: a folder of one's own to spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(written / name, tmp_path / name))

    return copy
