"""A vocabulary that preparations are given."""

from pathlib import Path

import pytest

from jaxopt_lm.data.tasks import train_vocabulary
from tests.data.corpora import paragraphs


@pytest.fixture(scope="module")
def vocabulary(shared_folder):
    """A SentencePiece model of 400 pieces, to which 100 extra ids are added."""

    def make(folder: Path) -> None:
        (folder / "some.model").write_bytes(train_vocabulary(paragraphs(0, 2000), 400))

    return shared_folder("vocabulary", make) / "some.model"
