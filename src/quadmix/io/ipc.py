"""Arrow IPC files (.arrow, .feather, .ipc), in the file layout (with a footer) or the stream layout.

In: a path, a range of record batches. Out: rows in batches. Local files are memory-mapped, so that a large
record batch costs address space and not memory; a compressed one is held whole. The stream layout has no
index and is one split. A stream that stops without its end marker is cut: pyarrow itself takes that for the
end and would return the rows before it.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from quadmix.errors import InputError
from quadmix.io.fs import open_input
from quadmix.io.pieces import ArrowBatch, check_names, corrupt, reading
from quadmix.types import Split

_FILE_MAGIC = b"ARROW1"
_FEATHER_1 = b"FEA1"
_VIEWS = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}


def batch_count(path: str) -> int | None:
    """Return the number of record batches of the file layout; None for a stream, which only has a start."""
    with _open(path) as source:
        if not _has_footer(path, source):
            _check(path, _stream(path, source, None).schema)
            return None
        file = _file(path, source, None)
        _check(path, file.schema)
        return file.num_record_batches


def arrow_schema(path: str) -> pa.Schema:
    """Return the columns of a file."""
    with _open(path) as source:
        reader = _file if _has_footer(path, source) else _stream
        return reader(path, source, None).schema


def read_batches(split: Split, *, columns: Sequence[str] | None, batch_rows: int) -> Iterator[ArrowBatch]:
    """Yield the rows of a split, `batch_rows` at a time; `columns` limits which columns are read."""
    first = 0
    with _open(split.path) as source:
        footed = _has_footer(split.path, source)
        schema = (_file if footed else _stream)(split.path, source, None).schema
        _check(split.path, schema)
        wanted = schema.names if columns is None else [c for c in columns if c in schema.names]
        options = pa.ipc.IpcReadOptions(included_fields=[schema.names.index(n) for n in sorted(set(wanted))])
        source.seek(0)
        batches = _from_file if footed else _from_stream
        for batch in batches(split, source, None if columns is None else options):
            table = batch.select(wanted)
            for start in range(0, table.num_rows, batch_rows):
                piece = table.slice(start, batch_rows)
                yield ArrowBatch(first=first, table=_without_views(piece))
                first += piece.num_rows


@contextmanager
def _open(path: str) -> Generator[pa.NativeFile]:
    with reading(path):
        if "://" in path:
            with open_input(path) as file, pa.PythonFile(file, "r") as source:
                yield source
        else:
            open_input(path).close()  # a file that cannot be opened is not a corrupt one
            with pa.memory_map(path) as source:
                yield source


def _has_footer(path: str, source: pa.NativeFile) -> bool:
    start = source.read(len(_FILE_MAGIC))
    source.seek(0)
    if start.startswith(_FEATHER_1):
        raise InputError(
            f"file {path!r} is in the Feather V1 format; expected Arrow IPC (Feather V2). "
            "Write it again with pyarrow.feather.write_feather, or as Parquet"
        )
    return start == _FILE_MAGIC


def _file(path: str, source: pa.NativeFile, options: Any) -> Any:
    return pa.ipc.open_file(source, options=options)


def _stream(path: str, source: pa.NativeFile, options: Any) -> Any:
    return pa.ipc.open_stream(source, options=options)


def _from_file(split: Split, source: pa.NativeFile, options: Any) -> Iterator[pa.RecordBatch]:
    file = _file(split.path, source, options)
    for index in range(split.start, file.num_record_batches if split.stop is None else split.stop):
        yield file.get_batch(index)


def _from_stream(split: Split, source: pa.NativeFile, options: Any) -> Iterator[pa.RecordBatch]:
    stream = _stream(split.path, source, options)
    while True:
        before = source.tell()
        try:
            batch = stream.read_next_batch()
        except StopIteration:
            break
        yield batch
    if not _has_end(source, before):
        raise corrupt(split.path, "the stream stops without its end marker")
    if source.read(1):
        raise corrupt(split.path, "there are bytes behind the end of the stream")


def _has_end(source: pa.NativeFile, position: int) -> bool:
    """Is there an end marker behind the messages (dictionaries without rows) that begin at `position`?

    Messages end at a marker and at the end of the file alike, but only a marker has bytes.
    """
    source.seek(position)
    messages = pa.ipc.MessageReader.open_stream(source)
    while True:
        before = source.tell()
        try:
            messages.read_next_message()
        except StopIteration:
            return source.tell() > before


def _check(path: str, schema: pa.Schema) -> None:
    check_names(path, schema.names)
    for field in schema:
        if (kind := _unreadable(field.type, top=True)) is not None:
            raise InputError(
                f"file {path!r}: column {field.name!r} has the type {kind}, which is not read; "
                "cast it to a plain type, or write the file again without the column"
            )


def _unreadable(kind: Any, *, top: bool) -> Any:
    """Return the type inside a column's type that pyarrow cannot filter or write; None if all is well."""
    if pa.types.is_union(kind) or pa.types.is_run_end_encoded(kind) or pa.types.is_interval(kind):
        return kind
    if str(kind) in _VIEWS:
        return None if top else kind
    found = (_unreadable(kind.field(i).type, top=False) for i in range(kind.num_fields))
    return next((f for f in found if f is not None), None)


def _without_views(table: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with view columns copied into plain ones, which pyarrow can filter."""
    for i, field in enumerate(table.schema):
        plain = _VIEWS.get(str(field.type))
        if plain is not None:
            table = table.set_column(i, field.name, table.column(i).cast(plain))
    return table
