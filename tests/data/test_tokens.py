"""Token folders: what is written is read, across shards, and damage is refused."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from jaxopt_lm.config import DataConfig
from jaxopt_lm.data.tokens import Manifest, Shard, Split, TokenStore, token_dtype, write_shard
from jaxopt_lm.errors import InputError
from tests.conftest import write_tokens


def split_of(folder, pieces, vocab_size=64) -> Split:
    """Writes each piece, an array of tokens, as a shard of one document."""
    parts = [
        write_shard(folder / f"train-{i:05d}.bin", [(piece, 4 * piece.size)], vocab_size)
        for i, piece in enumerate(pieces)
    ]
    return Split.of("train", parts)


def test_shards_join_seamlessly(tmp_path):
    whole = TokenStore(write_tokens(tmp_path / "one", num_train=47), "train")
    folder = write_tokens(tmp_path / "t", num_train=47)
    split = split_of(folder, np.split(whole.read(0, 47), [10, 10, 20, 37]))
    manifest = Manifest.read(folder)
    dataclasses.replace(manifest, splits=manifest.splits | {"train": split}).write(folder)
    store = TokenStore(folder, "train", verify=True)
    assert [shard.num_tokens for shard in store.split.shards] == [10, 0, 10, 17, 10]
    assert len(store) == len(whole) == 47
    assert store.split.unigram_entropy == whole.split.unigram_entropy
    np.testing.assert_array_equal(store.token_counts(), whole.token_counts())
    for start in range(48):
        for length in (0, 1, 9, 10, 11, 23):
            if start + length <= 47:
                np.testing.assert_array_equal(store.read(start, length), whole.read(0, 47)[start : start + length])
    assert store.read(5, 20).dtype == np.int32
    with pytest.raises(IndexError):
        store.read(40, 8)


def test_counts(tmp_path):
    documents = [(np.asarray([3, 3, 1]), 10), (np.asarray([5, 1]), 7)]
    split = Split.of("train", [write_shard(tmp_path / "train-00000.bin", documents, 8)])
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
        write_shard(tmp_path / "train-00000.bin", [(np.asarray([8]), 1)], 8)
    assert not list(tmp_path.glob("*.bin"))


def test_an_empty_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="train: the split has no tokens"):
        Split.of("train", [write_shard(tmp_path / "train-00000.bin", [], 8)])


def test_the_digest_tells_tokens_apart(tmp_path):
    a, b = (Manifest.read(write_tokens(tmp_path / name)) for name in "ab")
    assert a.digest == b.digest
    assert a.digest != Manifest.read(write_tokens(tmp_path / "c", num_train=4001)).digest


def test_the_digest_holds_what_decides_the_tokens_and_nothing_measured(tmp_path):
    """Entropy's last bits differ from processor to processor. Runs begun before 2026-11-26 hold the older form."""
    shards = (Shard("train-00000.bin", 3, "ab" * 32),)
    splits = {"train": Split(shards, 1, 12, 0.5)}
    manifest = Manifest(DataConfig(vocab_size=64).identity(), "cd" * 32, "uint16", splits)
    elsewhere = dataclasses.replace(manifest, splits={"train": Split(shards, 1, 12, np.nextafter(0.5, 1).item())})
    assert elsewhere.digest == manifest.digest
    assert elsewhere.has_digest(manifest.digest)
    older = "abdf2cf304507d9073cfbd02d59428f05ccfa7fb308b5ae2722cbd5eadf32a7a"
    assert manifest.has_digest(older)
    assert not elsewhere.has_digest(older)
    for name, value in (("vocabulary_sha256", "ef" * 32), ("splits", {"train": Split((*shards, *shards), 1, 12, 0.5)})):
        assert not dataclasses.replace(manifest, **{name: value}).has_digest(manifest.digest)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 1}', '{"format": 2}', '{"format": 2, "splits": []}'])
def test_a_damaged_manifest_is_one_clear_line(tmp_path, content):
    folder = write_tokens(tmp_path / "t")
    (folder / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest.json: not"):
        TokenStore(folder, "train")


def resign(path, change) -> None:
    """Rewrites a manifest, its own checksum made right again."""
    fields = json.loads(path.read_text())
    change(fields)
    del fields["sha256"]
    fields["sha256"] = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(dtype="foo"),
        lambda fields: fields["splits"]["train"]["shards"][0].update(num_tokens="4000"),
        lambda fields: fields["splits"]["train"]["shards"][0].update(num_tokens=-1),
        lambda fields: fields["splits"]["train"].update(shards=[]),
        lambda fields: fields["splits"]["train"].update(num_bytes=None),
        lambda fields: fields["splits"]["train"].update(x=1),
        lambda fields: fields["source"].update(vocab_size="64"),
        lambda fields: fields.pop("source"),
    ],
)
def test_odd_values_in_a_manifest_are_refused(tmp_path, change):
    path = write_tokens(tmp_path / "t") / "manifest.json"
    resign(path, lambda fields: None)
    TokenStore(tmp_path / "t", "train")
    resign(path, change)
    with pytest.raises(InputError, match=r"manifest.json: not a manifest"):
        TokenStore(tmp_path / "t", "train")


def test_any_change_of_a_manifest_is_noticed(tmp_path):
    path = write_tokens(tmp_path / "t") / "manifest.json"
    path.write_text(path.read_text().replace('"num_bytes": 16000', '"num_bytes": 16001'))
    with pytest.raises(InputError, match=r"manifest.json: not a manifest \(its checksum is wrong\)"):
        TokenStore(tmp_path / "t", "train")


def test_a_flipped_bit_is_found_on_demand_and_in_the_vocabulary_always(tmp_path):
    folder = write_tokens(tmp_path / "t")
    for name, verify in (("train-00000.bin", True), ("sentencepiece.model", False)):
        content = bytearray((folder / name).read_bytes())
        content[1] ^= 4
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: damaged, its SHA-256 is"):
            TokenStore(folder, "train", verify=verify)
        content[1] ^= 4
        (folder / name).write_bytes(content)
    TokenStore(folder, "train", verify=True)


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
    assert fields["format"] == 2
    assert fields["splits"]["train"]["shards"][0]["num_tokens"] == 4000
