"""Turns a task into tokens on disk, in shards that any number of processes share and that survive kills.

Every shard of the source becomes one shard of tokens. A process *claims* a shard by locking a file in `.parts`, so that
its claim ends with it, and marks a finished shard by a file of what it counted; the process that finds all of them
finished writes the manifest. A rerun therefore does only what is missing, and the result does not depend on which
process did what.
"""

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxopt_lm.data import identity, tasks
from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.data.find import Files, TextFile, listed
from jaxopt_lm.data.tokens import (
    MANIFEST,
    VOCABULARY,
    Manifest,
    Part,
    Shard,
    Split,
    TokenStore,
    token_dtype,
    write_shard,
)
from jaxopt_lm.errors import InputError, require, writing
from jaxopt_lm.files import lock, sha256_of, sha256_of_file, write_atomically

if TYPE_CHECKING:
    import seqio

SPLITS = ("train", "validation")
_PARTS = ".parts"


@dataclasses.dataclass(frozen=True)
class Report:
    """How far the preparation is.

    Attributes:
      split: what is being written.
      shard: its number, from 0.
      num_shards: of all splits together.
      fraction: of the whole work that is done, by any process; estimated from bytes of text.
      num_tokens: written by this process.
    """

    split: str
    shard: int
    num_shards: int
    fraction: float
    num_tokens: int


Progress = Callable[[Report], None]


def is_prepared(config: TokensConfig) -> bool:
    """Whether the folder of a config already holds its tokens, whose text may have changed since.

    Raises:
      InputError: it holds tokens of other settings or of another vocabulary, or a damaged manifest.
    """
    folder = Path(config.tokens_dir)
    if not (folder / MANIFEST).exists():
        return False
    identity.check_settings(config, Manifest.read(folder))
    return True


def prepare(
    config: TokensConfig, progress: Progress = lambda report: None, say: Callable[[str], None] = print
) -> Manifest:
    """Writes the shards, the vocabulary and, last, the manifest of a task. Needs TensorFlow.

    A folder that already holds these tokens is checked, it and the text, byte by byte, and left as it is. Memory:
    TensorFlow, and some hundred documents that are being tokenised, whatever the size of the corpus.

    Args:
      config: what to prepare, and where to.
      progress: called now and then.
      say: called with a line on what a person would not expect: files left out, equal ones, text not compared.

    Raises:
      InputError: text, vocabulary or folder are not what the config says, or the disk is full.
    """
    folder = Path(config.tokens_dir)
    if not is_prepared(config):
        _write(config, folder, progress, say)
    elif reason := identity.check_text(config, Manifest.read(folder), sums=True):
        say(f"{identity.place(config)}: the text is not compared with its tokens: {reason}")
    shutil.rmtree(folder / _PARTS, ignore_errors=True)
    for split in SPLITS:
        TokenStore(folder, split, verify=True)
    return Manifest.read(folder)


def _write(config: TokensConfig, folder: Path, progress: Progress, say: Callable[[str], None]) -> None:
    require(folder != Path(), f"data.tokens_dir={folder}: is the working directory; give a folder for the tokens alone")
    require(
        folder.is_dir() or not folder.exists(), f"data.tokens_dir={folder}: is a file, must be a folder or not exist"
    )
    with writing(folder):
        (folder / _PARTS).mkdir(parents=True, exist_ok=True)
    with _claim(folder / ".lock"):  # text and vocabulary are made once; others wait
        if is_prepared(config):
            return
        given, source = tasks.given_vocabulary(config), tasks.make_source(config)
        files = tasks.text_files(config, source)
        for line in _surprises(config, files, _agree(config, folder, files, given)):
            say(line)
        _make_vocabulary(config, folder, source, given)
    sizes = {split: tasks.shard_sizes(source, split) for split in SPLITS}
    jobs = [_Job(folder, split, i, size) for split in SPLITS for i, size in enumerate(sizes[split])]
    _work(jobs, tasks.make_task(config, source), config, progress)
    with _claim(folder / ".lock"):
        if not is_prepared(config):
            text = _agree(config, folder, files, given)  # once more: it may have changed meanwhile
            _manifest(config, folder, jobs, text).write(folder)


class _Job:
    """One shard of a split: where it is read and written, its bytes of text (about), and whether it is done."""

    def __init__(self, folder: Path, split: str, index: int, size: float):
        self.split, self.index, self.size = split, index, size
        self.shard = folder / f"{split}-{index:05d}.bin"
        self.lock = folder / _PARTS / f"{split}-{index:05d}.lock"
        self._record = folder / _PARTS / f"{split}-{index:05d}.json"

    def is_done(self) -> bool:
        return self._record.exists()

    def finish(self, part: Part) -> None:
        _write_record(self._record, part._replace(shard=dataclasses.asdict(part.shard)))

    def part(self) -> Part | None:
        """What was counted; None where the shard is not done."""
        record = _read_record(self._record)
        return record and Part(Shard(**record[0]), *record[1:])


def _write_record(path: Path, value: Any) -> None:
    """A JSON value and, on a line before it, its checksum."""
    content = json.dumps(value, sort_keys=True).encode()
    write_atomically(path, sha256_of(content).encode() + b"\n" + content)


