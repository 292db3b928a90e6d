"""Token folders: what is written is read, across shards, and damage is refused."""

import json

import numpy as np
import pytest

from jaxopt_lm.data import tokens
from jaxopt_lm.data.tokens import Manifest, TokenStore, token_dtype, write_split
from jaxopt_lm.errors import InputError
from tests.conftest import write_tokens


def test_shards_join_seamlessly(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "SHARD_TOKENS", 10)
    folder = write_tokens(tmp_path / "t", num_train=47)
    monkeypatch.undo()
    whole = TokenStore(write_tokens(tmp_path / "one", num_train=47), "train")
    store = TokenStore(folder, "train")
    assert [shard.num_tokens for shard in store.split.shards] == [10, 10, 10, 10, 7]
    assert len(store) == len(whole) == 47
    for start in range(48):
        for length in (0, 1, 9, 10, 11, 23):
            if start + length <= 47:
                np.testing.assert_array_equal(store.read(start, length), whole.read(0, 47)[start : start + length])
    assert store.read(5, 20).dtype == np.int32
    with pytest.raises(IndexError):
        store.read(40, 8)


def test_counts(tmp_path):
    documents = [(np.asarray([3, 3, 1]), 10), (np.asarray([5, 1]), 7)]
    split = write_split(tmp_path, "train", documents, 8)
    assert (split.num_tokens, split.num_documents, split.num_bytes) == (5, 2, 17)
    assert split.bytes_per_token == 17 / 5
    np.testing.assert_allclose(split.unigram_entropy, -2 * 0.4 * np.log(0.4) - 0.2 * np.log(0.2))


@pytest.mark.parametrize(("vocab_size", "dtype"), [(2**16, "<u2"), (2**16 + 1, "<u4")])
def test_dtype_is_the_smallest_that_fits(tmp_path, vocab_size, dtype):
    assert token_dtype(vocab_size) == np.dtype(dtype)
    folder = write_tokens(tmp_path / "t", vocab_size=vocab_size, num_train=50)
    assert TokenStore(folder, "train").read(0, 50).max() > 2**15


def test_a_token_beyond_the_vocabulary_is_refused(tmp_path):
    with pytest.raises(InputError, match="token 8 >= vocab_size=8"):
        write_split(tmp_path, "train", [(np.asarray([8]), 1)], 8)


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="train: the split has no tokens"):
        write_split(tmp_path, "train", [], 8)


def test_the_digest_tells_tokens_apart(tmp_path):
    a, b = (Manifest.read(write_tokens(tmp_path / name)) for name in "ab")
    assert a.digest == b.digest
    assert a.digest != Manifest.read(write_tokens(tmp_path / "c", num_train=4001)).digest


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 1}', '{"format": 2}', '{"format": 1, "splits": []}'])
def test_a_damaged_manifest_is_one_clear_line(tmp_path, content):
    folder = write_tokens(tmp_path / "t")
    (folder / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest.json: not"):
        TokenStore(folder, "train")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"uint16"', '"foo"'),
        ('"num_tokens": 4000', '"num_tokens": "4000"'),
        ('"num_tokens": 4000', '"num_tokens": 0'),
        ('"vocab_size": 64', '"vocab_size": "64"'),
        ('"num_bytes": 16000', '"num_bytes": null'),
        ('"unigram_entropy": ', '"unigram_entropy": 1, "x": '),
    ],
)
def test_odd_values_in_a_manifest_are_refused(tmp_path, old, new):
    path = write_tokens(tmp_path / "t") / "manifest.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=r"manifest.json: not a manifest"):
        TokenStore(tmp_path / "t", "train")


def test_damaged_shards_and_missing_splits_are_refused(tmp_path):
    folder = write_tokens(tmp_path / "t")
    shard = folder / "train-00000.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[:-2])
    with pytest.raises(InputError, match=r"train-00000.bin: 7998 bytes, must be 8000 bytes; delete"):
        TokenStore(folder, "train")
    shard.unlink()
    with pytest.raises(InputError, match=r"train-00000.bin: no such file"):
        TokenStore(folder, "train")
    with pytest.raises(InputError, match="no split 'test'; the manifest has train, validation"):
        TokenStore(folder, "test")
    with pytest.raises(InputError, match=r"manifest.json: no such file; make the tokens with"):
        TokenStore(tmp_path, "train")


def test_manifest_is_plain_json(tmp_path):
    fields = json.loads((write_tokens(tmp_path / "t") / "manifest.json").read_text())
    assert fields["format"] == 1
    assert fields["splits"]["train"]["shards"][0]["num_tokens"] == 4000
