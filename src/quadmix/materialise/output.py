"""One file of the dataset, in its format: whole or absent, and counted as it is written.

In: tables of output rows. Out: part-*.parquet (one row group per table) or part-*.jsonl.zst, with the rows
and tokens that went into it.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from quadmix.corpus.read import user_rows
from quadmix.errors import IntegrityError
from quadmix.io.atomic import file_digest
from quadmix.io.tables import write_groups
from quadmix.io.writers import write_jsonl_zst
from quadmix.materialise.plan import STRUCT, DatasetPlan
from quadmix.types import ShardInfo


def write_output(
    path: Path,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    plan: DatasetPlan,
    *,
    written: Callable[[], None],
) -> ShardInfo:
    """Write one file and return what it holds; `written` is called before the file becomes visible."""
    rows = tokens = 0

    def counted() -> Iterator[pa.Table]:
        nonlocal rows, tokens
        for table in tables:
            rows += table.num_rows
            tokens += int(struct_field(table, "tokens").sum(dtype=np.int64))
            yield table
        written()

    if plan.format == "parquet":
        stored = write_groups(path, schema, counted(), codec=plan.codec)
    else:
        stored = write_jsonl_zst(path, _lines(counted()))
    if stored != rows:
        raise IntegrityError(f"{path} holds {stored} rows, expected {rows}")
    return shard_info(path, rows, tokens)


def shard_info(path: Path, rows: int, tokens: int) -> ShardInfo:
    """Return the entry of a committed file."""
    size = path.stat().st_size
    return ShardInfo(name=path.name, rows=rows, bytes=size, digest=file_digest(path), tokens=tokens)


def struct_field(table: pa.Table | pa.RecordBatch, name: str) -> Any:
    """Return one number of each row, as the rows state it: (C,)."""
    field = pc.call_function("struct_field", [table[STRUCT]], pc.StructFieldOptions(name))
    return field.to_numpy()


def _lines(tables: Iterable[pa.Table]) -> Iterator[bytes]:
    for table in tables:
        for batch in table.to_batches(max_chunksize=1000):
            for row in user_rows(batch):
                yield json_line(row)


def json_line(row: dict[str, Any]) -> bytes:
    """Return a row as one line of JSON (without its newline)."""
    try:
        return orjson.dumps(row, default=_plain)
    except TypeError:  # an integer beyond 64 bits, which only the slow writer knows
        return json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> str:
    """Give what JSON lacks a text: bytes as base64, decimals and durations as written."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
