"""Documents of Parquet and Arrow files without a Python object per row: the rule of `rows.py` by columns.

In: a batch as it stands in the file. Out: its sound rows and their ids, as Arrow arrays. Where text or id
is of a kind for which this is not certain (bytes, dictionaries, nested fields, floats), `is_plain` says no,
and the rows go the way of `rows.py`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from quadmix.corpus.columns import column_values, lookup
from quadmix.corpus.rows import valid_rows
from quadmix.corpus.schema import conform, rows_to_arrow
from quadmix.errors import IntegrityError
from quadmix.io.pieces import BATCH_BYTES, ArrowBatch
from quadmix.types import ColumnMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What makes a row of one file a document. limit: bytes beyond which a text is too long."""

    path: str
    columns: ColumnMap
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrowDocs:
    """Some documents in corpus order. doc_id: (B,) Arrow strings. content: their rows as they were read.

    Columns are brought into the corpus's schema by `take`, so that documents nobody wants cost little.
    rule: not None where rows are taken for documents because the scan found nothing else; those that are
    taken are judged again.
    """

    doc_id: pa.Array
    content: pa.RecordBatch | list[dict[str, Any]]
    schema: pa.Schema
    rule: Rule | None = None

    @property
    def bytes(self) -> int:
        """About how many bytes all rows have, and more than any one of them."""
        return BATCH_BYTES if isinstance(self.content, list) else self.content.nbytes

    def value(self, row: int, name: str) -> Any:
        """Return one cell as it is in the file, `name` dotted for nested fields."""
        if isinstance(self.content, list):
            return lookup(self.content[row], name)
        return column_values(self.content.slice(row, 1), name)[0]

    def take(self, rows: NDArray[np.int64]) -> pa.RecordBatch:
        """Return the user's columns of some documents; `rows` may repeat. IntegrityError if one is none
        now."""
        if not isinstance(self.content, list):
            taken = self.content.take(pa.array(rows))
            if self.rule is not None and sound_places(taken, self.rule) is not None:
                raise IntegrityError(
                    f"{self.rule.path}: a row is no document, the scan found all to be; the file changed "
                    "since, give the run a new name and start again"
                )
            return conform(taken, self.schema)
        unique, place = np.unique(rows, return_inverse=True)
        batch = rows_to_arrow([self.content[i] for i in unique.tolist()], self.schema)
        return batch if len(unique) == len(rows) else batch.take(pa.array(place))


def is_plain(schema: pa.Schema, columns: ColumnMap) -> bool:
    """Are text and id top-level columns of strings (ids: or whole numbers)?"""
    if columns.text not in schema.names or not _is_text(schema.field(columns.text).type):
        return False
    if columns.id is None:
        return True
    if columns.id not in schema.names:
        return False
    kind = schema.field(columns.id).type
    return _is_text(kind) or pa.types.is_integer(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def sound_arrow(batch: ArrowBatch, rule: Rule) -> tuple[pa.RecordBatch, NDArray[np.int64]]:
    """Return the sound rows of a batch with plain columns, and their ordinals in the split."""
    places = sound_places(batch.table, rule)
    if places is None:
        return batch.table, batch.first + np.arange(batch.table.num_rows, dtype=np.int64)
    return batch.table.take(pa.array(places)), batch.first + places


def sound_places(table: pa.RecordBatch, rule: Rule) -> NDArray[np.int64] | None:
    """Return which rows with plain columns are documents, None if all are."""
    valid = valid_rows(table, rule.path)
    places = None if valid is None else np.array(valid, dtype=np.int64)
    if places is not None:
        table = table.take(pa.array(places))
    text = table.column(rule.columns.text)
    size = _filled(pc.call_function("binary_length", [text]), 0)
    sound = (size > 0) & (size <= rule.limit) & ~_filled(pc.call_function("utf8_is_space", [text]), True)
    if rule.columns.id is not None:
        sound &= _filled(pc.call_function("binary_length", [row_ids(table, rule.columns.id)]), 0) > 0
    if sound.all():
        return places
    kept = np.flatnonzero(sound).astype(np.int64)
    return kept if places is None else places[kept]


def row_ids(table: pa.RecordBatch, name: str) -> pa.Array:
    """Return the ids in a plain column as strings, as `rows.py` writes them."""
    return table.column(name).cast(pa.string())


def _filled(values: Any, missing: int | bool) -> NDArray[Any]:
    """Return an Arrow array with `missing` for null."""
    return (values.fill_null(missing) if values.null_count else values).to_numpy(zero_copy_only=False)
