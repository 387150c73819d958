"""Readers: every line is read once, bad rows cost themselves alone, cut streams fail by name."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from quadmix.errors import InputError
from quadmix.io.pieces import BadRow
from quadmix.io.readers import plan_splits, read_arrow, read_rows
from quadmix.types import Split

LIMIT = 1_000_000


def pack(suffix: str, data: bytes) -> bytes:
    if suffix.endswith(".gz"):
        return gzip.compress(data, mtime=0)
    return zstandard.compress(data) if suffix.endswith(".zst") else data


def open_output(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.GzipFile(path, "wb", compresslevel=1)
    return zstandard.open(path, "wb") if path.suffix == ".zst" else path.open("wb")


def read_file(path: Path, split_bytes: int = 10**9, limit: int = LIMIT) -> tuple[list[Any], list[BadRow]]:
    bad: list[BadRow] = []
    values: list[Any] = []
    for split in plan_splits([str(path)], split_bytes):
        for batch in read_rows(split, max_row_bytes=limit, bad=bad.append, batch_rows=3):
            values += batch.values
    return values, bad


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst", "json.gz", "ndjson"])
def test_all_compressions_give_the_same_rows(tmp_path: Path, suffix: str) -> None:
    rows = [{"id": i, "text": f"t{i}"} for i in range(10)]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(pack(suffix, b"".join(json.dumps(r).encode() + b"\n" for r in rows)))
    assert read_file(path) == (rows, [])


@given(
    lines=st.lists(st.text(alphabet="ab\u00e9\u2028\x85\r ", max_size=30), max_size=30),
    end=st.sampled_from([b"\n", b"\r\n"]),
    final=st.booleans(),
    size=st.integers(1, 60),
)
@settings(max_examples=150, deadline=None)
def test_byte_ranges_partition_the_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: bytes, final: bool, size: int
) -> None:
    """Whatever the split size, each line is read once, in order; only b"\\n" ends a line."""
    rows = [{"t": line} for line in lines]
    data = end.join(json.dumps(r, ensure_ascii=False).encode() for r in rows) + (end if final else b"")
    path = tmp_path_factory.mktemp("ranges") / "a.jsonl"
    path.write_bytes(data)
    assert read_file(path, split_bytes=size) == (rows, [])


def test_offsets_point_at_the_line_in_every_split(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"n": i}).encode() for i in range(40)]
    path.write_bytes(b"\n\n".join(lines))
    data = path.read_bytes()
    for split in plan_splits([str(path)], 50):
        for batch in read_rows(split, max_row_bytes=LIMIT, bad=lambda b: pytest.fail(str(b))):
            assert batch.rows == list(range(len(batch.rows)))
            for offset, line in zip(batch.offsets, batch.lines, strict=True):
                assert data[offset:].startswith(line)
                assert split.start <= offset < (split.stop or 0)


def test_bom_crlf_blank_lines_and_missing_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\r\n\r\n  \n\n{"a":2}\r\n{"a":3}')
    assert read_file(path) == ([{"a": 1}, {"a": 2}, {"a": 3}], [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "caf\xe9"}', "invalid_utf8"),
        (b'{"text": "\\ud83d"}', "invalid_utf8"),
        (b'{"text": "\\udc00\\ud800"}', "invalid_utf8"),
        (b'{"text": "x"', "invalid_json"),
        (b'{"x": NaN}', "invalid_json"),
        (b"\x00\x00\x00", "invalid_json"),
        (b"[" * 5000 + b"]" * 5000, "invalid_json"),
        (b"[1, 2]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
    ],
)
def test_a_bad_row_costs_itself_alone(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n' + line + b'\n{"a":2}\n')
    values, bad = read_file(path)
    assert values == [{"a": 1}, {"a": 2}]
    assert bad == [BadRow(path=str(path), split=0, row=1, offset=8, reason=reason, data=line[:2000])]


def test_integers_beyond_64_bits_stay_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":123456789012345678901234,"b":[{"c":18446744073709551616}],"d":1.5}\n')
    assert read_file(path)[0] == [{"a": 123456789012345678901234, "b": [{"c": 2**64}], "d": 1.5}]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_a_huge_row_is_skipped_in_bounded_memory(tmp_path: Path, suffix: str) -> None:
    """200 MB in one line cost far less than 200 MB of memory, and only that row."""
    path = tmp_path / f"a.{suffix}"
    head, tail = b'{"a":1}\n{"text":"', b'"}\n{"a":2}\n'
    with open_output(path) as out:
        out.write(head)
        for _ in range(200):
            out.write(b"x" * 1_000_000)
        out.write(tail)
    tracemalloc.start()
    values, bad = read_file(path, limit=5_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values == [{"a": 1}, {"a": 2}]
    assert [(b.row, b.offset, b.reason, len(b.data)) for b in bad] == [(1, 8, "row_too_long", 2000)]
    assert peak < 60_000_000


def test_the_length_limit_is_exact_whatever_the_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = b'{"a":"' + b"x" * 92 + b'"}'
    path.write_bytes(line + b"\n")
    assert len(read_file(path, limit=len(line))[0]) == 1
    assert [b.reason for b in read_file(path, limit=len(line) - 1)[1]] == ["row_too_long"]


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
@pytest.mark.parametrize("cut", [1, 5, 300, 2000])
def test_a_cut_stream_fails_and_names_the_file(tmp_path: Path, suffix: str, cut: int) -> None:
    body = pack(suffix, b"".join(b'{"n":%d,"h":%d}\n' % (i, hash((i, 7))) for i in range(5000)))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(body[:-cut])
    with pytest.raises(InputError, match=rf"a\.{suffix}' is truncated or corrupt .*fetch it again"):
        read_file(path)


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
def test_several_frames_are_one_stream_and_garbage_fails(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    frames = [pack(suffix, b'{"n":%d}\n' % i) for i in range(500)]
    path.write_bytes(b"".join(frames))
    assert read_file(path)[0] == [{"n": i} for i in range(500)]
    path.write_bytes(b"this is not compressed\n" * 10)
    with pytest.raises(InputError, match="truncated or corrupt"):
        read_file(path)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_an_empty_file_has_no_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"")
    assert read_file(path) == ([], [])


def test_parquet_row_groups_partition_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": list(range(1000)), "a.b": ["x"] * 1000}), path, row_group_size=100)
    splits = plan_splits([str(path)], 1)
    assert [(s.start, s.stop) for s in splits] == [(i, i + 1) for i in range(10)]
    assert [(s.start, s.stop) for s in plan_splits([str(path)], 10**9)] == [(0, 10)]
    rows = [r for s in splits for b in read_arrow(s, columns=["a.b", "n", "no"]) for r in b.table.to_pylist()]
    assert rows == [{"a.b": "x", "n": i} for i in range(1000)]


def test_a_cut_or_false_parquet_file_fails_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": list(range(1000))}), path)
    whole = path.read_bytes()
    for data in (whole[:-20], b"", b"no parquet"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.parquet' is truncated or corrupt"):
            plan_splits([str(path)], 1)
    path.write_bytes(whole[:50] + bytes(200) + whole[250:])
    with pytest.raises(InputError, match=r"a\.parquet' is truncated or corrupt"):
        list(read_arrow(Split(index=0, path=str(path), format="parquet", start=0, stop=None)))


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"]), path)
    with pytest.raises(InputError, match="two columns named 'n'"):
        plan_splits([str(path)], 1)
