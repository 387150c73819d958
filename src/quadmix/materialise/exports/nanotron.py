"""nanotron's Nanosets, by datatrove's own writer: per shard a .ds file with ids, its .ds.index with the end
of every document (uint64, in tokens) and its .ds.metadata with tokenizer, bytes per token and count."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from quadmix.io.raw import map_raw
from quadmix.materialise.exports.kinds import Document, ExportFormat, Source
from quadmix.materialise.exports.libraries import library


def write(source: Source, folder: Path) -> None:
    """Write three files per shard; the ends of one shard's documents are in memory."""
    module = library("datatrove.pipeline.tokens.tokenizer", "datatrove", "export", "format nanotron")
    words = source.vocabulary
    kind = words.dtype.newbyteorder("<")
    for shard in source.shards():
        file = module.TokenizedFile(
            str(folder),
            _name(shard.index),
            tokenizer_name_or_path=words.name or f"quadmix-{words.tokenizer.digest[:12]}",
            save_final_metadata=True,
            token_size=kind.itemsize,
        )
        try:
            for document in shard.documents:
                assert document.ids is not None, "a format of tokens"
                file.write_bytes(document.ids.astype(kind).tobytes())
        finally:
            file.close()


def _name(index: int) -> str:
    return f"{index:05d}_tokens.ds"


def read(source: Source, folder: Path) -> Iterator[Document]:
    """Yield the documents as the index files say."""
    for shard in range(len(source.manifest.shards)):
        tokens = map_raw(folder / _name(shard), source.vocabulary.dtype)
        start = 0
        for end in map_raw(folder / f"{_name(shard)}.index", np.uint64):
            yield Document(ids=tokens[start : int(end)].astype(np.int64))
            start = int(end)


FORMAT = ExportFormat(
    name="nanotron", holds="tokens", write=write, read=read, package="datatrove", extra="export"
)
