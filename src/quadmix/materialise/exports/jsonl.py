"""JSON lines: part-*.jsonl.zst, one row per line with the user's columns and the struct `quadmix`."""

from collections.abc import Iterator
from pathlib import Path

from quadmix.io.writers import write_jsonl_zst
from quadmix.materialise.exports.kinds import Document, ExportFormat, Source
from quadmix.materialise.exports.source import read_documents
from quadmix.materialise.output import json_line


def write(source: Source, folder: Path) -> None:
    """Write one file per shard."""
    for shard in source.shards():
        write_jsonl_zst(folder / _name(shard.index), (json_line(d.row) for d in shard.documents))


def _name(index: int) -> str:
    return f"part-{index:05d}.jsonl.zst"


def read(source: Source, folder: Path) -> Iterator[Document]:
    """Yield the rows of the files."""
    for index in range(len(source.manifest.shards)):
        yield from read_documents(folder / _name(index), source.text)


FORMAT = ExportFormat(name="jsonl", holds="texts", write=write, read=read)
