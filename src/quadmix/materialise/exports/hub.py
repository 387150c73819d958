"""A folder for `datasets.load_dataset(folder)` and for the Hugging Face hub: data/train-*-of-*.parquet, the
dataset's own shards, and README.md with the card, whose `configs` name them."""

from collections.abc import Iterator
from pathlib import Path

from quadmix.io.atomic import copy_file, read_text, write_text
from quadmix.materialise.exports.kinds import Document, ExportFormat, Source
from quadmix.materialise.exports.source import read_documents

_CARD = "README.md"
_DATA = "data/train-*"
_HEADER = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {}\n---\n"


def write(source: Source, folder: Path) -> None:
    """Copy the shards under the hub's usual names, and the card; each is read once to count its rows."""
    for shard in source.shards():
        copy_file(source.dataset / shard.name, folder / _name(source, shard.index))
        for _ in shard.documents:
            pass
    write_text(folder / _CARD, _card(source))


def _suffix(source: Source) -> str:
    return "." + source.manifest.shards[0].name.partition(".")[2]


def _name(source: Source, index: int) -> str:
    return f"data/train-{index:05d}-of-{len(source.manifest.shards):05d}{_suffix(source)}"


def _card(source: Source) -> str:
    """Return the dataset's card with the paths of this folder; a header alone if it has no card."""
    here = _DATA + _suffix(source)
    card = source.dataset / _CARD
    if not card.is_file():
        return _HEADER.format(here)
    return read_text(card).replace(f"path: part-*{_suffix(source)}", f"path: {here}", 1)


def read(source: Source, folder: Path) -> Iterator[Document]:
    """Yield the rows of the copies."""
    for index in range(len(source.manifest.shards)):
        yield from read_documents(folder / _name(source, index), source.text)


FORMAT = ExportFormat(name="hf", holds="texts", write=write, read=read)
