"""The rows of a dataset's files as they state themselves: which document, which copy of how many, how long.

In: a shard of the dataset. Out: its rows, one row group or batch of lines at a time; no text is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from quadmix.errors import IntegrityError
from quadmix.io.readers import BadRow, plan_splits, read_rows
from quadmix.io.tables import stream_tables
from quadmix.materialise.plan import STRUCT
from quadmix.rng import doc_keys
from quadmix.types import Ints

INDEX = "index"
_FIELDS = ("doc_id", "copy_index", "copies", "tokens")
_INDEX_FIELDS = ("doc_id", "copies")
_MAX_ROW_BYTES = 1 << 40  # the rows are ours: none is too long


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredRows:
    """Some rows of one file, in order. keys: (C,) hash of doc_id. copy_index, copies, tokens: (C,) int64.

    An index has one row per document, where copy_index and tokens are 0.
    """

    doc_id: Sequence[str]
    keys: NDArray[np.uint64]
    copy_index: Ints
    copies: Ints
    tokens: Ints


def read_stored(path: Path, format: str) -> Iterator[StoredRows]:
    """Yield the rows of one shard. format: of the dataset's manifest."""
    fields = _INDEX_FIELDS if format == INDEX else _FIELDS
    columns = _parquet(path, fields) if path.suffix == ".parquet" else _lines(path, fields)
    for ids, *numbers in columns:
        arrays = dict(zip(fields[1:], numbers, strict=True))
        nothing = np.zeros(len(ids), dtype=np.int64)
        yield StoredRows(
            doc_id=ids,
            keys=doc_keys(ids),
            copy_index=arrays.get("copy_index", nothing),
            copies=arrays["copies"],
            tokens=arrays.get("tokens", nothing),
        )


def numbers_of(path: Path, format: str) -> StoredRows:
    """Return all rows of one shard without their ids."""
    found = [(r.keys, r.copy_index, r.copies, r.tokens) for r in read_stored(path, format)]
    empty = np.empty(0, dtype=np.int64)
    return StoredRows(
        doc_id=(),
        keys=np.concatenate([empty.astype(np.uint64), *(f[0] for f in found)]),
        copy_index=np.concatenate([empty, *(f[1] for f in found)]),
        copies=np.concatenate([empty, *(f[2] for f in found)]),
        tokens=np.concatenate([empty, *(f[3] for f in found)]),
    )


def _parquet(path: Path, fields: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    if fields == _INDEX_FIELDS:
        for table in stream_tables(path, list(fields)):
            yield _columns(path, [table[name].combine_chunks() for name in fields])
        return
    for table in stream_tables(path, [f"{STRUCT}.{name}" for name in fields]):
        struct = table[STRUCT].combine_chunks()
        yield _columns(
            path, [pc.call_function("struct_field", [struct], pc.StructFieldOptions(name)) for name in fields]
        )


def _columns(path: Path, columns: Sequence[pa.Array]) -> tuple[Any, ...]:
    if any(c.null_count for c in columns):
        raise IntegrityError(f"{path}: a row lacks its id or its numbers; write the dataset again")
    return (columns[0].to_pylist(), *(c.to_numpy().astype(np.int64) for c in columns[1:]))


def _lines(path: Path, fields: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for split in plan_splits([str(path)], _MAX_ROW_BYTES):
        for batch in read_rows(split, max_row_bytes=_MAX_ROW_BYTES, bad=_refuse):
            rows = [_row(path, value, fields) for value in batch.values]
            ids = [row[0] for row in rows]
            numbers = np.array([row[1:] for row in rows], dtype=np.int64).reshape(len(rows), len(fields) - 1)
            yield (ids, *numbers.T)


def _row(path: Path, value: dict[str, Any], fields: Sequence[str]) -> tuple[Any, ...]:
    row = value if fields == _INDEX_FIELDS else value.get(STRUCT)
    if not isinstance(row, dict) or any(row.get(name) is None for name in fields):
        raise IntegrityError(f"{path}: a row lacks its id or its numbers; write the dataset again")
    return tuple(row[name] for name in fields)  # pyright: ignore[reportUnknownArgumentType]


def _refuse(row: BadRow) -> None:
    raise IntegrityError(f"{row.path}: row {row.row} cannot be read back ({row.reason}); is the disk sound?")
