"""Parquet files written piece by piece and read in part: one row group per table given to the writer.

Writing is atomic (promise P2): the file is re-opened and counted before it becomes visible.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quadmix.errors import IntegrityError
from quadmix.io.atomic import replacing


def write_groups(path: str | Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write each table as one row group (zstd) of one atomic file; return the number of rows.

    Chunks are joined first, so that equal rows give equal bytes however they were gathered.
    """
    rows = 0
    with replacing(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.combine_chunks(), row_group_size=max(1, table.num_rows))
                rows += table.num_rows
        _check_count(path, pq.ParquetFile(temporary).metadata.num_rows, rows)
    return rows


def _check_count(path: str | Path, found: int, expected: int) -> None:
    if found != expected:
        raise IntegrityError(
            f"{path}: {found} rows came back, expected the {expected} written; is the disk sound?"
        )


def read_group(path: str | Path, group: int) -> pa.Table:
    """Read one row group."""
    with pq.ParquetFile(Path(path)) as file:
        return file.read_row_group(group)


def read_slice(path: str | Path, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
    """Read rows start..stop of a Parquet file, touching only the row groups that hold them."""
    with pq.ParquetFile(Path(path)) as file:
        groups: list[int] = []
        first = seen = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if seen < stop and seen + rows > start:
                first = first if groups else seen
                groups.append(group)
            seen += rows
        return file.read_row_groups(groups, columns=columns).slice(start - first, max(0, stop - start))


def stream_tables(path: str | Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield a Parquet file row group by row group."""
    with pq.ParquetFile(Path(path)) as file:
        for group in range(file.metadata.num_row_groups):
            yield file.read_row_group(group, columns=columns)
