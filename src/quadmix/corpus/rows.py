"""Which rows of a split are documents: the one rule that the scan and every later reading share.

In: a split. Out: batches of sound rows with text and id; every other row goes to `bad` with its reason.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import pyarrow as pa

from quadmix.corpus.columns import lookup, root_of
from quadmix.io.formats import is_columnar
from quadmix.io.pieces import MAX_BAD_BYTES, ArrowBatch, Bad, BadRow, RowBatch, corrupt
from quadmix.io.readers import read_arrow, read_rows
from quadmix.types import ColumnMap, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundBatch:
    """Documents of one batch. rows: ordinals in the split. doc_id: empty where files have no ids.
    content: the rows as JSON objects or as an Arrow batch."""

    rows: list[int]
    doc_id: list[str]
    text: list[str]
    content: list[dict[str, Any]] | pa.RecordBatch


def sound_rows(
    split: Split,
    columns: ColumnMap,
    *,
    max_row_bytes: int,
    bad: Bad,
    only: Sequence[str] | None = None,
    batch_rows: int = 1000,
) -> Iterator[SoundBatch]:
    """Yield the documents of a split; `only` limits the columns that are read from Parquet and Arrow.

    InputError for a cut or corrupt file, and for a WARC file that holds HTML but no text.
    """
    if is_columnar(split.format):
        for batch in read_arrow(split, columns=only, batch_rows=batch_rows):
            yield _sound_arrow(batch, split, columns, max_row_bytes, bad)
    else:
        for batch in read_rows(split, max_row_bytes=max_row_bytes, bad=bad, batch_rows=batch_rows):
            yield _sound_json(batch, split, columns, bad)


def _sound_json(batch: RowBatch, split: Split, columns: ColumnMap, bad: Bad) -> SoundBatch:
    keep: list[int] = []
    texts: list[str] = []
    ids: list[str] = []
    for i, value in enumerate(batch.values):
        text = lookup(value, columns.text)
        fault, identity = _text_fault(text), ""
        if columns.id is not None and not fault:
            identity = _id_text(lookup(value, columns.id), batch.lines[i], columns.id)
            fault = "" if identity else "null_id"
        if fault:
            data = batch.lines[i][:MAX_BAD_BYTES]
            bad(BadRow(path=split.path, split=split.index, row=batch.rows[i], offset=batch.offsets[i],
                       reason=fault, data=data))  # fmt: skip
            continue
        keep.append(i)
        texts.append(text)
        ids.append(identity)
    return SoundBatch(
        rows=[batch.rows[i] for i in keep],
        doc_id=ids if columns.id is not None else [],
        text=texts,
        content=[batch.values[i] for i in keep],
    )


def _text_fault(text: Any) -> str:
    if text is None:
        return "missing_text"
    if not isinstance(text, str):
        return "text_not_string"
    return "empty_text" if not text or text.isspace() else ""


def _id_text(value: Any, line: bytes, name: str) -> str:
    """Return an id as text, numbers exactly as the file writes them; "" if it is none."""
    if type(value) is float and line:
        exact: Any = lookup(json.loads(line, parse_float=str, parse_int=str), name)
        return str(exact)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return ""
    return str(value) if value == value else ""  # NaN is no id


def _sound_arrow(batch: ArrowBatch, split: Split, columns: ColumnMap, limit: int, bad: Bad) -> SoundBatch:
    valid = valid_rows(batch.table, split.path)
    table = batch.table if valid is None else batch.table.take(pa.array(valid, pa.int64()))
    places = list(range(batch.table.num_rows)) if valid is None else valid
    texts = _decoded(_values(table, columns.text))
    ids = _values(table, columns.id) if columns.id is not None else []
    faults = {p: "invalid_utf8" for p in set(range(batch.table.num_rows)) - set(places)}
    keep: list[int] = []
    names: list[str] = []
    for i, text in enumerate(texts):
        fault = _arrow_fault(text, limit)
        identity = _id_text(ids[i], b"", "") if ids and not fault else ""
        if fault := fault or ("null_id" if ids and not identity else ""):
            faults[places[i]] = fault
            continue
        keep.append(i)
        names.append(identity)
    for place in sorted(faults):
        bad(BadRow(path=split.path, split=split.index, row=batch.first + place, offset=None,
                   reason=faults[place], data=_raw_text(batch.table, columns.text, place)))  # fmt: skip
    return SoundBatch(
        rows=[batch.first + places[i] for i in keep],
        doc_id=names if columns.id is not None else [],
        text=[cast(str, texts[i]) for i in keep],
        content=table if len(keep) == table.num_rows else table.take(pa.array(keep, pa.int64())),
    )


def _arrow_fault(text: Any, limit: int) -> str:
    if isinstance(text, bytes):
        return "invalid_utf8"
    fault = _text_fault(text)
    # a character has at most four bytes, so most texts need not be encoded to be measured
    if not fault and len(text) * 4 > limit and len(text.encode()) > limit:
        return "row_too_long"
    return fault


def valid_rows(table: pa.RecordBatch, path: str) -> list[int] | None:
    """Return the rows whose strings are all UTF-8, None if all are (neither Parquet nor Arrow files check).

    InputError if anything else is wrong: offsets or codes that point outside their data must not be read.
    """
    if _is_valid(table, path):
        return None
    return [i for i in range(table.num_rows) if _is_valid(table.slice(i, 1), path)]


def _is_valid(table: pa.RecordBatch, path: str) -> bool:
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        if "UTF8" not in str(error):
            raise corrupt(path, error) from error
        return False
    return True


def _values(table: pa.RecordBatch, name: str) -> list[Any]:
    root = root_of(table.schema.names, name)
    if root not in table.schema.names:
        return [None] * table.num_rows
    values = table.column(root).to_pylist()
    return values if root == name else [lookup({root: v}, name) for v in values]


def _decoded(values: list[Any]) -> list[Any]:
    """Return binary text as str; what is not UTF-8 stays bytes."""
    return [_decode(v) if isinstance(v, bytes) else v for v in values]


def _decode(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _raw_text(table: pa.RecordBatch, name: str, row: int) -> bytes:
    """Return the first bytes of a bad row's text."""
    if name not in table.schema.names:
        return b""
    cell = table.column(name).slice(row, 1)
    if pa.types.is_string(cell.type) or pa.types.is_large_string(cell.type):
        cell = cell.cast(pa.binary() if pa.types.is_string(cell.type) else pa.large_binary())
    try:
        cell.validate(full=True)
    except pa.ArrowException:
        return b""
    if pa.types.is_binary(cell.type) or pa.types.is_large_binary(cell.type):
        return (cell[0].as_py() or b"")[:MAX_BAD_BYTES]
    return b"" if cell.type.num_fields else str(cell[0].as_py()).encode("utf-8", "replace")[:MAX_BAD_BYTES]
