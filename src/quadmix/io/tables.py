"""Tables in files, written piece by piece and read in part.

Parquet: one row group per table given to the writer. Arrow IPC (for files of our own that are read once): one
record batch after the other, each of which can be read by itself without looking at the rest.
Writing is atomic (promise P2): the file is re-opened and counted before it becomes visible.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quadmix.errors import IntegrityError
from quadmix.io.atomic import naming, replacing
from quadmix.io.readers import open_parquet

ZSTD = "zstd"
_CODECS = ("snappy", "gzip", "brotli", "lz4", ZSTD)


def write_groups(
    path: str | Path, schema: pa.Schema, tables: Iterable[pa.Table], *, codec: str = ZSTD
) -> int:
    """Write each table as one row group of one atomic file; return the number of rows.

    Chunks are joined first, so that equal rows give equal bytes however they were gathered.
    """
    rows = 0
    with replacing(path) as temporary:
        with pq.ParquetWriter(temporary, schema, compression=codec) as writer:
            for table in tables:
                writer.write_table(table.combine_chunks(), row_group_size=max(1, table.num_rows))
                rows += table.num_rows
        _check_count(path, pq.ParquetFile(temporary).metadata.num_rows, rows, "rows")
    return rows


def _check_count(path: str | Path, found: int, expected: int, what: str) -> None:
    if found != expected:
        raise IntegrityError(
            f"{path}: {found} {what} came back, expected the {expected} written; is the disk sound?"
        )


def parquet_codec(path: str, column: str) -> str:
    """Return the compression of a column in the user's Parquet file; zstd where there is none, or no row."""
    with open_parquet(path) as file:
        if not file.num_row_groups:
            return ZSTD
        group = file.metadata.row_group(0)
        leaves = [group.column(i) for i in range(group.num_columns)]
        leaf = next((c for c in leaves if c.path_in_schema == column), leaves[0] if leaves else None)
        found = leaf.compression.lower().removesuffix("_raw") if leaf is not None else ZSTD
    return found if found in _CODECS else ZSTD


def read_slice(path: str | Path, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
    """Read rows start..stop of a Parquet file, touching only the row groups that hold them."""
    with naming(path), pq.ParquetFile(Path(path)) as file:
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
    with naming(path), pq.ParquetFile(Path(path)) as file:
        for group in range(file.metadata.num_row_groups):
            yield file.read_row_group(group, columns=columns)


def write_batches(path: str | Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write record batches as one atomic Arrow IPC file (lz4, quick to read); return how many there were."""
    count = 0
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with replacing(path) as temporary:
        with (
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, schema, options=options) as writer,
        ):
            for batch in batches:
                writer.write_batch(batch)
                count += 1
        with pa.OSFile(str(temporary), "rb") as source:
            _check_count(path, pa.ipc.open_file(source).num_record_batches, count, "batches")
    return count


def read_batch(path: str | Path, index: int) -> pa.RecordBatch:
    """Read one record batch of an Arrow IPC file of ours."""
    try:
        with naming(path), pa.OSFile(str(path), "rb") as source:
            return pa.ipc.open_file(source).get_batch(index)
    except pa.ArrowInvalid as error:
        raise IntegrityError(
            f"{path}: batch {index} cannot be read back ({error}); remove the file's folder and run again"
        ) from error
