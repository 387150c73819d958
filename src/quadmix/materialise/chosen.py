"""The rows that one corpus split gives to the dataset, as the text is read: once, in small batches.

In: a split, its part of the selection. Out: batches of output rows (the user's columns and the `quadmix`
struct), copies of a document as neighbours, in the order of the corpus. The text of a rejected document
lives no longer than the batch it was read in, and ids are compared with the selection row by row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.corpus.arrow import ArrowDocs
from quadmix.corpus.read import read_arrow_documents, schema_of
from quadmix.errors import IntegrityError
from quadmix.io.atomic import file_digest, read_table, read_value
from quadmix.materialise.gather import (
    facts_file,
    facts_folder,
    see_batch,
    see_rows,
    start_gathering,
    write_gathered,
)
from quadmix.materialise.order import copy_rows
from quadmix.materialise.plan import INDEX_SCHEMA, STRUCT, DatasetPlan, output_schema
from quadmix.materialise.sample import TEXT_CHARACTERS, shown_columns
from quadmix.materialise.table import SELECTION, part_name, read_info
from quadmix.types import ColumnMap, Copies, Corpus, Ints, ShardInfo, Split

MAX_PIECE_BYTES = 256_000_000  # Arrow strings end at 2 GiB, and many copies of long documents are many bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitTask:
    """One split to write; everything else is found in the run folder.

    work: where records and spills go. corpus, part: digests of the corpus manifest and of the split's part of
    the selection. columns: of the corpus. samples: documents of the split whose text the report shows.
    """

    run_folder: str
    work: str
    plan: DatasetPlan
    corpus: str
    split: int
    part: str
    columns: ColumnMap
    samples: tuple[int, ...] = ()

    @property
    def record(self) -> Path:
        return Path(self.work) / f"split-{self.split:05d}.json"

    @property
    def gathered(self) -> bool:
        """Whether what is counted besides is there; an earlier version may have written the rest alone."""
        return self.plan.format == "index" or facts_file(self.facts, self.split).is_file()

    @property
    def facts(self) -> str:
        return facts_folder(self.work, self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSplit:
    """What one split gave; its record is written last of all. shard: its file, in corpus order.

    samples: document of the split -> its `shown_columns`, and the beginning of its text as `text`.
    """

    split: int
    documents: int
    selected: int
    copies: int
    tokens: int
    shard: ShardInfo | None = None
    samples: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """A split's part of the selection: D documents, S of them selected.

    doc_id: (D,) Arrow strings. rows: (S,) ascending. copies, keys, tokens: (S,). numbers: (S,) the struct's
    fields without copy_index. schema: of the output. shown: of the samples; their text is added when it is
    read.
    """

    doc_id: pa.Array
    rows: Ints
    copies: Copies
    keys: NDArray[np.uint64]
    tokens: NDArray[np.int32]
    numbers: pa.RecordBatch
    schema: pa.Schema
    shown: dict[str, dict[str, Any]]

    def counted(self, task: SplitTask) -> WrittenSplit:
        """Return the counts of the selection for this split."""
        return WrittenSplit(
            split=task.split,
            documents=len(self.doc_id),
            selected=len(self.rows),
            copies=int(self.copies.sum(dtype=np.int64)),
            tokens=int(self.tokens.astype(np.int64) @ self.copies.astype(np.int64)),
            samples=self.shown,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """Some output rows (C). document: (C,) index into `Chosen.rows`. copy_index: (C,)."""

    rows: pa.RecordBatch
    document: Ints
    copy_index: Copies


# A worker writes many splits of one run: the manifest is read once per process, and its digest in the key
# makes a changed file a different entry.
@lru_cache(maxsize=2)
def load_corpus(run_folder: str, digest: str) -> Corpus:
    """Return the corpus of a run folder; IntegrityError if it is not the one that the task was made for."""
    path = Path(run_folder) / "corpus" / "manifest.json"
    corpus = read_value(path, Corpus)
    if corpus.digest != digest:
        raise IntegrityError(
            f"{path} has digest {corpus.digest}, expected {digest}; another run wrote there. "
            "Run the same command again"
        )
    return corpus


def part_file(task: SplitTask) -> Path:
    """Return the split's part of the selection; IntegrityError unless it is the one of the manifest."""
    path = Path(task.run_folder) / SELECTION / part_name(task.split)
    if (found := file_digest(path)) != task.part:
        raise IntegrityError(
            f"{path} has digest {found}, expected {task.part} by {SELECTION}/manifest.json; "
            f"remove {path.parent} and run the same command again"
        )
    return path


