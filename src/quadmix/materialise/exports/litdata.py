"""litdata's chunks of tokens, by its own writer: chunk-*.bin and index.json for `TokensLoader`.

An item is a document. A chunk: count of items, count + 1 byte offsets (uint32), then the ids of all items.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from quadmix.io.atomic import read_json, value_digest, write_json
from quadmix.io.raw import map_raw
from quadmix.materialise.exports.kinds import Document, ExportFormat, Source
from quadmix.materialise.exports.libraries import library

_CHUNK_BYTES = 1 << 28  # the loader drops what is left of a chunk after its last block: few, large chunks


def dtype(entries: int) -> np.dtype[Any]:
    """Return the dtype of the ids; int32 where two bytes do not do, as torch computes little with uint32."""
    return np.dtype(np.uint16 if entries <= 1 << 16 else np.int32)


def write(source: Source, folder: Path) -> None:
    """Write all documents; the library holds one chunk in memory."""
    litdata = library("litdata.streaming.cache", "litdata", "litdata", "format litdata")
    loaders = library("litdata.streaming.item_loader", "litdata", "litdata", "format litdata")
    torch = library("torch", "torch", "litdata", "format litdata")
    kind, place = source.vocabulary.dtype, 0
    cache = litdata.Cache(str(folder), chunk_bytes=_CHUNK_BYTES, item_loader=loaders.TokensLoader())
    for shard in source.shards():
        for document in shard.documents:
            assert document.ids is not None, "a format of tokens"
            cache[place] = torch.from_numpy(document.ids.astype(kind))
            place += 1
    cache.done()
    cache.merge()
    _name_content(source, folder / "index.json")


def _name_content(source: Source, path: Path) -> None:
    """Put a digest of the content where the library writes the time: it is the key of the readers' caches,
    and equal exports have equal bytes."""
    words = source.vocabulary
    content = value_digest([source.manifest.digest, words.tokenizer.digest, words.eos])
    write_json(path, {**read_json(path), "updated_at": content})


def read(source: Source, folder: Path) -> Iterator[Document]:
    """Yield the documents within the offsets of the chunks."""
    kind = source.vocabulary.dtype
    for info in read_json(folder / "index.json")["chunks"]:
        path = folder / info["filename"]
        items = int(map_raw(path, np.uint32, count=1)[0])
        offsets = map_raw(path, np.uint32, offset=4, count=items + 1)
        tokens = map_raw(path, kind, offset=int(offsets[0]))
        places = (offsets - offsets[0]).astype(np.int64) // kind.itemsize
        for start, stop in pairwise(places):
            yield Document(ids=tokens[start:stop].astype(np.int64))


FORMAT = ExportFormat(
    name="litdata", holds="tokens", write=write, read=read, dtype=dtype, package="litdata", extra="litdata"
)
