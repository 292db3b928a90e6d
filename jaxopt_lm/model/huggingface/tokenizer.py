"""A SentencePiece model as transformers reads one: tokenizer.json and tokenizer_config.json.

    vocabulary = tokenizer.read("tokenizer.model")
    tokenizer.files(vocabulary)  # {"tokenizer.json": {...}, "tokenizer_config.json": {...}}

Beside a config.json that names a class, transformers builds that class's own tokenizer unless a folder has these. Their
ids are SentencePiece's for any text, with two exceptions. transformers normalizes whole grapheme clusters at once, so
clusters of several combining characters (decomposed Vietnamese or Hangul, half-width kana with marks) may come out
otherwise. And SentencePiece sums unigram scores in float32: over a document of 10,000 tokens it may choose another of
two nearly equal segmentations than it would choose for the paragraph alone, which is what transformers chooses.
"""

import base64
import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxopt_lm.errors import InputError, require
from jaxopt_lm.model.huggingface.tensors import read_object

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_HOLD_PIECES = ("tokenizer.model", "spiece.model", TOKENIZER, "vocab.json")

_SPACE = "▁"
_UNIGRAM, _BPE = 1, 2  # TrainerSpec.ModelType
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # SentencePiece.Type


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A SentencePiece model.

    Attributes:
      name: where it was read, for messages.
      model: as stored, SentencePiece's ModelProto.
      eos_id, pad_id: of the end of a sequence and of padding; None where there is none.
    """

    name: str
    model: Any
    eos_id: int | None
    pad_id: int | None

    @property
    def pieces(self) -> list[str]:
        """The piece of every id."""
        return [piece.piece for piece in self.model.pieces]

    def ids_of(self, *kinds: int) -> list[int]:
        """The ids of pieces of some types."""
        return [i for i, piece in enumerate(self.model.pieces) if piece.type in kinds]


def read(path: str | os.PathLike) -> Vocabulary:
    """Reads a SentencePiece model.

    Raises:
      InputError: it is none.
    """
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

    try:
        processor = SentencePieceProcessor(model_file=os.fspath(path))
    except (RuntimeError, OSError) as error:
        raise InputError(f"{path}: not a SentencePiece model: {error}; give another vocabulary") from None
    eos, pad = (None if i < 0 else i for i in (processor.eos_id(), processor.pad_id()))
    model = sentencepiece_model_pb2.ModelProto.FromString(  # pyright: ignore[reportAttributeAccessIssue]
        processor.serialized_model_proto()
    )
    return Vocabulary(os.fspath(path), model, eos, pad)


def files(vocabulary: Vocabulary) -> dict[str, dict[str, Any]]:
    """The JSON files that make transformers' AutoTokenizer give the vocabulary's ids.

    Raises:
      InputError: they cannot express what the vocabulary does.
    """
    reason = _no_place(vocabulary)
    require(
        reason is None,
        f"{vocabulary.name}: {reason}, which {TOKENIZER} cannot hold; leave it out: export --tokenizer=False",
    )
    pieces, unknown = vocabulary.pieces, vocabulary.ids_of(_UNKNOWN)[0]
    special = {"eos_token": vocabulary.eos_id, "pad_token": vocabulary.pad_id, "unk_token": unknown}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, pieces[i]) for i in vocabulary.ids_of(_UNKNOWN, _CONTROL)],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(vocabulary.model.normalizer_spec)},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": _decoders(vocabulary.model.normalizer_spec)},
        "model": _bpe(vocabulary, unknown),
    }
    if vocabulary.model.trainer_spec.model_type == _UNIGRAM:
        whole |= {"pre_tokenizer": _apart(vocabulary), "model": _unigram(vocabulary, unknown)}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # as in SentencePiece, "</s>" in a text is text
        **{name: pieces[i] for name, i in special.items() if i is not None},
    }
    return {TOKENIZER: whole, TOKENIZER_CONFIG: config}


def compare(folder: str | os.PathLike, path: str | os.PathLike) -> list[str]:
    """Compares every vocabulary in a Hugging Face folder with a SentencePiece model, piece by piece.

    Returns:
      The names of the folder's files that hold one, all of which have the model's pieces at the model's ids.

    Raises:
      InputError: one has other pieces, or cannot be read.
    """
    found = [name for name in _HOLD_PIECES if Path(folder, name).is_file()]
    for name in found:
        theirs = Path(folder, name)
        if theirs.read_bytes() != Path(path).read_bytes():
            _check_pieces(theirs, read(path))
    return found


def _check_pieces(path: Path, ours: Vocabulary) -> None:
    theirs = _pieces(path)
    for i, piece in enumerate(ours.pieces):
        if theirs.get(i) != piece:
            raise InputError(
                f"{path}: id {i} is {theirs.get(i)!r}, in {ours.name} it is {piece!r}: rows of one vocabulary would be "
                "trained as another's; prepare the tokens with the folder's vocabulary"
            )


def _pieces(path: Path) -> dict[int, str]:
    """The piece of every id in a SentencePiece model, a tokenizer.json or a vocab.json."""
    if path.suffix == ".model":
        return dict(enumerate(read(path).pieces))
    fields = read_object(path)
    try:
        vocab = fields["model"]["vocab"] if path.name == TOKENIZER else fields
        pieces = {i: piece for piece, i in vocab.items()} if isinstance(vocab, dict) else None
        added = {token["id"]: token["content"] for token in fields.get("added_tokens", ())}
        return (pieces or {i: piece for i, (piece, _) in enumerate(vocab)}) | added
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path}: holds no vocabulary that can be read; fetch it again") from None


def _no_place(vocabulary: Vocabulary) -> str | None:
    """What the vocabulary does that our tokenizer.json does not."""
    trainer, model = vocabulary.model.trainer_spec, vocabulary.model
    if trainer.model_type not in (_UNIGRAM, _BPE):
        return "is neither of type unigram nor bpe"
    if trainer.treat_whitespace_as_suffix or not model.normalizer_spec.escape_whitespaces:
        return "does not mark words by a space before them"
    known = {_NORMAL, _UNKNOWN, _CONTROL, _BYTE}
    if other := [piece.piece for piece in model.pieces if piece.type not in known]:
        return f"has user-defined or unused pieces, such as {other[0]!r}"
    if short := [vocabulary.pieces[i] for i in vocabulary.ids_of(_UNKNOWN, _CONTROL) if len(vocabulary.pieces[i]) < 2]:
        return f"has a special piece of one character, {short[0]!r}"
    return None


def _added(token_id: int, piece: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": piece, "special": True, **flags}


def _normalizers(spec: Any) -> list[dict[str, Any]]:
    """SentencePiece's normalization, step by step: characters, extra spaces, the space before the first word."""
    steps = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        steps += [_replace({"Regex": rf"\A +|[ {_SPACE}]+\z"}, ""), _replace({"Regex": " {2,}"}, " ")]
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": _SPACE})
    return [*steps, _replace({"String": " "}, _SPACE)]


