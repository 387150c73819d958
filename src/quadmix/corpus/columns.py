"""What the user's columns mean: which holds the text, the id, the domain, the token count.

In: the schema of the files and the names in the recipe. Out: a `ColumnMap`. A name is a column as it stands;
only when there is none, its dots lead into nested fields.
"""

from typing import Any, cast

import pyarrow as pa

from quadmix.corpus.schema import decode_json, is_json
from quadmix.errors import InputError
from quadmix.recipe.sections import Columns
from quadmix.types import ColumnMap

TEXT_NAMES = ("text", "raw_content", "content", "document")
ID_NAMES = ("id", "doc_id", "uid", "uuid")


def detect_columns(schema: pa.Schema, section: Columns) -> ColumnMap:
    """Return the roles of the columns: names in the recipe win, text and id are otherwise detected.

    InputError names a column that is missing, with the columns there are.
    """
    for role in ("text", "id", "tokens"):
        name = getattr(section, role)
        if name is not None and not has_column(schema, name):
            raise InputError(
                f"corpus.columns.{role} is {name!r}, but the files have {_present(schema)}; name one of these"
            )
    text = section.text or next((n for n in TEXT_NAMES if n in schema.names), None)
    if text is None:
        raise InputError(
            f"no text column found: looked for {', '.join(TEXT_NAMES)}, the files have {_present(schema)}; "
            "name it in corpus.columns.text"
        )
    identity = section.id or next((n for n in ID_NAMES if n in schema.names and n != text), None)
    return ColumnMap(text=text, id=identity, tokens=section.tokens)


def _present(schema: pa.Schema) -> str:
    names = ", ".join(map(repr, schema.names[:40])) or "no columns"
    return names + (f" and {len(schema) - 40} more" if len(schema) > 40 else "")


def has_column(schema: pa.Schema, name: str) -> bool:
    """Is there a column `name`, or nested fields along its dots? (JSON text may hold any.)"""
    if name in schema.names:
        return True
    root, *steps = name.split(".")
    if root not in schema.names:
        return False
    if is_json(schema.field(root)):
        return True
    kind = schema.field(root).type
    for step in steps:
        if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
            return False
        kind = kind.field(step).type
    return bool(steps)


def root_of(names: list[str], name: str) -> str:
    """Return the top-level column that holds `name`."""
    return name if name in names else name.split(".")[0]


def lookup(row: dict[str, Any], name: str) -> Any:
    """Return the value of a column, dotted for nested fields; None where it is missing."""
    if name in row:
        return row[name]
    value: Any = row
    for step in name.split("."):
        if not isinstance(value, dict):
            return None
        value = cast(dict[str, Any], value).get(step)
    return value


def column_values(rows: pa.RecordBatch, name: str) -> list[Any]:
    """Return the values of one column of a batch, dotted for nested fields, JSON text decoded."""
    root = root_of(rows.schema.names, name)
    if root not in rows.schema.names:
        raise InputError(f"no column {name!r}; the files have {_present(rows.schema)}")
    values = rows.column(root).to_pylist()
    if is_json(rows.schema.field(root)):
        values = [decode_json(v) for v in values]
    return values if root == name else [lookup({root: v}, name) for v in values]