def read_chosen(task: SplitTask) -> Chosen:
    """Read what the selection says about the documents of the split."""
    path = part_file(task)
    criteria = [c.name for c in read_info(read_table(path, columns=[]), path).criteria]
    columns = [name for name, _ in shown_columns(criteria)]
    if not task.samples:
        columns = [name for name in columns if not name.startswith("score:")]
    table = read_table(path, columns=["key", *columns])
    rows = np.flatnonzero(table["copies"].to_numpy()).astype(np.int64)
    shown = _shown(task, table.select(columns))
    doc_id = table["doc_id"].combine_chunks()
    table = table.drop_columns(["doc_id"]).take(pa.array(rows)).combine_chunks()
    norms = [_nullable(column) for column in table.select([f"norm:{name}" for name in criteria]).columns]
    numbers = {
        "doc_id": doc_id.take(pa.array(rows)),
        "domain": table["domain"].combine_chunks(),
        "tokens": table["tokens"].combine_chunks(),
        "scores": pa.StructArray.from_arrays(norms, names=criteria),
        "merged": table["merged"].combine_chunks(),
        "rank": pa.array((table["rank_low"].to_numpy() + table["rank_high"].to_numpy()) / 2),
        "expected_copies": table["expected"].combine_chunks(),
        "copies": table["copies"].combine_chunks(),
    }
    return Chosen(
        doc_id=doc_id,
        rows=rows,
        copies=table["copies"].to_numpy(),
        keys=table["key"].to_numpy(),
        tokens=table["tokens"].to_numpy(),
        numbers=pa.RecordBatch.from_pydict(numbers),
        schema=_schema(task, criteria),
        shown=shown,
    )


def _nullable(column: pa.ChunkedArray) -> pa.Array:
    """Missing is NaN in the table of numbers and null in what users read."""
    return pa.array(column.to_numpy(), from_pandas=True)


def _shown(task: SplitTask, table: pa.Table) -> dict[str, dict[str, Any]]:
    rows = table.take(pa.array(task.samples, pa.int64())).to_pylist()
    # NaN is missing, and null here as it is in the record on disk
    plain = [{k: None if v != v else v for k, v in row.items()} for row in rows]
    return {str(place): row for place, row in zip(task.samples, plain, strict=True)}


def _schema(task: SplitTask, criteria: list[str]) -> pa.Schema:
    if task.plan.format == "index":
        return INDEX_SCHEMA
    return output_schema(schema_of(load_corpus(task.run_folder, task.corpus)), criteria)


def selected_rows(task: SplitTask, chosen: Chosen) -> Iterator[Piece]:
    """Yield the selected copies of the split in corpus order; collect the texts of samples on the way, and
    leave in the work folder what is counted besides."""
    corpus = load_corpus(task.run_folder, task.corpus)
    split = next(s for s in corpus.splits if s.index == task.split)
    gathered = start_gathering(task.columns, len(chosen.rows))
    seen = 0
    for batch in read_arrow_documents(corpus, split):
        stop = seen + len(batch.doc_id)
        if not batch.doc_id.equals(chosen.doc_id.slice(seen, stop - seen)):
            _refuse_ids(split, chosen, batch, seen)
        for row in (r for r in task.samples if seen <= r < stop):
            chosen.shown[str(row)]["text"] = _text(batch.value(row - seen, corpus.columns.text))
        see_batch(gathered, batch)
        for piece in _pieces(chosen, batch, seen, stop):
            see_rows(gathered, piece.rows, piece.document, piece.copy_index)
            yield piece
        seen = stop
    if seen != len(chosen.doc_id):
        raise IntegrityError(
            f"split {split.index} ({split.path}) gave {seen} documents, expected the "
            f"{len(chosen.doc_id)} of the selection; the input was changed: start a new run folder"
        )
    write_gathered(gathered, task.run_folder, task.facts, task.split, chosen.rows)


def _pieces(chosen: Chosen, batch: ArrowDocs, seen: int, stop: int) -> Iterator[Piece]:
    """Yield the output rows of the documents seen..stop of the split, which are those of the batch."""
    begin, end = np.searchsorted(chosen.rows, [seen, stop]).tolist()
    if begin == end:
        return
    fields = list(chosen.schema.field(STRUCT).type)
    copies = chosen.copies[begin:end]
    document, copy_index = copy_rows(copies)
    fits = batch.bytes * int(copies.max()) <= MAX_PIECE_BYTES
    step = len(document) if fits else max(1, MAX_PIECE_BYTES // batch.bytes)
    for start in range(0, len(document), step):
        some = document[start : start + step] + begin
        index = copy_index[start : start + step]
        taken = batch.take(chosen.rows[some] - seen)
        numbers = chosen.numbers.take(pa.array(some)).columns
        struct = pa.StructArray.from_arrays([*numbers, pa.array(index)], fields=fields)
        rows = pa.RecordBatch.from_arrays([*taken.columns, struct], schema=chosen.schema)
        yield Piece(rows=rows, document=some, copy_index=index)


def _text(value: Any) -> str:
    """Return the beginning of a text, which may be binary in the file."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text[:TEXT_CHARACTERS]


def _refuse_ids(split: Split, chosen: Chosen, batch: ArrowDocs, seen: int) -> None:
    got = batch.doc_id.to_pylist()
    expected = chosen.doc_id.slice(seen, len(got)).to_pylist()
    row = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), len(expected))
    want = repr(expected[row]) if row < len(expected) else "no further document"
    raise IntegrityError(
        f"document {seen + row} of split {split.index} ({split.path}) is {got[row]!r}, but "
        f"the selection has {want}; the input was changed: start a new run folder"
    )
