"""One schema for all files: what each split held, united column by column, without changing a value.

In: batches of rows. Out: an Arrow schema. Integers and floats become floats where that is exact; columns of
conflicting types become strings that hold JSON text, marked in the field's metadata and named in a warning.
Uniting goes by split order, so the result does not depend on the workers.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
import pyarrow as pa
import pyarrow.compute as pc

_JSON = {b"quadmix": b"json"}
_EXACT = 2**53  # larger integers do not fit a float
_MAX_LEAVES = 512  # objects used as maps have a "field" per key; beyond this they stay JSON text
_MAX_DEPTH = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a column held so far. big: integers beyond 2^53. conflict: why one Arrow type cannot hold it."""

    type: pa.DataType
    big: bool = False
    conflict: str = ""


Columns = dict[str, Seen]


def is_json(field: pa.Field) -> bool:
    """Does the column hold JSON text made from values of conflicting types?"""
    return bool(field.metadata) and field.metadata.get(b"quadmix") == b"json"


def observe_rows(columns: Columns, rows: list[dict[str, Any]]) -> None:
    """Unite `columns` with what JSON rows hold."""
    for name in dict.fromkeys(key for row in rows for key in row):
        _add(columns, name, _infer([row.get(name) for row in rows]))


def observe_table(columns: Columns, table: pa.RecordBatch) -> None:
    """Unite `columns` with what Arrow rows hold."""
    for field, array in zip(table.schema, table.columns, strict=True):
        _add(columns, field.name, Seen(type=_plain(field.type), big=_has_big(array)))


def observe_all(columns: Columns, other: Mapping[str, Seen]) -> None:
    """Unite `columns` with those of another split."""
    for name, seen in other.items():
        _add(columns, name, seen)


def _add(columns: Columns, name: str, seen: Seen) -> None:
    columns[name] = unite(columns[name], seen) if name in columns else seen


def _infer(values: list[Any]) -> Seen:
    try:
        array = pa.array(values)
    except (pa.ArrowInvalid, TypeError, OverflowError) as error:
        large = isinstance(error, OverflowError)
        return Seen(type=pa.null(), conflict="integers beyond 64 bits" if large else _kinds(values))
    if _holds_floats(array.type) and any(map(_has_bool, values)):
        return Seen(type=pa.null(), conflict="numbers and booleans")  # Arrow would read true as 1.0
    if array.type.num_fields and _leaves(array.type) > _MAX_LEAVES:
        return Seen(type=pa.null(), conflict=f"objects with more than {_MAX_LEAVES} different keys")
    return Seen(type=array.type, big=_has_big(array))


def _kinds(values: list[Any]) -> str:
    names = sorted({type(v).__name__ for v in values if v is not None})
    return ", ".join(names) if len(names) > 1 else f"{names[0]} of differing content"


def _has_bool(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_bool, cast(dict[str, Any], value).values()))
    return (
        any(map(_has_bool, cast(list[Any], value)))
        if isinstance(value, list)
        else value is True or value is False
    )


