"""Megatron's indexed dataset: tokens.bin with all ids, tokens.idx with where each document begins.

The layout of `megatron.core.datasets.indexed_dataset` (version 1), and to the byte what its
`IndexedDatasetBuilder` writes; written here, because that one needs torch and holds some Python numbers per
document in memory. One document is one sequence. tokens.idx: magic, version, dtype code, counts of sequences
and of document boundaries, lengths (int32), byte offsets (int64), boundaries 0..documents (int64).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from quadmix.errors import IntegrityError
from quadmix.io.raw import map_raw, raw_writer, read_chunks, read_head
from quadmix.materialise.exports.kinds import Document, ExportFormat, Source

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_CODES = {4: np.dtype("<i4"), 8: np.dtype("<u2")}
_HEAD = struct.Struct("<9sQBQQ")
_BIN, _IDX, _LENGTHS = "tokens.bin", "tokens.idx", "lengths.tmp"
_STEP = 1 << 20


def dtype(entries: int) -> np.dtype[Any]:
    """Return the dtype that Megatron takes for a vocabulary of that size."""
    return np.dtype(np.uint16 if entries < 65_500 else np.int32)


def write(source: Source, folder: Path) -> None:
    """Write one pair of files; the lengths go through a file, so that memory stays the same for any size."""
    kind = source.vocabulary.dtype
    with raw_writer(folder / _BIN, kind) as tokens, raw_writer(folder / _LENGTHS, np.int32) as lengths:
        for shard in source.shards():
            for document in shard.documents:
                assert document.ids is not None, "a format of tokens"
                tokens.append(document.ids)
                lengths.append(np.array([len(document.ids)]))
    _write_index(folder, kind, lengths.count)
    (folder / _LENGTHS).unlink()


def _write_index(folder: Path, kind: np.dtype[Any], documents: int) -> None:
    code = next(c for c, d in _CODES.items() if d == kind)
    head = _HEAD.pack(_MAGIC, _VERSION, code, documents, documents + 1)
    with raw_writer(folder / _IDX, np.int32, header=head) as out:
        for lengths in read_chunks(folder / _LENGTHS, np.int32):
            out.append(lengths)
        out.dtype = np.dtype("<i8")
        offset = 0
        for lengths in read_chunks(folder / _LENGTHS, np.int32):
            ends = offset + np.cumsum(lengths, dtype=np.int64) * kind.itemsize
            out.append(ends - lengths.astype(np.int64) * kind.itemsize)
            offset = int(ends[-1])
        for start in range(0, documents + 1, _STEP):
            out.append(np.arange(start, min(start + _STEP, documents + 1)))


def read(source: Source, folder: Path) -> Iterator[Document]:
    """Yield the documents as the index says."""
    magic, version, code, sequences, boundaries = _HEAD.unpack(read_head(folder / _IDX, _HEAD.size))
    if (magic, version, boundaries) != (_MAGIC, _VERSION, sequences + 1):
        raise IntegrityError(f"{folder / _IDX} does not begin as an index of {sequences:,} documents")
    kind, at = _CODES[code], _HEAD.size
    lengths = map_raw(folder / _IDX, np.int32, offset=at, count=sequences)
    offsets = map_raw(folder / _IDX, np.int64, offset=at + 4 * sequences, count=sequences)
    tokens = map_raw(folder / _BIN, kind)
    for length, offset in zip(lengths, offsets, strict=True):
        start = int(offset) // kind.itemsize
        yield Document(ids=tokens[start : start + int(length)].astype(np.int64))


FORMAT = ExportFormat(name="megatron", holds="tokens", write=write, read=read, dtype=dtype)
