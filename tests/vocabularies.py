"""SentencePiece models of any type and size in T5's layout: pad 0, end of sequence 1, unknown 2."""

import io
from collections.abc import Iterable
from typing import Any

SENTENCES = ["the state of the union", "a union of the states", "of the people"] * 20


def trained(texts: Iterable[str] = SENTENCES, vocab_size: int = 18, **options: Any) -> bytes:
    """A model trained on `texts`; unigram unless `options`, SentencePiece's, say otherwise."""
    import sentencepiece

    layout = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2, "num_threads": 2}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=vocab_size, **layout | options
    )
    return model.getvalue()