def _holds_floats(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or any(_holds_floats(f.type) for f in _children(kind))


def _children(kind: pa.DataType) -> list[pa.Field]:
    return [kind.field(i) for i in range(kind.num_fields)]


def _leaves(kind: pa.DataType) -> int:
    return sum(_leaves(f.type) for f in _children(kind)) if kind.num_fields else 1


def _depth(kind: pa.DataType) -> int:
    return 1 + max((_depth(f.type) for f in _children(kind)), default=0)


def _has_big(array: Any) -> bool:
    kind = array.type
    if pa.types.is_integer(kind):
        span: dict[str, Any] = pc.call_function("min_max", [array]).as_py()
        return span["min"] is not None and max(-span["min"], span["max"]) > _EXACT
    if pa.types.is_struct(kind):
        return any(_has_big(array.field(i)) for i in range(kind.num_fields))
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _has_big(array.flatten())


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type without encodings that differ between batches (dictionaries, views, extensions)."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _plain(f.type)) for f in _children(kind)])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        item = pa.field("item", _plain(kind.value_type))
        return pa.list_(item) if pa.types.is_list(kind) else pa.large_list(item)
    if pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(kind) else kind


def unite(a: Seen, b: Seen) -> Seen:
    """Return the column that holds both; a conflict where no type does."""
    big = a.big or b.big
    if a.conflict or b.conflict:
        return Seen(type=pa.null(), big=big, conflict=a.conflict or b.conflict)
    merged = _merge(a.type, b.type, big)
    if merged is None:
        return Seen(type=pa.null(), big=big, conflict=f"{_short(a.type)}, {_short(b.type)}")
    if merged.num_fields and _leaves(merged) > _MAX_LEAVES:
        return Seen(type=pa.null(), big=big, conflict=f"objects with more than {_MAX_LEAVES} different keys")
    return Seen(type=merged, big=big)


def _short(kind: pa.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 60 else text[:57] + "..."


def _merge(a: pa.DataType, b: pa.DataType, big: bool) -> pa.DataType | None:
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        return _merge_structs(a, b, big)
    if _is_list(a) and _is_list(b):
        item = _merge(a.value_type, b.value_type, big)
        large = pa.types.is_large_list(a) or pa.types.is_large_list(b)
        return None if item is None else pa.large_list(item) if large else pa.list_(item)
    return _merge_scalars(a, b, big)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _merge_structs(a: pa.DataType, b: pa.DataType, big: bool) -> pa.DataType | None:
    fields = {f.name: f.type for f in _children(a)}
    for field in _children(b):
        merged = _merge(fields.get(field.name, pa.null()), field.type, big)
        if merged is None:
            return None
        fields[field.name] = merged
    return pa.struct(list(fields.items()))


def _merge_scalars(a: pa.DataType, b: pa.DataType, big: bool) -> pa.DataType | None:
    ints = pa.types.is_integer(a) + pa.types.is_integer(b)
    floats = pa.types.is_floating(a) + pa.types.is_floating(b)
    if ints == 2:
        unsigned = pa.types.is_unsigned_integer(a), pa.types.is_unsigned_integer(b)
        if all(unsigned):
            return pa.uint64()
        return None if pa.uint64() in (a, b) else pa.int64()
    if ints + floats == 2:
        return None if ints and big else pa.float64()
    if {str(a), str(b)} == {"string", "large_string"}:
        return pa.large_string()
    return pa.large_binary() if {str(a), str(b)} == {"binary", "large_binary"} else None


def final_schema(columns: Mapping[str, Seen]) -> tuple[pa.Schema, tuple[str, ...]]:
    """Return the schema of all rows and a warning for each column kept as JSON text."""
    fields: list[pa.Field] = []
    warnings: list[str] = []
    for name, seen in columns.items():
        conflict = seen.conflict or _unstorable(seen.type)
        if conflict:
            warnings.append(f"column {name!r} holds conflicting types ({conflict}); it is kept as JSON text")
            fields.append(pa.field(name, pa.string(), metadata=_JSON))
        else:
            fields.append(pa.field(name, _without_nulls(seen.type)))
    return pa.schema(fields), tuple(warnings)


def _unstorable(kind: pa.DataType) -> str:
    if _depth(kind) > _MAX_DEPTH:
        return f"nested deeper than {_MAX_DEPTH}"
    empty = pa.types.is_struct(kind) and not kind.num_fields  # Parquet has no object without fields
    return (
        "empty objects" if empty else next(filter(None, (_unstorable(f.type) for f in _children(kind))), "")
    )


def _without_nulls(kind: pa.DataType) -> pa.DataType:
    """Return the type with string in the place of columns that held nothing but null."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([(f.name, _without_nulls(f.type)) for f in _children(kind)])
    if pa.types.is_list(kind):
        return pa.list_(_without_nulls(kind.value_type))
    return pa.large_list(_without_nulls(kind.value_type)) if pa.types.is_large_list(kind) else kind


def rows_to_arrow(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Return JSON rows as a batch of the schema; absent keys are null."""
    arrays = [_column([row.get(f.name) for row in rows], f) for f in schema]
    return _batch(arrays, schema, len(rows))


def conform(table: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return Arrow rows as a batch of the schema; absent columns are null."""
    names = table.schema.names
    arrays = [
        _conform_column(table.column(f.name), f) if f.name in names else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return _batch(arrays, schema, table.num_rows)


def _conform_column(array: Any, field: pa.Field) -> Any:
    if is_json(field):
        return _column(array.to_pylist(), field)
    if array.type == field.type:
        return array
    try:
        return array.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return pa.array(array.to_pylist(), type=field.type)


def _column(values: list[Any], field: pa.Field) -> Any:
    if is_json(field):
        values = [None if v is None else _encode_json(v) for v in values]
    return pa.array(values, type=field.type)


def _batch(arrays: list[Any], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    if arrays:
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, type=pa.struct([])))  # keeps its length


def _encode_json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # integers beyond 64 bits, and Parquet's decimals and bytes
        return json.dumps(value, ensure_ascii=False, default=str)


def decode_json(text: str | None) -> Any:
    """Return the value that a JSON text column holds; integers of any size stay exact."""
    return None if text is None else json.loads(text)


def pack(columns: Mapping[str, Seen]) -> str:
    """Return what a split held as text, for the file of its scan."""
    fields = [
        pa.field(n, s.type, metadata={b"big": b"1" if s.big else b"", b"conflict": s.conflict.encode()})
        for n, s in columns.items()
    ]
    return pack_schema(pa.schema(fields))


def unpack(text: str) -> Columns:
    """Read back `pack`."""
    return {
        f.name: Seen(type=f.type, big=bool(f.metadata[b"big"]), conflict=f.metadata[b"conflict"].decode())
        for f in unpack_schema(text)
    }


def pack_schema(schema: pa.Schema) -> str:
    """Return a schema as base64 of its IPC message."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def unpack_schema(text: str) -> pa.Schema:
    """Read back `pack_schema`."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
