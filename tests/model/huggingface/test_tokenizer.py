"""tokenizer.json: read step by step, as the tokenizers library does, it gives SentencePiece's ids."""

import base64
import itertools
import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
import sentencepiece

from jaxopt_lm.errors import InputError
from jaxopt_lm.model.huggingface import tokenizer
from tests.vocabularies import trained

LINES = [
    "The state of our union is strong, and we the people of these states are one people.",
    "Four score and seven years ago our fathers brought forth on this continent a new nation,",
    "conceived in liberty, and dedicated to the proposition that all men are created equal.",
    "banana bandana, no nonsense; oo ooo aab abb bbaa",
    "a </s> or <0x41> in a text is text",
]
TEXTS = LINES * 20
SENTENCES = [
    *LINES,
    "",
    "    ",
    "two  spaces",
    "  around   it ",
    "\ttabs\tand\nlines\r\n\n",
    "nonsense unstated bananabanana ooooooo",
    "</s>",
    "a<pad><unk> <0x41>a</s>",
    "▁people▁of ▁ ",
    "unknown: 国 ☃ 👩‍👧 é ж",
]
KINDS = {
    "unigram": {"model_type": "unigram", "vocab_size": 330, "byte_fallback": True},
    "bpe": {"model_type": "bpe", "vocab_size": 400, "byte_fallback": True},
    "unigram_unknown": {"model_type": "unigram", "vocab_size": 80},
    "bpe_unknown": {"model_type": "bpe", "vocab_size": 150},
    "bpe_as_it_is": {
        **{"model_type": "bpe", "vocab_size": 400, "byte_fallback": True, "normalization_rule_name": "identity"},
        **{"add_dummy_prefix": False, "remove_extra_whitespaces": False},
    },
    "unigram_spaces": {
        **{"model_type": "unigram", "vocab_size": 330, "byte_fallback": True, "remove_extra_whitespaces": False},
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for kind, options in KINDS.items():
        (folder / kind).write_bytes(trained(TEXTS, **options))
    return folder


def normalized(text: str, steps: list[dict]) -> str:
    for step in steps:
        match step:
            case {"type": "Precompiled"}:  # of these texts it changes white space and control characters alone
                text = re.sub("[\t\n\r▁]", " ", text)
            case {"type": "Replace", "pattern": {"Regex": pattern}}:
                text = re.sub(pattern.replace(r"\z", r"\Z"), step["content"], text)
            case {"type": "Replace", "pattern": {"String": pattern}}:
                text = text.replace(pattern, step["content"])
            case {"type": "Prepend"}:
                text = text and step["prepend"] + text
    return text


def viterbi(text: str, vocab: list[tuple[str, float]]) -> list[str]:
    """The best segmentation; characters without a piece stand alone, at ten less than the worst score."""
    scores = dict(vocab)
    worst = min(scores.values()) - 10
    best: list[tuple[float, list[str]]] = [(0.0, [])]
    for end in range(1, len(text) + 1):
        ways = [(start, scores.get(text[start:end])) for start in range(end)]
        known = [
            (best[start][0] + score, best[start][1] + [text[start:end]]) for start, score in ways if score is not None
        ]
        alone = text[end - 1]
        known += [] if alone in scores else [(best[end - 1][0] + worst, best[end - 1][1] + [alone])]
        best.append(max(known, key=lambda way: way[0]))
    return best[-1][1]


def joined(text: str, merges: list[list[str]]) -> list[str]:
    ranks = {tuple(pair): rank for rank, pair in enumerate(merges)}
    pieces = list(text)
    while True:
        pairs = [(ranks[pair], i) for i, pair in enumerate(itertools.pairwise(pieces)) if pair in ranks]
        if not pairs:
            return pieces
        i = min(pairs)[1]
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


def ids_of(text: str, whole: dict) -> list[int]:
    """What the tokenizers library makes of a text by a tokenizer.json."""
    model, text = whole["model"], normalized(text, whole["normalizer"]["normalizers"])
    parts = [text]
    if split := whole["pre_tokenizer"]:
        assert (split["type"], split["behavior"], split["invert"]) == ("Split", "MergedWithPrevious", False)
        ends = [match.end() for match in re.finditer(split["pattern"]["Regex"], text)]
        parts = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    if model["type"] == "Unigram":
        ids = {piece: i for i, (piece, _) in enumerate(model["vocab"])}
        unknown, pieces = model["unk_id"], [piece for part in parts for piece in viterbi(part, model["vocab"])]
    else:
        ids, pieces = model["vocab"], joined(text, model["merges"])
        unknown = ids[model["unk_token"]]
        assert model["fuse_unk"] != model["byte_fallback"]
    return list(fused(pieces, ids, unknown, model["byte_fallback"]))


def fused(pieces: list[str], ids: dict[str, int], unknown: int, byte_fallback: bool) -> Iterator[int]:
    last = None
    for piece in pieces:
        if piece not in ids and byte_fallback:
            yield from (ids[f"<0x{byte:02X}>"] for byte in piece.encode())
        elif piece in ids or last != unknown:
            yield ids.get(piece, unknown)
        last = ids.get(piece, unknown)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_sentencepieces(models, kind):
    whole = tokenizer.files(tokenizer.read(models / kind))["tokenizer.json"]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(models / kind))
    for text in SENTENCES:
        assert ids_of(text, json.loads(json.dumps(whole))) == processor.encode(text), text


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_what_stands_in_the_files(models, kind):
    vocabulary = tokenizer.read(models / kind)
    found = tokenizer.files(vocabulary)
    whole, processor = found["tokenizer.json"], sentencepiece.SentencePieceProcessor(model_file=str(models / kind))
    pieces = [processor.id_to_piece(i) for i in range(processor.vocab_size())]
    assert vocabulary.pieces == pieces
    assert (vocabulary.pad_id, vocabulary.eos_id) == (0, 1)
    assert found["tokenizer_config.json"] == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    added = {token["id"]: token["content"] for token in whole["added_tokens"] if token["special"]}
    assert added == {0: "<pad>", 1: "</s>", 2: "<unk>"}
    charsmap = whole["normalizer"]["normalizers"][0]["precompiled_charsmap"]
    assert base64.b64decode(charsmap) == vocabulary.model.normalizer_spec.precompiled_charsmap != b""
    if kind == "unigram":
        assert [piece for piece, _ in whole["model"]["vocab"]] == pieces
        scores = [processor.get_score(i) for i in range(len(pieces))]
        np.testing.assert_array_equal([score for _, score in whole["model"]["vocab"]], scores)
    else:
        assert whole["model"]["vocab"] == {piece: i for i, piece in enumerate(pieces)}
        assert all(left + right in pieces for left, right in whole["model"]["merges"])


def test_a_space_before_the_first_word_is_taken_off_where_it_was_put(models):
    def last_decoder(kind):
        return tokenizer.files(tokenizer.read(models / kind))["tokenizer.json"]["decoder"]["decoders"][-1]

    assert last_decoder("unigram") == {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    assert last_decoder("bpe_as_it_is") == {"type": "Fuse"}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"model_type": "char"}, "is neither of type unigram nor bpe"),
        ({"model_type": "word", "vocab_size": 10}, "is neither of type unigram nor bpe"),
        ({"treat_whitespace_as_suffix": True}, "does not mark words by a space before them"),
        ({"user_defined_symbols": ["<sep>"], "vocab_size": 19}, "has user-defined or unused pieces, such as '<sep>'"),
        ({"unk_piece": "?"}, "has a special piece of one character, '?'"),
    ],
    ids=["char", "word", "suffix", "user-defined", "one-character"],
)
def test_vocabularies_that_have_no_place(tmp_path, options, part):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(trained(**options))
    with pytest.raises(InputError, match=rf"{path}: {re.escape(part)}, which tokenizer\.json cannot hold"):
        tokenizer.files(tokenizer.read(path))


