"""Phase 1 of the shuffle: read the text of one corpus split once, and spill its selected copies by shard.

In: a split and its part of the selection. Out: spill files (Arrow IPC, one batch per shard that gets
something), `split-*.npy` with what went where, and `split-*.json`, written last, which says that the split
is done. A copy knows its shard from its own time (`order.py`), so nothing is shared between splits. Spills
carry the user's columns, the `quadmix` struct and the key of the document.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.io.atomic import read_value, write_array, write_json
from quadmix.io.faults import fault_point
from quadmix.io.tables import write_batches
from quadmix.materialise.checksum import mix_rows
from quadmix.materialise.chosen import Chosen, SplitTask, WrittenSplit, read_chosen, selected_rows
from quadmix.materialise.order import copy_times, shard_of
from quadmix.materialise.plan import STRUCT, disk_room
from quadmix.types import Ints

SPILL_BYTES = 64_000_000
KEY = f"{STRUCT}.key"  # a column of spills only


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Held:
    """Copies on their way into one spill file, and the shard of each."""

    rows: pa.RecordBatch
    shards: Ints


def spill_name(split: int, number: int) -> str:
    """Return the name of a split's spill file."""
    return f"split-{split:05d}-{number:05d}.arrow"


def spill_split(task: SplitTask) -> WrittenSplit:
    """Spill the selected copies of one split; a split that is done is not read again.

    split-*.npy is (F + 1, K) uint64 for F spill files and K shards: rows of each file and shard, and in the
    last row the sum mod 2^64 of a hash of (key, copy_index) over the copies of each shard.
    """
    if task.record.is_file() and task.gathered:
        return read_value(task.record, WrittenSplit)
    chosen = read_chosen(task)
    sums = np.zeros(task.plan.shards, dtype=np.uint64)
    counts: list[NDArray[np.uint64]] = []
    with disk_room(Path(task.work), task.plan.text_bytes):
        for held in _gather(_by_shard(task, chosen, sums)):
            counts.append(_write(task, chosen, held, len(counts)))
            fault_point("materialise.spill")
        write_array(task.record.with_suffix(".npy"), np.stack([*counts, sums]))
        result = chosen.counted(task)
        write_json(task.record, result)
    fault_point("materialise.split")
    return result


def _by_shard(task: SplitTask, chosen: Chosen, sums: NDArray[np.uint64]) -> Iterator[_Held]:
    """Yield the selected rows with the shard of each, and add their hashes to `sums`."""
    for piece in selected_rows(task, chosen):
        keys, copies = chosen.keys[piece.document], chosen.copies[piece.document]
        times = copy_times(task.plan.seed, keys, piece.copy_index, copies)
        shards = shard_of(times, task.plan.shards)
        np.add.at(sums, shards, mix_rows(keys, [piece.copy_index]))
        yield _Held(rows=piece.rows.append_column(KEY, pa.array(keys)), shards=shards)


def _gather(pieces: Iterator[_Held]) -> Iterator[_Held]:
    """Join small pieces into ones of about SPILL_BYTES; the last one is whatever is left."""
    held: list[_Held] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += piece.rows.nbytes
        if size >= SPILL_BYTES:
            yield _join(held)
            held, size = [], 0
    if held:
        yield _join(held)


def _join(held: list[_Held]) -> _Held:
    return _Held(
        rows=pa.concat_batches([h.rows for h in held]), shards=np.concatenate([h.shards for h in held])
    )


def _write(task: SplitTask, chosen: Chosen, held: _Held, number: int) -> NDArray[np.uint64]:
    """Write one spill file and return (K,) its rows per shard."""
    order = np.argsort(held.shards, kind="stable")
    counts = np.bincount(held.shards, minlength=task.plan.shards)
    ends = np.cumsum(counts)
    batches = (held.rows.take(pa.array(order[ends[k] - counts[k] : ends[k]])) for k in np.flatnonzero(counts))
    path = Path(task.work) / spill_name(task.split, number)
    write_batches(path, chosen.schema.append(pa.field(KEY, pa.uint64())), batches)
    return counts.astype(np.uint64)
