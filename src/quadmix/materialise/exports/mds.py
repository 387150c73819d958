"""MosaicML streaming's MDS, by its own writer: shards (zstd, with hashes) and index.json.

Columns: text, doc_id, domain, the numbers of the struct `quadmix`, and `score.<criterion>` for each criterion
(NaN where it is missing). No column is of a kind that needs pickle, which StreamingDataset refuses.
"""

import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np

from quadmix.errors import IntegrityError
from quadmix.io.atomic import read_json, write_bytes
from quadmix.io.raw import read_head
from quadmix.materialise.exports.kinds import Document, ExportFormat, Source
from quadmix.materialise.exports.libraries import library
from quadmix.materialise.plan import STRUCT

_TEXTS = ("doc_id", "domain")
_NUMBERS: dict[str, type[np.generic]] = {
    "tokens": np.int32, "merged": np.float64, "rank": np.float64, "expected_copies": np.float64,
    "copies": np.int32, "copy_index": np.int32,
}  # fmt: skip
_SCORE = np.float32
_COMPRESSION = "zstd:7"
_HASH = "xxh3_64"


def write(source: Source, folder: Path) -> None:
    """Write all documents; the library holds one shard (64 MiB of samples) in memory."""
    streaming = _streaming("streaming")
    documents = (document for shard in source.shards() for document in shard.documents)
    first = next(documents)
    kinds = {**_NUMBERS, **{f"score.{name}": _SCORE for name in _scores(first)}}
    columns = {
        "text": "str",
        **dict.fromkeys(_TEXTS, "str"),
        **{k: np.dtype(t).name for k, t in kinds.items()},
    }
    with streaming.MDSWriter(
        out=str(folder), columns=columns, compression=_COMPRESSION, hashes=[_HASH], max_workers=1
    ) as out:
        for document in chain([first], documents):
            out.write(_sample(document, kinds))


def _streaming(module: str) -> Any:
    return library(module, "mosaicml-streaming", "mds", "format mds")


def _scores(document: Document) -> dict[str, Any]:
    return cast(dict[str, Any], document.row[STRUCT].get("scores") or {})


def _sample(document: Document, kinds: dict[str, type[np.generic]]) -> dict[str, Any]:
    struct = {**document.row[STRUCT], **{f"score.{k}": v for k, v in _scores(document).items()}}
    numbers = {name: kind(_number(struct.get(name))) for name, kind in kinds.items()}
    return {"text": document.text, **{name: struct[name] for name in _TEXTS}, **numbers}


def _number(value: Any) -> Any:
    return float("nan") if value is None else value


def read(source: Source, folder: Path) -> Iterator[Document]:
    """Yield the documents with the library's own reader, one shard unpacked at a time."""
    formats, packing = _streaming("streaming.base.format"), _streaming("streaming.base.compression")
    hashing = _streaming("streaming.base.hashing")
    for info in read_json(folder / "index.json")["shards"]:
        packed, raw = info["zip_data"], info["raw_data"]
        data = packing.decompress(
            info["compression"], read_head(folder / packed["basename"], packed["bytes"])
        )
        if hashing.get_hash(_HASH, data) != raw["hashes"][_HASH]:
            raise IntegrityError(f"{folder / packed['basename']} does not have the hash of index.json")
        with tempfile.TemporaryDirectory(prefix=".raw-", dir=folder) as place:
            write_bytes(Path(place, raw["basename"]), data)
            reader = formats.reader_from_json(place, None, info)
            for number in range(info["samples"]):
                sample = reader[number]
                yield Document(doc_id=sample["doc_id"], text=sample["text"])


FORMAT = ExportFormat(
    name="mds", holds="texts", write=write, read=read, package="mosaicml-streaming", extra="mds"
)
