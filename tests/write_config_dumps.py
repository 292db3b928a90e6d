"""Writes the dumps of every shipped config, and the fields of this version's dumps, that tests compare.

python -m tests.write_config_dumps
"""

import dataclasses
import json
from pathlib import Path

from jaxopt_lm.config import TrainConfig
from jaxopt_lm.config_io import load, load_as
from jaxopt_lm.dumps import VERSION, to_json
from jaxopt_lm.optimizers import OPTIMIZERS, SCHEDULES
from jaxopt_lm.studies import Study

ROOT = Path(__file__).parents[1]
DUMPS = ROOT / "tests" / "golden" / "configs"
STUDY_DUMPS = ROOT / "tests" / "golden" / "studies"
FIELDS = ROOT / "tests" / "golden" / "config_fields.json"

# Name of the dump: what `--config` is given.
SPECS = {"quickstart": "configs/quickstart.py"}
SPECS |= {f"quickstart_{name}": f"configs/quickstart.py:optimizer={name}" for name in OPTIMIZERS if name != "adamw"}
SPECS |= {
    f"quickstart_{name}": f"configs/quickstart.py:schedule={name}" for name in SCHEDULES if name != "warmup_cosine"
}
SPECS |= {
    "c4": "configs/c4.py",
    "c4_1.2b": "configs/c4.py:data_dir=/data/tfds,vocabulary=/data/spiece.model,size=1.2b",
    **{f"c4_1.2b_{chips}": f"configs/c4.py:size=1.2b,chips={chips}" for chips in (8, 64, 512)},
    "fineweb": "configs/fineweb.py",
    "text": "configs/text.py:files=my_texts",
}
STUDY_SPECS = {"compare": "configs/compare.py", "sizes": "configs/sizes.py"}


def dump(spec: str) -> str:
    """The dump of one config, its file given relative to the project's root."""
    return to_json(load(str(ROOT / spec)))


def dump_of_study(spec: str) -> str:
    """The same of a study."""
    return json.dumps(load_as(Study, str(ROOT / spec)).to_dict(), indent=1, sort_keys=True) + "\n"


def fields() -> str:
    """Every field that a dump can have, by class, and the version of dumps that has these."""
    config = TrainConfig(workdir="x")
    sections = [value for value in vars(config).values() if dataclasses.is_dataclass(value)]
    classes = {*map(type, (config, *sections)), *OPTIMIZERS.values(), *SCHEDULES.values()}
    names = {cls.__name__: sorted(field.name for field in dataclasses.fields(cls)) for cls in classes}
    return json.dumps({"version": VERSION, "fields": names}, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    DUMPS.mkdir(exist_ok=True)
    STUDY_DUMPS.mkdir(exist_ok=True)
    FIELDS.write_text(fields())
    for name, spec in STUDY_SPECS.items():
        (STUDY_DUMPS / f"{name}.json").write_text(dump_of_study(spec))
    for name, spec in SPECS.items():
        (DUMPS / f"{name}.json").write_text(dump(spec))
