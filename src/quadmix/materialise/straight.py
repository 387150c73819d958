"""The dataset in corpus order, split by split in one pass: no shuffle, no spill; and the index.

In: a split and its part of the selection. Out: one file of the dataset per split that has selected rows,
and a record beside the spills so that a finished split is not written twice. Memory: one batch and one row
group.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from quadmix.errors import IntegrityError
from quadmix.io.atomic import file_digest, read_value, write_json
from quadmix.io.faults import fault_point
from quadmix.io.tables import write_groups
from quadmix.materialise.chosen import Chosen, SplitTask, WrittenSplit, read_chosen, selected_rows
from quadmix.materialise.output import shard_info, write_output
from quadmix.materialise.plan import GROUP_BYTES, GROUP_ROWS, disk_room
from quadmix.types import ShardInfo

INDEX_ROWS = 65_536


def write_split(task: SplitTask) -> WrittenSplit:
    """Write the selected rows of one split, copies as neighbours; a split that is done is not read again."""

    def write(path: Path, chosen: Chosen) -> ShardInfo:
        tables = _groups(task, chosen)
        return write_output(path, chosen.schema, tables, task.plan, written=_before)

    return _once(task, write)


def write_index(task: SplitTask) -> WrittenSplit:
    """Write (doc_id, copies) of the selected documents of one split; the corpus is not read."""

    def write(path: Path, chosen: Chosen) -> ShardInfo:
        table = pa.Table.from_batches([chosen.numbers.select(chosen.schema.names)])
        groups = (table.slice(start, INDEX_ROWS) for start in range(0, table.num_rows, INDEX_ROWS))
        rows = write_groups(path, chosen.schema, _ended(groups), codec=task.plan.codec)
        return shard_info(path, rows, chosen.counted(task).tokens)

    return _once(task, write)


def _once(task: SplitTask, write: Callable[[Path, Chosen], ShardInfo]) -> WrittenSplit:
    """Return the record of a split that was written, or write it, and then the record."""
    path = Path(task.run_folder) / "dataset" / task.plan.name(task.split)
    if task.record.is_file() and task.gathered:
        done = read_value(task.record, WrittenSplit)
        if done.shard is None or (path.is_file() and file_digest(path) == done.shard.digest):
            return done
    chosen = read_chosen(task)
    result, shard = chosen.counted(task), None
    with disk_room(path, task.plan.text_bytes):
        if len(chosen.rows):
            shard = write(path, chosen)
            _check_rows(path, shard, result, index=task.plan.format == "index")
            fault_point("materialise.after_split")
        elif task.plan.format != "index":  # read for its samples
            for _ in selected_rows(task, chosen):
                raise IntegrityError(f"split {task.split} gave rows, but nothing of it is selected")
        result = replace(result, shard=shard)
        write_json(task.record, result)
    return result


def _groups(task: SplitTask, chosen: Chosen) -> Iterator[pa.Table]:
    """Yield the selected rows in tables of about GROUP_ROWS rows, fewer where documents are long."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for piece in selected_rows(task, chosen):
        held.append(piece.rows)
        rows += piece.rows.num_rows
        size += piece.rows.nbytes
        del piece
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def _ended(groups: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield from groups
    _before()


def _before() -> None:
    fault_point("materialise.before_split")


def _check_rows(path: Path, shard: ShardInfo, expected: WrittenSplit, *, index: bool) -> None:
    """Conservation per split (promise P4): what was written is what the selection asked for."""
    asked = expected.selected if index else expected.copies
    if (shard.rows, shard.tokens) != (asked, expected.tokens):
        raise IntegrityError(
            f"{path} holds {shard.rows} rows and {shard.tokens} tokens, expected {asked} and "
            f"{expected.tokens} by the selection; remove it and run the same command again"
        )
