"""Small corpora in exactly the published layouts: python -m tests.data.corpora FOLDER writes C4 with TensorFlow."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

FINEWEB_FIELDS = {
    "text": "string",
    "id": "string",
    "dump": "string",
    "url": "string",
    "date": "string",
    "file_path": "string",
    "language": "string",
    "language_score": "double",
    "token_count": "int64",
}
C4_SHARDS = 8


def paragraphs(first: int, count: int) -> Iterator[str]:
    """`count` paragraphs of the State of the Union addresses from number `first` on, of at least 200 characters."""
    from jaxopt_lm.data.places import speech_files

    texts = (text.strip() for file in speech_files() for text in file.read_text(encoding="utf-8").split("\n\n"))
    kept = (text for text in texts if len(text) >= 200)
    for number, text in enumerate(kept):
        if number >= first + count:
            return
        if number >= first:
            yield text


def write_fineweb(folder: Path, *, num_files: int = 3, per_file: int = 200) -> Path:
    """FineWeb's parquet files: its nine columns, named like its shards, several row groups each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    schema = pa.schema(
        [(name, getattr(pa, {"double": "float64"}.get(kind, kind))()) for name, kind in FINEWEB_FIELDS.items()]
    )
    for file in range(num_files):
        rows = [
            {
                "text": text,
                "id": f"<urn:uuid:{file:04d}-{number:08d}>",
                "dump": "CC-MAIN-2013-20",
                "url": f"http://example.org/{file}/{number}",
                "date": "2013-05-18T08:12:31Z",
                "file_path": "s3://commoncrawl/crawl-data/CC-MAIN-2013-20/segments/1.warc.gz",
                "language": "en",
                "language_score": 0.9,
                "token_count": len(text) // 4,
            }
            for number, text in enumerate(paragraphs(file * per_file, per_file))
        ]
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, folder / f"{file:03d}_00000.parquet", row_group_size=64)
    return folder


def write_c4(folder: Path, per_shard: int = 1000) -> None:
    """`c4/en/3.0.1` below `folder`, written by TFDS: C4's five features, sharded."""
    import tensorflow_datasets as tfds

    text = tfds.features.Text()
    fields = ("text", "url", "content-type", "content-length", "timestamp")

    class C4(tfds.core.GeneratorBasedBuilder):
        """C4's name, config, version and features, other text."""

        VERSION = tfds.core.Version("3.0.1")
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="en"),)

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict.fromkeys(fields, text)))

        def _split_generators(self, dl_manager):
            del dl_manager
            train = per_shard * C4_SHARDS
            return {"train": self._generate_examples(0, train), "validation": self._generate_examples(train, 80)}

        def _generate_examples(self, first, count):
            for number, document in enumerate(paragraphs(first, count)):
                yield (
                    number,
                    {
                        "text": document,
                        "url": f"https://example.org/{number}",
                        "content-type": "text/html",
                        "content-length": str(len(document)),
                        "timestamp": "2019-04-25T12:57:54Z",
                    },
                )

    builder = C4(data_dir=folder, config="en")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=C4_SHARDS))


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    write_c4(Path(sys.argv[1]))
