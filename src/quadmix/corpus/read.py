"""The documents of a frozen corpus, split by split; rows in quarantine are skipped alike at every pass.

In: a `Corpus` and one of its splits. Out: batches of ids, texts and the user's own columns in the one schema.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from quadmix.corpus.columns import has_column, root_of
from quadmix.corpus.rows import SoundBatch, sound_rows
from quadmix.corpus.schema import conform, decode_json, is_json, rows_to_arrow, unpack_schema
from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import value_digest
from quadmix.io.readers import BadRow
from quadmix.types import Corpus, FileInfo, Split


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
    prefix = (
        _id_prefix(next(f for f in corpus.files if f.path == split.path)) if corpus.columns.id is None else ""
    )
    first = first_row(corpus, split)
    # Parquet strings are checked where they are read: to find the same bad rows, read the same columns
    only = None if columns is None or "invalid_utf8" in count.quarantined else _needed(corpus, schema)
    documents = 0
    for batch in sound_rows(
        split, corpus.columns, max_row_bytes=corpus.max_row_bytes, bad=_ignore, only=only
    ):
        documents += len(batch.text)
        if batch.text:
            ids = batch.doc_id or [f"{prefix}:{first + row}" for row in batch.rows]
            yield DocBatch(doc_id=ids, text=batch.text, rows=_content(batch, schema))
    if documents != count.documents:
        raise IntegrityError(
            f"{split.path} (split {split.index}): {documents} documents, the scan counted {count.documents}; "
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
