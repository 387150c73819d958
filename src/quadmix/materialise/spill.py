"""Phase 1 of writing: read the text of one corpus split once, and spill its selected copies by shard.

In: a split, its slice of selection.parquet, and every copy's place. Out: spill files (Parquet, one row
group per shard) and `split-*.json`, written last, which says that the split is done and what it held.
Spills carry the user's columns, the `quadmix` struct and the place of the copy.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.corpus.read import DocBatch, read_documents, schema_of
from quadmix.errors import IntegrityError
from quadmix.io.atomic import map_array, read_value, write_json
from quadmix.io.faults import fault_point
from quadmix.io.tables import read_slice, write_groups
from quadmix.materialise.plan import POSITION, DatasetPlan, disk_room, output_schema, struct_type
from quadmix.materialise.sample import TEXT_CHARACTERS
from quadmix.materialise.table import SELECTION, read_info
from quadmix.types import Copies, Corpus, Ints, Split

SPILL_BYTES = 128_000_000
MAX_PIECE_BYTES = 1_000_000_000
POSITIONS = "positions.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillTask:
    """One split: its rows start..stop of selection.parquet and where its copies begin in positions.npy.

    samples: rows of selection.parquet, inside start..stop, whose text the report wants to show.
    """

    corpus: Corpus
    split: Split
    run_folder: str
    folder: str
    plan: DatasetPlan
    start: int
    stop: int
    first_copy: int
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillFile:
    """A committed spill: row group k holds copies of shard shards[k]."""

    name: str
    shards: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpilledSplit:
    """What one split gave; its file is written after its spills. samples: table row -> text."""

    split: int
    documents: int
    selected: int
    copies: int
    tokens: int
    files: tuple[SpillFile, ...]
    samples: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Chosen:
    """The split's slice of the selection (D documents, C copies).

    copy_row: (C,) document of each copy. copy_index: (C,). positions: (C,) place in the dataset.
    numbers: the struct's fields without copy_index, one row per document.
    """

    doc_id: list[str]
    tokens: NDArray[np.int32]
    copies: Copies
    copy_row: Ints
    copy_index: Copies
    positions: Ints
    numbers: dict[str, pa.Array]
    criteria: list[str]


def spill_split(task: SpillTask) -> SpilledSplit:
    """Spill the selected copies of one split; a split that is done is not read again."""
    record = Path(task.folder) / f"split-{task.split.index:05d}.json"
    if record.is_file():
        return read_value(record, SpilledSplit)
    chosen = _read_chosen(task)
    schema = output_schema(schema_of(task.corpus), chosen.criteria).append(pa.field(POSITION, pa.int64()))
    texts: dict[str, str] = {}
    files: list[SpillFile] = []
    with disk_room(Path(task.folder), task.plan.text_bytes):
        for table in _gather(_selected_rows(task, chosen, schema, texts)):
            files.append(_write_spill(task, schema, table, len(files)))
            fault_point("materialise.spill")
        spilled = SpilledSplit(
            split=task.split.index,
            documents=len(chosen.doc_id),
            selected=int((chosen.copies > 0).sum()),
            copies=len(chosen.positions),
            tokens=int(chosen.tokens.astype(np.int64) @ chosen.copies.astype(np.int64)),
            files=tuple(files),
            samples=texts,
        )
        write_json(record, spilled)
    fault_point("materialise.split")
    return spilled


def _read_chosen(task: SpillTask) -> _Chosen:
    path = Path(task.run_folder) / SELECTION
    table = read_slice(path, task.start, task.stop).combine_chunks()
    criteria = [c.name for c in read_info(table, path).criteria]
    copies = table["copies"].to_numpy()
    rank = (table["rank_low"].to_numpy() + table["rank_high"].to_numpy()) / 2
    # Missing is NaN in the table of numbers and null in what users read.
    norms = [pa.array(table[f"norm:{n}"].to_numpy(), from_pandas=True) for n in criteria]
    numbers: dict[str, Any] = {
        "doc_id": table["doc_id"].combine_chunks(),
        "domain": table["domain"].combine_chunks(),
        "tokens": table["tokens"].combine_chunks(),
        "scores": pa.StructArray.from_arrays(norms, names=criteria),
        "merged": table["merged"].combine_chunks(),
        "rank": pa.array(rank),
        "expected_copies": table["expected"].combine_chunks(),
        "copies": table["copies"].combine_chunks(),
    }
    copy_row = np.repeat(np.arange(len(copies), dtype=np.int64), copies)
    first = np.cumsum(copies, dtype=np.int64) - copies
    positions = map_array(Path(task.folder) / POSITIONS)
    return _Chosen(
        doc_id=table["doc_id"].to_pylist(),
        tokens=table["tokens"].to_numpy(),
        copies=copies,
        copy_row=copy_row,
        copy_index=(np.arange(len(copy_row)) - first[copy_row]).astype(np.int32),
        positions=positions[task.first_copy : task.first_copy + len(copy_row)],
        numbers=numbers,
        criteria=criteria,
    )


def _selected_rows(
    task: SpillTask, chosen: _Chosen, schema: pa.Schema, texts: dict[str, str]
) -> Iterator[pa.Table]:
    """Yield the selected copies of the split in corpus order; collect the texts of samples on the way."""
    wanted = {row - task.start: str(row) for row in task.samples}
    first_copy = np.concatenate(([0], np.cumsum(chosen.copies, dtype=np.int64)))
    seen = 0
    for batch in read_documents(task.corpus, task.split):
        stop = seen + len(batch.doc_id)
        _check_ids(task, chosen, batch, seen)
        for row in range(seen, stop):
            if row in wanted:
                texts[wanted[row]] = batch.text[row - seen][:TEXT_CHARACTERS]
        begin, end = int(first_copy[seen]), int(first_copy[stop])
        most = int(chosen.copies[seen:stop].max(initial=0))
        # Arrow strings end at 2 GiB: very long documents are taken one copy at a time.
        step = max(1, end - begin) if batch.rows.nbytes * most < MAX_PIECE_BYTES else 1
        for start in range(begin, end, step):
            yield _rows(chosen, schema, batch, slice(start, min(start + step, end)), seen)
        seen = stop
    if seen != len(chosen.doc_id):
        raise IntegrityError(
            f"split {task.split.index} ({task.split.path}) gave {seen} documents, expected the "
            f"{len(chosen.doc_id)} of selection.parquet; the input was changed: start a new run folder"
        )


def _rows(chosen: _Chosen, schema: pa.Schema, batch: DocBatch, copies: slice, seen: int) -> pa.Table:
    """Return the output rows of some copies; `seen` documents of the split came before this batch."""
    rows = chosen.copy_row[copies]
    index = pa.array(rows)
    numbers = [column.take(index) for column in chosen.numbers.values()]
    numbers.append(pa.array(chosen.copy_index[copies]))
    struct = pa.StructArray.from_arrays(numbers, fields=list(struct_type(chosen.criteria)))
    taken = batch.rows.take(pa.array(rows - seen))
    places = pa.array(np.asarray(chosen.positions[copies]))
    return pa.Table.from_arrays([*taken.columns, struct, places], schema=schema)


def _gather(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Join small tables into ones of about SPILL_BYTES; the last one is whatever is left."""
    held: list[pa.Table] = []
    size = 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if size >= SPILL_BYTES:
            yield pa.concat_tables(held)
            held, size = [], 0
    if held:
        yield pa.concat_tables(held)


