"""Phase 2 of writing: merge the spills of one shard, sort by place, commit one file of the dataset.

In: spill files and the shard's range of places. Out: part-*.parquet or part-*.jsonl.zst, whole or absent, and
a record beside the spills so that a finished shard is not written twice. Every place of the range must
be there exactly once, which is conservation per shard (promise P4), before the file becomes visible.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from quadmix.corpus.read import user_rows
from quadmix.errors import IntegrityError
from quadmix.io.atomic import file_digest, read_value, write_json
from quadmix.io.faults import fault_point
from quadmix.io.tables import read_group, write_groups
from quadmix.io.writers import write_jsonl_zst
from quadmix.materialise.plan import POSITION, STRUCT, DatasetPlan, disk_room
from quadmix.types import Ints, ShardInfo

GROUP_BYTES = 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillGroup:
    """One row group of one spill file."""

    name: str
    group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTask:
    """One shard of the dataset and the row groups that hold its copies. folder: where the spills are."""

    plan: DatasetPlan
    shard: int
    folder: str
    dataset: str
    sources: tuple[SpillGroup, ...]


def write_part(task: PartTask) -> ShardInfo:
    """Write one shard; a shard whose record fits the file on disk is left as it is."""
    name = task.plan.name(task.shard)
    path = Path(task.dataset) / name
    record = Path(task.folder) / f"part-{task.shard:05d}.json"
    if record.is_file() and path.is_file():
        done = read_value(record, ShardInfo)
        if file_digest(path) == done.digest:
            return done
    with disk_room(path, 2 * task.plan.text_bytes // task.plan.shards):
        table, order = _merge(task)
        tokens = _tokens(table)
        table = table.drop_columns([POSITION])
        rows = _commit(path, table, order, task.plan)
        if rows != len(order):
            raise IntegrityError(f"{path} holds {rows} rows, expected {len(order)}")
        fault_point("materialise.after_part")
        size = path.stat().st_size
        info = ShardInfo(name=name, rows=rows, bytes=size, digest=file_digest(path), tokens=tokens)
        write_json(record, info)
    return info


def _merge(task: PartTask) -> tuple[pa.Table, Ints]:
    """Return the shard's copies as spilled, and the row order that sorts them by place."""
    table = pa.concat_tables([read_group(Path(task.folder) / s.name, s.group) for s in task.sources])
    places = table[POSITION].to_numpy()
    order = np.argsort(places).astype(np.int64)
    start, stop = task.plan.bound(task.shard), task.plan.bound(task.shard + 1)
    if not np.array_equal(places[order], np.arange(start, stop)):
        raise IntegrityError(
            f"shard {task.shard} has {len(places)} copies at {len(np.unique(places))} places, expected one "
            f"at each of the {stop - start} places {start}..{stop - 1}; nothing was committed: remove "
            f"{task.folder} and run the same command again"
        )
    return table, order


def _tokens(table: pa.Table) -> int:
    tokens = pc.call_function("struct_field", [table[STRUCT]], pc.StructFieldOptions("tokens"))
    return int(tokens.to_numpy().sum(dtype=np.int64))


def _commit(path: Path, table: pa.Table, order: Ints, plan: DatasetPlan) -> int:
    # Row groups of about GROUP_BYTES, cut by the plan and not by how the spills happened to be chunked.
    step = max(1, GROUP_BYTES * plan.copies // max(1, plan.text_bytes))
    if plan.format == "parquet":
        return write_groups(path, table.schema, _ordered(table, order, step))
    return write_jsonl_zst(path, _lines(table, order, step))


def _ordered(table: pa.Table, order: Ints, step: int) -> Iterator[pa.Table]:
    for start in range(0, len(order), step):
        yield table.take(pa.array(order[start : start + step]))
    fault_point("materialise.before_part")


def _lines(table: pa.Table, order: Ints, step: int) -> Iterator[bytes]:
    for group in _ordered(table, order, step):
        for batch in group.combine_chunks().to_batches():
            for row in user_rows(batch):
                yield _line(row)


def _line(row: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, default=_plain)
    except TypeError:  # an integer beyond 64 bits, which only the slow writer knows
        return json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> str:
    """Give what JSON lacks a text: bytes as base64, decimals and durations as written."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
