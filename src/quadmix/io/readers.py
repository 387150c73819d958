"""The user's files in pieces: JSON lines (plain, .gz, .zst) by byte range, Parquet by row groups; Arrow and
WARC by the modules of their names.

In: paths. Out: `Split`s, and per split batches of parsed rows with their ordinal in the split. Lines end at
b"\\n" only; a blank line is no row. A row that cannot be parsed goes to `bad` and costs itself alone, while a
cut or corrupt stream fails its file (promise P5). Memory is bounded by the batch, not by the file or by
its longest line.
"""

import gzip
import itertools
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from quadmix.errors import InputError
from quadmix.io import ipc
from quadmix.io.formats import file_format
from quadmix.io.fs import file_size, open_input
from quadmix.io.pieces import (
    BATCH_BYTES,
    BLOCK,
    MAX_BAD_BYTES,
    ArrowBatch,
    Bad,
    BadRow,
    RowBatch,
    check_names,
    reading,
)
from quadmix.io.warc import read_warc
from quadmix.types import Split
from quadmix.urls import is_remote

_ZST_FEED = 512  # compressed bytes per step: zstd reaches 30,000:1, and one step's output is held whole
_BOM = b"\xef\xbb\xbf"
_NOT_LINES = {  # how files begin that are no JSON lines in UTF-8, whatever they are called
    b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip", b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}  # fmt: skip


def plan_splits(files: Sequence[str], split_bytes: int) -> tuple[Split, ...]:
    """Return the splits of the files in order: jsonl by bytes, Parquet by row groups, Arrow files by record
    batches, the rest whole."""
    splits: list[Split] = []
    for path in files:
        kind = file_format(path)
        if kind == "parquet":
            ranges = _group_ranges(path, split_bytes)
        elif kind == "jsonl":
            ranges = _byte_ranges(file_size(path), split_bytes)
        elif kind == "arrow":
            ranges = _batch_ranges(path, split_bytes)
        else:
            ranges = [(0, None)]
        for start, stop in ranges:
            splits.append(Split(index=len(splits), path=path, format=kind, start=start, stop=stop))
    return tuple(splits)


def _byte_ranges(size: int, split_bytes: int) -> list[tuple[int, int | None]]:
    pieces = max(1, round(size / split_bytes))
    edges = [size * i // pieces for i in range(pieces + 1)]
    return [(a, b) for a, b in itertools.pairwise(edges) if b > a] or [(0, 0)]


def _group_ranges(path: str, split_bytes: int) -> list[tuple[int, int | None]]:
    with open_parquet(path) as file:
        sizes = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
    ranges: list[tuple[int, int | None]] = []
    start = held = 0
    for group, size in enumerate(sizes):
        held += size
        if held >= split_bytes or group == len(sizes) - 1:
            ranges.append((start, group + 1))
            start, held = group + 1, 0
    return ranges or [(0, 0)]


def _batch_ranges(path: str, split_bytes: int) -> list[tuple[int, int | None]]:
    count = ipc.batch_count(path)
    if count is None:
        return [(0, None)]
    if not count:
        return [(0, 0)]
    pieces = min(count, max(1, round(file_size(path) / split_bytes)))
    return list(itertools.pairwise(count * i // pieces for i in range(pieces + 1)))


def read_rows(split: Split, *, max_row_bytes: int, bad: Bad, batch_rows: int = 1000) -> Iterator[RowBatch]:
    """Yield the objects of a split of JSON lines or WARC; what is none goes to `bad` with a reason.

    Reasons: invalid_json, invalid_utf8 (bytes, or escapes that are no Unicode), not_an_object, row_too_long;
    for WARC see `read_warc`.
    """
    if split.format in ("warc", "warc.gz"):
        yield from read_warc(split, max_row_bytes=max_row_bytes, bad=bad, batch_rows=batch_rows)
        return
    batch, held, row = RowBatch(), 0, 0
    for offset, line, size in _split_lines(split, max_row_bytes):
        if not (body := line.removeprefix(_BOM)).strip() and size <= max_row_bytes:
            continue
        value = _parse(body) if size <= max_row_bytes else "row_too_long"
        if isinstance(value, str):
            bad(BadRow(path=split.path, split=split.index, row=row, offset=offset, reason=value,
                       data=line[:MAX_BAD_BYTES]))  # fmt: skip
        else:
            batch.add(row, offset, body, value)
            held += size
        row += 1
        if len(batch.rows) >= batch_rows or held >= BATCH_BYTES:
            yield batch
            batch, held = RowBatch(), 0
    if batch.rows:
        yield batch


def _parse(line: bytes) -> dict[str, Any] | str:
    """Return the row, or the reason why it is none."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _why_not_json(line)
    if not isinstance(value, dict):
        return "not_an_object"
    row = cast(dict[str, Any], value)
    if not any(map(_huge, row.values())):
        return row
    try:  # orjson makes a float of an integer beyond 64 bits; the slow parser keeps it exact
        return cast(dict[str, Any], json.loads(line))
    except RecursionError:
        return "invalid_json"


def _huge(value: Any) -> bool:
    if type(value) is float:
        return abs(value) >= 2**63
    if type(value) is dict:
        return any(map(_huge, cast(dict[str, Any], value).values()))
    return type(value) is list and any(map(_huge, cast(list[Any], value)))


def _why_not_json(line: bytes) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "invalid_utf8"
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # an escaped lone surrogate: JSON by the letter, but not text
        return "invalid_utf8"
    except (ValueError, RecursionError):
        return "invalid_json"
    return "invalid_json"


def _split_lines(split: Split, limit: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield (offset, line, size) of the lines that begin inside the split."""
    with reading(split.path), open_input(split.path) as file:
        if split.format == "jsonl" and split.start == 0:
            _check_lines(split.path, file.read(6))
            file.seek(0)
        if split.format != "jsonl" or split.start == 0:
            lines = _lines(_blocks(file, split), 0, limit)
        else:
            file.seek(split.start - 1)  # up to the first newline the bytes belong to the split before
            lines = _lines(_blocks(file, split), split.start - 1, limit)
            next(lines, None)
        for offset, line, size in lines:
            if split.stop is not None and offset >= split.stop:
                return
            yield offset, line, size


def _check_lines(path: str, head: bytes) -> None:
    """Refuse another kind of file under this suffix: as a few bad rows it would be tolerated, and lost."""
    for start, what in _NOT_LINES.items():
        if head.startswith(start):
            raise InputError(
                f"file {path!r} is {what} by its first bytes, its suffix says JSON lines in UTF-8; rename or "
                "convert it"
            )


def _lines(blocks: Iterator[bytes], offset: int, limit: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield (offset, line without its newline, size); of a line above `limit` only the head is kept."""
    held: list[bytes] = []
    size = 0

    def take(piece: bytes) -> None:
        nonlocal held, size
        if size <= limit:
            held.append(piece)
            if size + len(piece) > limit:
                held = [b"".join(held)[:MAX_BAD_BYTES]]
        size += len(piece)

    for block in blocks:
        *ends, rest = block.split(b"\n")
        for piece in ends:
            take(piece)
            yield offset, b"".join(held), size
            offset, held, size = offset + size + 1, [], 0
        take(rest)
    if size:
        yield offset, b"".join(held), size


def _blocks(file: BinaryIO, split: Split) -> Iterator[bytes]:
    if split.format == "jsonl.zst":
        yield from _zst_blocks(file)
        return
    source = gzip.GzipFile(fileobj=file) if split.format == "jsonl.gz" else file
    while block := source.read(BLOCK):
        yield block


def _zst_blocks(file: BinaryIO) -> Iterator[bytes]:
    """Decompress all frames; a frame that does not reach its end is an EOFError.

    zstandard's stream reader ends silently on a cut file, hence the frame objects by hand.
    """
    frame: Any = None
    while chunk := file.read(BLOCK):
        view, position = memoryview(chunk), 0
        while position < len(view):
            frame = frame or zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            piece = view[position : position + _ZST_FEED]
            position += len(piece)
            if out := frame.decompress(piece):
                yield out
            if frame.eof:
                position -= len(frame.unused_data)
                frame = None
    if frame is not None:
        raise EOFError("the last zstd frame ends early")


@contextmanager
def open_parquet(path: str) -> Generator[pq.ParquetFile]:
    """Open a Parquet file; InputError names a file that is none or has two columns of one name."""
    with reading(path), open_input(path) as source:
        # Arrow reads a local file by itself, without the interpreter, for which threads would wait
        native = source if is_remote(path) else pa.OSFile(path)
        with native, pq.ParquetFile(native) as file:
            check_names(path, file.schema_arrow.names)
            yield file


def arrow_schema(split: Split) -> pa.Schema:
    """Return the columns of a Parquet or Arrow file."""
    if split.format == "arrow":
        return ipc.arrow_schema(split.path)
    with open_parquet(split.path) as file:
        return file.schema_arrow


def read_arrow(
    split: Split, *, columns: Sequence[str] | None = None, batch_rows: int = 1000
) -> Iterator[ArrowBatch]:
    """Yield the rows of a Parquet or Arrow split; `columns` limits which top-level columns are read."""
    if split.format == "arrow":
        yield from ipc.read_batches(split, columns=columns, batch_rows=batch_rows)
        return
    first = 0
    with open_parquet(split.path) as file:
        wanted = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
        groups = list(range(split.start, file.num_row_groups if split.stop is None else split.stop))
        if not groups:
            return
        for table in file.iter_batches(batch_rows, row_groups=groups, columns=wanted, use_threads=False):
            if wanted is not None:
                table = table.select(wanted)  # a dotted name may also have matched a nested field
            yield ArrowBatch(first=first, table=table)
            first += table.num_rows
