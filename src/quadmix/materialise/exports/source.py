"""The rows of a finished dataset, streamed in order: texts alone or tokenised, counted as they pass.

In: the dataset's folder and manifest, the name of the text column. Out: shards of documents. One row group or
batch of lines is in memory at a time. A shard that is not what the manifest says is refused before it is
read.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from quadmix.corpus.columns import column_values, lookup, root_of
from quadmix.corpus.read import user_rows
from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import file_digest, table_columns
from quadmix.io.faults import fault_point
from quadmix.io.readers import BadRow, plan_splits, read_rows
from quadmix.io.tables import stream_tables
from quadmix.materialise.exports.check import Tally
from quadmix.materialise.exports.kinds import Document, Shard, Vocabulary
from quadmix.materialise.plan import STRUCT
from quadmix.types import DatasetManifest, ShardInfo

_MAX_ROW_BYTES = 1 << 40  # the rows are ours: none is too long
_BATCH_ROWS = 1000
_BATCH_CHARACTERS = 4_000_000  # of texts tokenised at once


@dataclass(slots=True, kw_only=True, eq=False)
class DatasetSource:
    """A `Source`. words: None in a format of texts. text: name of the text column. counted: the dataset's
    tokens were counted by this very tokenizer, so each shard must have the tokens of its manifest entry."""

    dataset: Path
    manifest: DatasetManifest
    text: str
    words: Vocabulary | None
    counted: bool
    tally: Tally
    advance: Callable[[int], None]

    @property
    def vocabulary(self) -> Vocabulary:
        if self.words is None:
            raise InputError(
                "this format is declared to hold texts, so there is no vocabulary; declare tokens"
            )
        return self.words

    def shards(self) -> Iterator[Shard]:
        """Yield the shards of the dataset in order; each must be gone through before the next."""
        for index, info in enumerate(self.manifest.shards):
            path = self.dataset / info.name
            _check_file(path, info)
            before = self.tally.documents
            yield Shard(index=index, name=info.name, rows=info.rows, documents=self._documents(path, info))
            if self.tally.documents - before != info.rows:
                raise IntegrityError(
                    f"{path}: the exporter went through {self.tally.documents - before} of its "
                    f"{info.rows} rows"
                )
            fault_point("export.shard")

    def _documents(self, path: Path, info: ShardInfo) -> Iterator[Document]:
        rows = tokens = 0
        batches = _batches(path, self.text, whole=self.words is None)
        for document in self._tokenised(batches) if self.words else itertools.chain.from_iterable(batches):
            self.tally.add(document)
            rows += 1
            tokens += 0 if document.ids is None else max(1, len(document.ids) - 1)  # counted as one if none
            yield document
            self.advance(1)
        if rows != info.rows or (self.counted and tokens != info.tokens):
            found = f"{rows:,} rows" + (f" with {tokens:,} tokens" if self.counted else "")
            raise IntegrityError(
                f"{path} gave {found}, its manifest says {info.rows:,} with "
                f"{info.tokens:,}; run `quadmix verify`"
            )

    def _tokenised(self, batches: Iterator[list[Document]]) -> Iterator[Document]:
        words = self.vocabulary
        end = words.tokenizer.end_of_document
        for batch in batches:
            for document, ids in zip(batch, words.tokenizer.encode([d.text for d in batch]), strict=True):
                yield Document(
                    doc_id=document.doc_id, text=document.text, ids=np.array([*ids, end], dtype=np.int64)
                )


def read_documents(path: Path, text: str) -> Iterator[Document]:
    """Yield doc_id and text of the rows of one Parquet or JSONL file."""
    return itertools.chain.from_iterable(_batches(path, text, whole=False))


def _check_file(path: Path, info: ShardInfo) -> None:
    if not path.is_file() or path.stat().st_size != info.bytes or file_digest(path) != info.digest:
        raise IntegrityError(
            f"{path} is missing or not the file of its manifest (expected {info.bytes:,} bytes with digest "
            f"{info.digest}); run `quadmix verify`, then write the dataset again"
        )


def _batches(path: Path, text: str, *, whole: bool) -> Iterator[list[Document]]:
    """Yield the rows of one file, not too many characters at a time. whole: with all their columns."""
    rows = _parquet_rows(path, text, whole) if path.suffix == ".parquet" else _json_rows(path, text, whole)
    batch: list[Document] = []
    characters = 0
    for document in rows:
        batch.append(document)
        characters += len(document.text)
        if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _parquet_rows(path: Path, text: str, whole: bool) -> Iterator[Document]:
    root = root_of(table_columns(path), text)
    for table in stream_tables(path, None if whole else [root, f"{STRUCT}.doc_id"]):
        for rows in table.to_batches(max_chunksize=_BATCH_ROWS):
            texts = column_values(rows, text)
            ids = column_values(rows, f"{STRUCT}.doc_id")
            for value, doc_id, row in zip(texts, ids, _rows(rows, whole), strict=True):
                yield _document(path, value, doc_id, row)


def _rows(rows: pa.RecordBatch, whole: bool) -> list[dict[str, Any]]:
    return user_rows(rows) if whole else [{}] * rows.num_rows


def _json_rows(path: Path, text: str, whole: bool) -> Iterator[Document]:
    for split in plan_splits([str(path)], _MAX_ROW_BYTES):
        for batch in read_rows(split, max_row_bytes=_MAX_ROW_BYTES, bad=_refuse):
            for row in batch.values:
                doc_id = lookup(row, f"{STRUCT}.doc_id")
                yield _document(path, lookup(row, text), doc_id, row if whole else {})


def _document(path: Path, text: Any, doc_id: Any, row: dict[str, Any]) -> Document:
    if not isinstance(text, str) or not isinstance(doc_id, str):
        raise IntegrityError(f"{path}: a row lacks its text or its id; write the dataset again")
    return Document(doc_id=doc_id, text=text, row=row)


def _refuse(row: BadRow) -> None:
    raise IntegrityError(f"{row.path}: row {row.row} cannot be read back ({row.reason}); is the disk sound?")