@pytest.fixture
def folder(models, tmp_path):
    """With everything that transformers' tokenizer needs of the unigram model."""
    for name, fields in tokenizer.files(tokenizer.read(models / "unigram")).items():
        (tmp_path / name).write_text(json.dumps(fields))
    (tmp_path / "tokenizer.model").write_bytes((models / "unigram").read_bytes())
    return tmp_path


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_folder_of_the_same_vocabulary(models, folder, kind):
    assert tokenizer.compare(folder, models / "unigram") == ["tokenizer.model", "tokenizer.json"]
    (folder / "tokenizer.model").unlink()
    whole = tokenizer.files(tokenizer.read(models / kind))["tokenizer.json"]
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    assert tokenizer.compare(folder, models / kind) == ["tokenizer.json"]
    pieces = tokenizer.read(models / kind).pieces
    vocab = {piece: i for i, piece in enumerate([*pieces, "<extra>"])}  # more ids than the tokens use
    (folder / "tokenizer.json").rename(folder / "tokenizer.bak")
    (folder / "vocab.json").write_text(json.dumps(vocab))
    assert tokenizer.compare(folder, models / kind) == ["vocab.json"]
    (folder / "vocab.json").unlink()
    assert tokenizer.compare(folder, models / kind) == []


def test_a_folder_of_another_vocabulary(models, folder):
    """Each file that is there is compared: one swapped pair of pieces is named."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    vocab = whole["model"]["vocab"]
    vocab[300], vocab[301] = vocab[301], vocab[300]
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(InputError) as error:
        tokenizer.compare(folder, models / "unigram")
    first, second = vocab[300][0], vocab[301][0]
    assert str(error.value).startswith(
        f"{folder}/tokenizer.json: id 300 is {first!r}, in {models}/unigram it is {second!r}: rows of one"
    )
    with pytest.raises(InputError, match=r"tokenizer\.model: id \d+ is"):
        tokenizer.compare(folder, models / "bpe")
    (folder / "tokenizer.model").write_bytes(trained())
    with pytest.raises(InputError, match=r"tokenizer\.model: id 3 is '.+', in .* it is '<0x00>'"):
        tokenizer.compare(folder, models / "unigram")
    (folder / "tokenizer.model").write_bytes(b"tiktoken's")
    with pytest.raises(InputError, match=r"tokenizer\.model: not a SentencePiece model"):
        tokenizer.compare(folder, models / "unigram")


@pytest.mark.parametrize(
    "text", ["{}", '{"model": {"vocab": 3}}', '{"model": {"vocab": [["a"]]}}', '{"model": {"vocab": {"a": []}}}', "[]"]
)
def test_tokenizer_files_that_cannot_be_read(models, tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=r"tokenizer\.json: (holds no vocabulary that can be read|holds list)"):
        tokenizer.compare(tmp_path, models / "unigram")


def test_a_vocabulary_without_padding_or_end(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(trained(pad_id=-1, eos_id=-1, unk_id=0, vocab_size=16))
    vocabulary = tokenizer.read(path)
    assert (vocabulary.pad_id, vocabulary.eos_id) == (None, None)
    config = tokenizer.files(vocabulary)["tokenizer_config.json"]
    assert {name for name in config if name.endswith("_token")} == {"unk_token"}
