"""Phase 2 of the shuffle: gather the spills of one shard, sort by time, commit one file of the dataset.

In: spills and what they are said to hold. Out: part-*.parquet or part-*.jsonl.zst, whole or absent, and a
record beside the spills so that a finished shard is not written twice. The copies must be exactly those
that were spilled to the shard, by number and by a checksum (promise P4), before the file becomes visible.
Memory: one shard.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.corpus.read import schema_of
from quadmix.errors import IntegrityError
from quadmix.io.atomic import file_digest, map_array, read_value, write_json
from quadmix.io.faults import fault_point
from quadmix.io.tables import read_batch
from quadmix.materialise.checksum import mix_rows
from quadmix.materialise.chosen import load_corpus
from quadmix.materialise.order import copy_times, shard_of, shard_order
from quadmix.materialise.output import struct_field, write_output
from quadmix.materialise.plan import DatasetPlan, disk_room, output_schema
from quadmix.materialise.spill import KEY, spill_name
from quadmix.types import Ints, ShardInfo

CHUNK_BYTES = 32_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTask:
    """One shard to write. work: where the spills of `splits` splits are. corpus: digest of its manifest."""

    run_folder: str
    work: str
    plan: DatasetPlan
    corpus: str
    criteria: tuple[str, ...]
    splits: int
    shard: int


def write_part(task: PartTask) -> ShardInfo:
    """Write one shard; a shard whose record fits the file on disk is left as it is."""
    path = Path(task.run_folder) / "dataset" / task.plan.name(task.shard)
    record = Path(task.work) / f"part-{task.shard:05d}.json"
    if record.is_file() and path.is_file():
        done = read_value(record, ShardInfo)
        if file_digest(path) == done.digest:
            return done
    schema = output_schema(schema_of(load_corpus(task.run_folder, task.corpus)), list(task.criteria))
    with disk_room(path, 2 * task.plan.text_bytes // task.plan.shards):
        chunks, rows, sums = _collect(task)
        order = _order(task, chunks, rows, sums)
        tables = _in_order([c.drop_columns([KEY]) for c in chunks], order, task.plan.group_rows)
        info = write_output(path, schema, tables, task.plan, written=_before)
        fault_point("materialise.after_part")
        write_json(record, info)
    return info


def _before() -> None:
    fault_point("materialise.before_part")


def _collect(task: PartTask) -> tuple[list[pa.RecordBatch], int, int]:
    """Return the shard's copies in chunks of about CHUNK_BYTES, and their number and checksum as spilled."""
    found = sorted(Path(task.work).glob("split-*.npy"))
    if len(found) != task.splits:
        raise IntegrityError(f"{task.work} has the spills of {len(found)} splits, expected {task.splits}")
    chunks: list[pa.RecordBatch] = []
    held: list[pa.RecordBatch] = []
    rows = sums = size = 0
    for path in found:
        counts = map_array(path)
        rows += int(counts[:-1, task.shard].sum())
        sums += int(counts[-1, task.shard])
        for batch in _spilled(task, path, counts):
            held.append(batch)
            size += batch.nbytes
            if size >= CHUNK_BYTES:
                chunks.append(pa.concat_batches(held))
                held, size = [], 0
    return [*chunks, pa.concat_batches(held)] if held else chunks, rows, sums % 2**64


def _spilled(task: PartTask, path: Path, counts: NDArray[np.uint64]) -> Iterator[pa.RecordBatch]:
    """Yield what one split spilled to the shard, one batch of each of its files at most."""
    split = int(path.stem.removeprefix("split-"))
    for number, rows in enumerate(counts[:-1]):
        if rows[task.shard]:
            index = int(np.count_nonzero(rows[: task.shard]))
            yield read_batch(Path(task.work) / spill_name(split, number), index)


def _order(task: PartTask, chunks: list[pa.RecordBatch], rows: int, sums: int) -> Ints:
    """Return the order (C,) of the copies, by their times; IntegrityError unless they are those spilled."""
    keys = np.concatenate([np.empty(0, np.uint64), *(c[KEY].to_numpy() for c in chunks)])
    none = np.empty(0, np.int32)
    copy_index = np.concatenate([none, *(struct_field(c, "copy_index") for c in chunks)])
    copies = np.concatenate([none, *(struct_field(c, "copies") for c in chunks)])
    times = copy_times(task.plan.seed, keys, copy_index, copies)
    found = int(mix_rows(keys, [copy_index]).sum(dtype=np.uint64))
    strays = int((shard_of(times, task.plan.shards) != task.shard).sum())
    if (len(keys), found, strays) != (rows, sums, 0):
        raise IntegrityError(
            f"shard {task.shard} has {len(keys)} copies with checksum {found:x}, {strays} of them of other "
            f"shards; expected {rows} with {sums:x}, as were spilled; nothing was committed: remove "
            f"{task.work} and run the same command again"
        )
    return shard_order(keys, copy_index, times)


def _in_order(chunks: list[pa.RecordBatch], order: Ints, step: int) -> Iterator[pa.Table]:
    """Yield the rows of all chunks in order, `step` at a time.

    The chunks are never joined: the shard is in memory once, and may hold more than the 2 GiB of an Arrow
    string.
    """
    starts = np.cumsum([0, *(c.num_rows for c in chunks)])
    for begin in range(0, len(order), step):
        wanted = order[begin : begin + step]
        rows = np.sort(wanted)
        edges = np.searchsorted(rows, starts)
        taken = [
            c.take(pa.array(rows[edges[i] : edges[i + 1]] - starts[i]))
            for i, c in enumerate(chunks)
            if edges[i + 1] > edges[i]
        ]
        yield pa.Table.from_batches([pa.concat_batches(taken).take(pa.array(np.searchsorted(rows, wanted)))])
