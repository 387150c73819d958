"""OLMo-core's token files, as `dolma tokens` writes them: per shard part-*.npy (raw ids, no header) with all
documents one after the other, and part-*.csv.gz with a line per document: start, end, id, source, place.

The writer is published only as a part of the dolma package, which needs an old numpy: it is written here.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from quadmix.io.raw import gzip_reader, gzip_writer, map_raw, raw_writer
from quadmix.materialise.exports.kinds import Document, ExportFormat, Source


def write(source: Source, folder: Path) -> None:
    """Write a pair of files per shard."""
    for shard in source.shards():
        name = f"part-{shard.index:05d}"
        with (
            raw_writer(folder / f"{name}.npy", source.vocabulary.dtype) as tokens,
            gzip_writer(folder / f"{name}.csv.gz") as text,
        ):
            lines = csv.writer(text)
            for place, document in enumerate(shard.documents, start=1):
                assert document.ids is not None, "a format of tokens"
                start = tokens.count
                tokens.append(document.ids)
                lines.writerow((start, tokens.count, _one_line(document.doc_id), shard.name, place))


def _one_line(doc_id: str) -> str:
    """OLMo-core reads the file line by line, without the rules of CSV."""
    return doc_id.replace("\r", " ").replace("\n", " ")


def read(source: Source, folder: Path) -> Iterator[Document]:
    """Yield the documents within the boundaries of the csv files."""
    for index in range(len(source.manifest.shards)):
        tokens = map_raw(folder / f"part-{index:05d}.npy", source.vocabulary.dtype)
        with gzip_reader(folder / f"part-{index:05d}.csv.gz") as text:
            for start, end, *_ in csv.reader(text):
                yield Document(ids=tokens[int(start) : int(end)].astype(np.int64))


FORMAT = ExportFormat(name="olmo", holds="tokens", write=write, read=read)
