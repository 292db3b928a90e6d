"""What a vocabulary is trained on: all of the text, in parts that SentencePiece does not skip."""

import pytest

from jaxopt_lm.data import tasks
from jaxopt_lm.data.tasks import train_vocabulary
from jaxopt_lm.errors import InputError
from tests.data.corpora import paragraphs


@pytest.fixture(scope="module")
def words() -> list[str]:
    return " ".join(paragraphs(0, 40)).split()


def pieces(model: bytes) -> set[str]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return {processor.id_to_piece(i) for i in range(processor.vocab_size())}


def test_a_document_beyond_any_line_is_trained_on(words, monkeypatch):
    """SentencePiece alone skips a line of more than a megabyte, and says only that it has no sentences."""
    line = " ".join(words)
    monkeypatch.setattr(tasks, "SENTENCE_BYTES", 2**9)
    expected = pieces(train_vocabulary(iter(words), 340))
    found = pieces(train_vocabulary(iter([line * (2**20 // len(line) + 1)]), 340))
    assert len(found & expected) >= 330


@pytest.mark.parametrize("text", ["one two  three", "x" * 70, "é" * 30 + " " + "日" * 30, "a " * 50, " leading " * 9])
def test_long_lines_are_cut_at_white_space_and_nothing_is_lost(text, monkeypatch):
    monkeypatch.setattr(tasks, "SENTENCE_BYTES", 32)
    parts = list(tasks._sentences(f"{text}\n \nshort"))
    assert "".join("".join(parts).split()) == "".join(text.split()) + "short"
    assert max(len(part.encode()) for part in parts) <= 32
    assert set(" ".join(parts).split()) == set(text.split()) | {"short"} or max(map(len, text.split())) > 8
    monkeypatch.undo()
    assert list(tasks._sentences(f"{text}\n \nshort")) == [text, "short"]


def test_lines_with_the_sign_for_unknown_characters_are_trained_on(words):
    model = train_vocabulary((f"{word} \u2585{word}" for word in words), 340)
    assert pieces(model) >= {"▁the", "▁of"}


@pytest.mark.parametrize(
    "texts", [[], ["", " \n "], ["\u200b\x01"] * 9], ids=["none", "blank", "nothing once normalised"]
)
def test_no_text_is_said_in_words(texts):
    with pytest.raises(InputError, match=r"vocab_size=300: .* there is none in the training split; give more text"):
        train_vocabulary(iter(texts), 300)


def test_the_embedded_corpus_is_trained_on_line_by_line():
    """Its vocabularies, and with them every recorded run, stay what they are."""
    from jaxopt_lm.data.places import speech_files

    text = "\n".join(file.read_text(encoding="utf-8") for file in speech_files())
    assert list(tasks._sentences(text)) == [line for line in text.splitlines() if line.strip()]
