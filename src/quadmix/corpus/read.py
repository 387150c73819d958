"""The documents of a frozen corpus, split by split; rows in quarantine are skipped alike at every pass.

In: a `Corpus` and one of its splits. Out: batches of ids, texts and the user's own columns in the one schema.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from quadmix.corpus.arrow import ArrowDocs, Rule, is_plain, row_ids, sound_arrow
from quadmix.corpus.columns import has_column, root_of
from quadmix.corpus.rows import SoundBatch, sound_rows
from quadmix.corpus.schema import conform, decode_json, is_json, rows_to_arrow, unpack_schema
from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import value_digest
from quadmix.io.formats import is_columnar
from quadmix.io.pieces import ArrowBatch, BadRow
from quadmix.io.readers import read_arrow
from quadmix.types import Corpus, FileInfo, Split, SplitCount

# sound rows as they stand in the file, their ordinals in the split, their ids where the files have some, and
# the rule by which they are yet to be judged, if they are
_ArrowRows = tuple[pa.RecordBatch | list[dict[str, Any]], NDArray[np.int64], pa.Array | None, Rule | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocBatch:
    """Some documents in corpus order. doc_id, text: (B,). rows: (B,) the user's columns, text included."""

    doc_id: list[str]
    text: list[str]
    rows: pa.RecordBatch


def schema_of(corpus: Corpus) -> pa.Schema:
    """Return the schema of the user's columns, united over all files."""
    return unpack_schema(corpus.schema)


def read_documents(
    corpus: Corpus, split: Split, *, columns: Sequence[str] | None = None
) -> Iterator[DocBatch]:
    """Yield the documents of a split in batches of about 1,000.

    columns: which of the user's columns `rows` holds (None: all; a dotted name brings its whole column).
    IntegrityError if the split does not hold the documents that the scan counted.
    """
    schema = _restricted(schema_of(corpus), columns)
    count = next(c for c in corpus.counts if c.split == split.index)
    prefix, first = _made_ids(corpus, split)
    # the strings of Parquet and Arrow are checked where they are read: to find the same bad rows, read the
    # same columns
    only = None if columns is None or "invalid_utf8" in count.quarantined else _needed(corpus, schema)
    documents = 0
    for batch in sound_rows(
        split, corpus.columns, max_row_bytes=corpus.max_row_bytes, bad=_ignore, only=only
    ):
        documents += len(batch.text)
        if batch.text:
            ids = batch.doc_id or [f"{prefix}:{first + row}" for row in batch.rows]
            yield DocBatch(doc_id=ids, text=batch.text, rows=_content(batch, schema))
    _check_count(split, documents, count.documents)


def read_arrow_documents(corpus: Corpus, split: Split) -> Iterator[ArrowDocs]:
    """Yield the documents of `read_documents` with all columns, in batches whose rows are not yet converted.

    Parquet and Arrow files with plain text and id columns never become Python objects on the way.
    IntegrityError if the split does not hold the documents that the scan counted.
    """
    schema, documents = schema_of(corpus), 0
    count = next(c for c in corpus.counts if c.split == split.index)
    prefix, first = _made_ids(corpus, split)
    for content, rows, ids, rule in _arrow_rows(corpus, split, count):
        documents += len(rows)
        if ids is None:
            places = pa.array(rows + first).cast(pa.string())
            ids = pc.call_function("binary_join_element_wise", [pa.scalar(prefix), places, pa.scalar(":")])
        if len(rows):
            yield ArrowDocs(doc_id=ids, content=content, schema=schema, rule=rule)
    _check_count(split, documents, count.documents)


def _arrow_rows(corpus: Corpus, split: Split, count: SplitCount) -> Iterator[_ArrowRows]:
    """Yield the sound rows of a split; see `_ArrowRows`."""
    columns, limit = corpus.columns, corpus.max_row_bytes
    batches: Iterator[ArrowBatch] = read_arrow(split) if is_columnar(split.format) else iter(())
    head = next(batches, None)
    if head is None or not is_plain(head.table.schema, columns):
        for batch in sound_rows(split, columns, max_row_bytes=limit, bad=_ignore):
            ids = pa.array(batch.doc_id, pa.string()) if columns.id is not None else None
            yield batch.content, np.array(batch.rows, dtype=np.int64), ids, None
        return
    rule = Rule(path=split.path, columns=columns, limit=limit)
    # what is not Parquet may point outside its own data, and is looked at before anything is taken from it
    trusted = split.format == "parquet" and not count.quarantined
    for batch in itertools.chain((head,), batches):
        rows = batch.first + np.arange(batch.table.num_rows, dtype=np.int64)
        table, rows = (batch.table, rows) if trusted else sound_arrow(batch, rule)
        ids = None if columns.id is None else row_ids(table, columns.id)
        yield table, rows, ids, rule if trusted else None


def _check_count(split: Split, documents: int, counted: int) -> None:
    if documents != counted:
        raise IntegrityError(
            f"{split.path} (split {split.index}): {documents} documents, the scan counted {counted}; "
            "the file changed since, give the run a new name and start again"
        )


def _ignore(row: BadRow) -> None:
    """The scan has put the row into quarantine."""


def _content(batch: SoundBatch, schema: pa.Schema) -> pa.RecordBatch:
    if isinstance(batch.content, list):
        return rows_to_arrow(batch.content, schema)
    return conform(batch.content, schema)


def _restricted(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    if columns is None:
        return schema
    for name in columns:
        if not has_column(schema, name):
            raise InputError(
                f"the files have no column {name!r}, only {', '.join(map(repr, schema.names[:40]))}"
            )
    roots = dict.fromkeys(root_of(schema.names, name) for name in columns)
    return pa.schema([schema.field(name) for name in roots])


def _needed(corpus: Corpus, schema: pa.Schema) -> list[str]:
    roles = [name for name in (corpus.columns.text, corpus.columns.id) if name is not None]
    # in one file "a.b" may be a column, in another a field: ask for both, the reader takes what there is
    asked = [*schema.names, *roles, *(name.split(".")[0] for name in roles)]
    return list(dict.fromkeys(asked))


def first_row(corpus: Corpus, split: Split) -> int:
    """Return the ordinal in its file of the split's first row."""
    before = {s.index for s in corpus.splits if s.path == split.path and s.index < split.index}
    return sum(c.rows for c in corpus.counts if c.split in before)


def _made_ids(corpus: Corpus, split: Split) -> tuple[str, int]:
    """Return what made-up ids begin with ("" where the files have ids) and the ordinal of the first row."""
    file = next(f for f in corpus.files if f.path == split.path)
    return "" if corpus.columns.id is not None else _id_prefix(file), first_row(corpus, split)


def _id_prefix(file: FileInfo) -> str:
    """Return the part of made-up ids that names the file: its name and content, so that it may be moved."""
    return value_digest([file.path.rsplit("/", 1)[-1], file.digest])[:16]


def user_rows(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return a batch as the user's rows: JSON text columns decoded, absent keys as null."""
    marked = [f.name for f in rows.schema if is_json(f)]
    out: list[dict[str, Any]] = rows.to_pylist()
    for row in out:
        for name in marked:
            row[name] = decode_json(row[name])
    return out
