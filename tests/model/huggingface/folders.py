"""Checkpoint folders to read, spoil and write."""

import json
from pathlib import Path

import pytest

from jaxopt_lm.errors import InputError
from tests.conftest import GOLDEN
from tests.write_huggingface import MODELS

RECORDED = GOLDEN / "model" / "qwen3_tied"
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
QWEN3, TIED, LLAMA, STARCODER2 = (MODELS[name] for name in ("qwen3", "qwen3_tied", "llama", "starcoder2"))


def change_config(folder: Path, **changes) -> None:
    """Sets fields of config.json; `...` removes one."""
    fields = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


def refused(read, *arguments, **named) -> str:
    with pytest.raises(InputError) as error:
        read(*arguments, **named)
    message = str(error.value)
    assert len(message.splitlines()) == 1, message
    return message
