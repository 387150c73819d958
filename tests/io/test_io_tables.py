"""Parquet by row groups and Arrow IPC by batches: atomic, counted, the same bytes for the same rows."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quadmix.errors import IntegrityError
from quadmix.io.atomic import file_digest
from quadmix.io.tables import (
    parquet_codec,
    read_batch,
    read_slice,
    stream_tables,
    write_batches,
    write_groups,
)

TABLE = pa.table({"a": list(range(10)), "s": [str(i) * 50 for i in range(10)]})


def test_each_table_is_a_row_group_and_chunks_change_no_byte(tmp_path: Path):
    chunked = pa.concat_tables([TABLE.slice(i, 1) for i in range(10)])
    assert write_groups(tmp_path / "a", TABLE.schema, [TABLE, TABLE.slice(0, 3)]) == 13
    assert write_groups(tmp_path / "b", TABLE.schema, iter([chunked, chunked.slice(0, 3)])) == 13
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b")
    assert [t.num_rows for t in stream_tables(tmp_path / "a")] == [10, 3]
    assert read_slice(tmp_path / "a", 9, 12, ["a"])["a"].to_pylist() == [9, 0, 1]
    assert parquet_codec(str(tmp_path / "a"), "s") == "zstd"
    assert write_groups(tmp_path / "empty", TABLE.schema, []) == 0
    assert pq.read_table(tmp_path / "empty").schema == TABLE.schema
    assert parquet_codec(str(tmp_path / "empty"), "s") == "zstd"


@pytest.mark.parametrize(
    ("written", "found"),
    [("zstd", "zstd"), ("snappy", "snappy"), ("gzip", "gzip"), ("lz4", "lz4"), ("none", "zstd")],
)
def test_the_codec_of_a_column_is_read_and_can_be_written(tmp_path: Path, written: str, found: str):
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, compression={"a": "zstd", "s": written})  # pyright: ignore[reportArgumentType]
    assert parquet_codec(str(path), "s") == found
    write_groups(tmp_path / "b.parquet", TABLE.schema, [TABLE], codec=found)
    assert parquet_codec(str(tmp_path / "b.parquet"), "s") == found


def test_batches_are_read_one_by_one(tmp_path: Path):
    batches = [TABLE.slice(i, i + 1).combine_chunks().to_batches()[0] for i in (4, 0, 2)]
    path = tmp_path / "a.arrow"
    assert write_batches(path, TABLE.schema, batches) == 3
    assert [read_batch(path, i) for i in range(3)] == batches
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    with pytest.raises(IntegrityError, match="batch 1 cannot be read back"):
        read_batch(path, 1)


def test_nothing_is_left_of_a_file_whose_rows_failed(tmp_path: Path):
    def broken() -> Iterator[pa.Table]:
        yield TABLE
        raise KeyError("no more")

    with pytest.raises(KeyError):
        write_groups(tmp_path / "a", TABLE.schema, broken())
    with pytest.raises(KeyError):
        write_batches(tmp_path / "b", TABLE.schema, (t.to_batches()[0] for t in broken()))
    assert list(tmp_path.iterdir()) == []