def _read_record(path: Path) -> Any:
    """The value that `_write_record` wrote; None where there is none, or a damaged one."""
    sha256, _, content = path.read_bytes().partition(b"\n") if path.is_file() else (b"", b"", b"")
    return json.loads(content) if sha256_of(content).encode() == sha256 else None


def _agree(config: TokensConfig, folder: Path, files: Files, given: bytes | None) -> tuple[TextFile, ...]:
    """The text; refuses, before anything is written, what a preparation begun earlier does not go with."""
    path, vocabulary = folder / _PARTS / "plan.json", folder / VOCABULARY
    plan, stamps = [identity.settings(config), given and sha256_of(given)], files.stamps()
    if path.exists():
        record = _read_record(path) or [None, None, []]
        text = tuple(TextFile(*file) for file in record[2])
        require(
            record[0] == plan and (record[1] == stamps or text == files.sums()),
            f"{folder}: its preparation was begun with other text, vocabulary or settings; delete it and begin anew",
        )
        return text
    require(
        not vocabulary.exists() or vocabulary.read_bytes() == given,
        f"{vocabulary}: is there, and not by a preparation that can go on; move it, or give another data.tokens_dir",
    )
    text = files.sums()
    _write_record(path, [plan, stamps, text])
    return text


def _surprises(config: TokensConfig, files: Files, text: tuple[TextFile, ...]) -> Iterator[str]:
    """What of the text a person may not expect, in a line each."""
    if files.left_out:
        yield listed(f"{identity.place(config)}: left out: ", files.left_out)
    first: dict[str, str] = {}
    copies = [
        f"{file.name} (equals {first[file.sha256]})"
        for file in text
        if file.size and first.setdefault(file.sha256, file.name) != file.name
    ]
    if copies:
        yield listed(f"{identity.place(config)}: read more than once: ", copies)


def _make_vocabulary(config: TokensConfig, folder: Path, source: "seqio.DataSource", given: bytes | None) -> None:
    path, record = folder / VOCABULARY, folder / _PARTS / "vocabulary.json"
    if path.is_file() and sha256_of_file(path) == _read_record(record):
        return
    if given is None:
        given = tasks.train_vocabulary(tasks.vocabulary_texts(source), config.vocab_size - config.extra_ids)
    write_atomically(path, given)
    _write_record(record, sha256_of(given))


def _work(jobs: list[_Job], task: "seqio.Task", config: TokensConfig, progress: Progress) -> None:
    """Does every job that no other process does; at the end waits for the others, and does what one of them left."""
    num_tokens, total = 0, sum(job.size for job in jobs)
    for wait in (False, True):
        for job in jobs:
            with _claim(job.lock, wait) as claimed:
                if not claimed or job.part() or is_prepared(config):
                    continue
                done = sum(job.size for job in jobs if job.is_done()) / total
                report = Report(job.split, job.index, len(jobs), done, num_tokens)
                documents = tasks.documents(task, job.split, job.index)
                shown = _shown(documents, job.size, total, report, progress)
                part = write_shard(job.shard, shown, config.vocab_size)
                job.finish(part)
                num_tokens += part.shard.num_tokens


def _shown(
    documents: Iterable[tuple[np.ndarray, int]], size: float, total: float, report: Report, progress: Progress
) -> Iterator[tuple[np.ndarray, int]]:
    """The documents; reports every fifth of a second, and at the end."""
    num_tokens, num_bytes, last = report.num_tokens, 0, 0.0
    for ids, bytes_of_text in documents:
        yield ids, bytes_of_text
        num_tokens, num_bytes = num_tokens + ids.size, num_bytes + bytes_of_text
        if time.monotonic() - last > 0.2:
            last, fraction = time.monotonic(), report.fraction + min(num_bytes, size) / total
            progress(dataclasses.replace(report, num_tokens=num_tokens, fraction=fraction))
    progress(dataclasses.replace(report, num_tokens=num_tokens, fraction=report.fraction + size / total))


@contextlib.contextmanager
def _claim(path: Path, wait: bool = True) -> Iterator[bool]:
    """Whether this process alone has the file, while the context lasts; with `wait`, when it has become free.

    False too where its folder is gone: another process has finished everything.
    """
    try:
        claimed = lock(path, wait=wait)
    except FileNotFoundError:
        claimed = None
    with claimed or contextlib.nullcontext():
        yield claimed is not None


def _manifest(config: TokensConfig, folder: Path, jobs: list[_Job], text: tuple[TextFile, ...]) -> Manifest:
    def parts(split: str) -> Iterator[Part]:
        for job in jobs:
            if job.split == split:
                part = job.part()
                if part is None:
                    raise InputError(f"{folder / _PARTS}: a file there was damaged; run the same command again")
                yield part

    splits = {split: Split.of(split, parts(split)) for split in SPLITS}
    return Manifest(
        source=config.identity(),
        vocabulary_sha256=sha256_of_file(folder / VOCABULARY),
        dtype=token_dtype(config.vocab_size).name,
        splits=splits,
        text=text,
    )
