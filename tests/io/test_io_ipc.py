"""Arrow IPC: both layouts give the same rows, a cut anywhere fails by name, nothing unsafe is read."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from quadmix.errors import InputError
from quadmix.io.readers import arrow_schema, plan_splits, read_arrow
from quadmix.types import Split


def write(path: Path, table: pa.Table, *, layout: str = "file", rows: int = 10, codec: Any = None) -> Path:
    options = pa.ipc.IpcWriteOptions(compression=codec)
    new = pa.ipc.new_file if layout == "file" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as out, new(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def table(count: int = 35) -> pa.Table:
    return pa.table({
        "id": [f"{i:05d}" for i in range(count)],
        "n": list(range(count)),
        "kind": pa.array([f"k{i % 3}" for i in range(count)]).dictionary_encode(),
    })  # fmt: skip


def whole(path: Path) -> Split:
    return Split(index=0, path=str(path), format="arrow")


def read(path: Path, split_bytes: int = 10**9, **options: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for split in plan_splits([str(path)], split_bytes):
        first = 0
        for batch in read_arrow(split, **options):
            assert batch.first == first
            first += batch.table.num_rows
            rows += batch.table.to_pylist()
    return rows


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("layout", ["file", "stream"])
@pytest.mark.parametrize("name", ["a.arrow", "a.feather", "a.ipc"])
def test_both_layouts_give_the_rows(tmp_path: Path, name: str, layout: str, codec: str | None) -> None:
    path = write(tmp_path / name, table(), layout=layout, codec=codec)
    assert read(path) == table().to_pylist()
    assert arrow_schema(whole(path)) == table().schema


def test_record_batches_partition_a_file_and_a_stream_is_one_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.arrow", table(35), rows=10)
    size = path.stat().st_size
    edges = {n: [(s.start, s.stop) for s in plan_splits([str(path)], n)] for n in (1, size // 2, 10**9)}
    assert edges[1] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert edges[size // 2] == [(0, 2), (2, 4)]
    assert edges[10**9] == [(0, 4)]
    assert all(read(path, split_bytes=n) == table(35).to_pylist() for n in edges)
    path = write(tmp_path / "b.arrow", table(35), layout="stream")
    assert [(s.start, s.stop) for s in plan_splits([str(path)], 1)] == [(0, None)]


@pytest.mark.parametrize("layout", ["file", "stream"])
def test_columns_are_read_alone_and_in_the_order_asked(tmp_path: Path, layout: str) -> None:
    path = write(tmp_path / "a.arrow", table(3), layout=layout)
    rows = read(path, columns=["n", "no such", "id"])
    assert [list(row) for row in rows] == [["n", "id"]] * 3
    assert [row["n"] for row in rows] == [0, 1, 2]


@pytest.mark.parametrize("layout", ["file", "stream"])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11])
def test_batches_have_at_most_the_rows_asked_and_none_is_lost(
    tmp_path: Path, count: int, layout: str
) -> None:
    path = write(tmp_path / "a.arrow", table(count), layout=layout, rows=1000)
    sizes = [b.table.num_rows for s in plan_splits([str(path)], 1) for b in read_arrow(s, batch_rows=5)]
    assert sum(sizes) == count
    assert all(size <= 5 for size in sizes)
    assert read(path, batch_rows=5) == table(count).to_pylist()


@pytest.mark.parametrize("layout", ["file", "stream"])
def test_a_cut_at_any_byte_fails_and_names_the_file(tmp_path: Path, layout: str) -> None:
    """Between two record batches too, where pyarrow sees the regular end of a stream."""
    data = write(tmp_path / "a.arrow", table(25), layout=layout).read_bytes()
    path = tmp_path / "cut.arrow"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match=r"cut\.arrow' is truncated or corrupt"):
            read(path)


def test_bytes_behind_the_end_of_a_stream_are_not_ignored(tmp_path: Path) -> None:
    """Two streams in one file are two datasets; reading the first alone would lose the second."""
    path = write(tmp_path / "a.arrow", table(5), layout="stream")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(InputError, match=r"a\.arrow' is truncated or corrupt \(there are bytes behind"):
        read(path)


@pytest.mark.parametrize("data", [b"no arrow at all", b"PAR1" + bytes(100), b"ARROW1\0\0" + bytes(100)])
def test_a_file_of_another_kind_fails_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.arrow").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.arrow' is truncated or corrupt"):
        read(tmp_path / "a.arrow")


def test_feather_v1_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(60) + b"FEA1")
    with pytest.raises(InputError, match=r"Feather V1 .*write_feather"):
        read(tmp_path / "a.feather")


def test_a_missing_file_is_not_called_corrupt(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.arrow' cannot be read"):
        read(tmp_path / "gone.arrow")


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["x"]).cast(pa.string()).dictionary_encode(),
        pa.array(["x"], pa.string_view()),
        pa.array([b"x"], pa.binary_view()),
        pa.array([["x"]], pa.list_view(pa.string())),
    ],
    ids=lambda a: str(a.type).split("<")[0],
)
def test_encoded_columns_can_be_filtered_after_reading(tmp_path: Path, array: Any) -> None:
    path = write(tmp_path / "a.arrow", pa.table({"x": array}))
    (batch,) = read_arrow(plan_splits([str(path)], 1)[0])
    assert batch.table.take(pa.array([0, 0])).to_pylist() == [{"x": array[0].as_py()}] * 2


@pytest.mark.parametrize(
    "array",
    [
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
        pa.RunEndEncodedArray.from_arrays([1], ["x"]),
        pa.nulls(1, pa.month_day_nano_interval()),
        pa.array([{"a": "x"}], pa.struct([("a", pa.string_view())])),
        pa.array([["x"]], pa.list_(pa.string_view())),
    ],
    ids=lambda a: str(a.type).split("<")[0],
)
def test_a_column_that_could_not_be_written_later_is_refused_at_once(tmp_path: Path, array: Any) -> None:
    path = write(tmp_path / "a.arrow", pa.table({"x": array}))
    with pytest.raises(InputError, match=r"a\.arrow': column 'x' has the type .* cast it"):
        plan_splits([str(path)], 1)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    two = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    with pytest.raises(InputError, match="two columns named 'n'"):
        plan_splits([str(write(tmp_path / "a.arrow", two))], 1)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs the memory figures of Linux")
@pytest.mark.parametrize("layout", ["file", "stream"])
def test_a_large_record_batch_costs_no_memory_of_its_size(tmp_path: Path, layout: str) -> None:
    """One batch of 160 MB is read piece by piece out of the mapped file."""
    big = pa.table({"text": pa.array(["x" * 4000] * 40_000, pa.large_string())})
    path = write(tmp_path / "a.arrow", big, layout=layout, rows=10**6)
    del big
    pa.default_memory_pool().release_unused()
    before, peak, rows = pa.total_allocated_bytes(), 0, 0
    for batch in read_arrow(plan_splits([str(path)], 1)[0]):
        rows += batch.table.num_rows
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert rows == 40_000
    assert peak < 20_000_000