def _decoders(spec: Any) -> list[dict[str, Any]]:
    steps = [_replace({"String": _SPACE}, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    first = spec.add_dummy_prefix or spec.remove_extra_whitespaces
    return [*steps, {"type": "Strip", "content": " ", "start": 1, "stop": 0}] if first else steps


def _replace(pattern: Mapping[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _unigram(vocabulary: Vocabulary, unknown: int) -> dict[str, Any]:
    return {
        "type": "Unigram",
        "unk_id": unknown,
        "vocab": [[piece.piece, piece.score] for piece in vocabulary.model.pieces],
        "byte_fallback": vocabulary.model.trainer_spec.byte_fallback,
    }


def _apart(vocabulary: Vocabulary) -> dict[str, Any]:
    """Cuts text such as "</s>" or "<0x41>" after its first character: a Unigram model would find the piece in it."""
    pieces = [vocabulary.pieces[i] for i in vocabulary.ids_of(_UNKNOWN, _CONTROL)]
    found = [f"{re.escape(piece[0])}(?={re.escape(piece[1:])})" for piece in pieces] + ["<(?=0x[0-9A-F]{2}>)"]
    return {
        "type": "Split",
        "pattern": {"Regex": "|".join(found)},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }


def _bpe(vocabulary: Vocabulary, unknown: int) -> dict[str, Any]:
    """SentencePiece joins the pair whose piece has the best score: every pair that makes a piece, best piece first."""
    pieces, fallback = vocabulary.pieces, vocabulary.model.trainer_spec.byte_fallback
    ids = {pieces[i]: i for i in vocabulary.ids_of(_NORMAL)}
    pairs = [(pieces[i][:cut], pieces[i][cut:], i) for i in ids.values() for cut in range(1, len(pieces[i]))]
    merges = [
        (-vocabulary.model.pieces[i].score, ids[left], left, right)
        for left, right, i in pairs
        if left in ids and right in ids
    ]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces[unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": not fallback,
        "byte_fallback": fallback,
        "vocab": {piece: i for i, piece in enumerate(pieces)},
        "merges": [[left, right] for *_, left, right in sorted(merges)],
    }