def _write_spill(task: SpillTask, schema: pa.Schema, table: pa.Table, number: int) -> SpillFile:
    """Write one spill: rows by place, one row group per shard that has any."""
    places = table[POSITION].to_numpy()
    order = np.argsort(places)
    bounds = np.array([task.plan.bound(k) for k in range(task.plan.shards + 1)])
    cuts = np.searchsorted(places[order], bounds)
    shards = np.flatnonzero(np.diff(cuts))
    groups = (table.take(pa.array(order[cuts[k] : cuts[k + 1]])) for k in shards)
    name = f"split-{task.split.index:05d}-{number:05d}.parquet"
    write_groups(Path(task.folder) / name, schema, groups)
    return SpillFile(name=name, shards=tuple(shards.tolist()))


def _check_ids(task: SpillTask, chosen: _Chosen, batch: DocBatch, seen: int) -> None:
    expected = chosen.doc_id[seen : seen + len(batch.doc_id)]
    if batch.doc_id == expected:
        return
    row = next(
        (i for i, (a, b) in enumerate(zip(batch.doc_id, expected, strict=False)) if a != b), len(expected)
    )
    got = batch.doc_id[row]
    want = repr(expected[row]) if row < len(expected) else "no further document"
    raise IntegrityError(
        f"document {seen + row} of split {task.split.index} ({task.split.path}) is {got!r}, but "
        f"selection.parquet has {want}; the input was changed: start a new run folder"
    )
