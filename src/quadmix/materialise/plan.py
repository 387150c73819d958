"""How the dataset is cut into shards, what a row of it looks like, and how much disk it takes.

In: the corpus, the selection table, the recipe's section. Out: a `DatasetPlan`, which names its own
work, so that the same call after a crash finds what is done and another call never mixes with it.
"""

import errno
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from quadmix.errors import BudgetError, InputError, QuadmixError
from quadmix.io.atomic import file_digest, value_digest
from quadmix.materialise.table import SELECTION, SelectionTable
from quadmix.recipe import MaterialiseSection
from quadmix.types import Corpus

STRUCT = "quadmix"
POSITION = "quadmix.position"  # a column of spills only
MAX_SHARD_BYTES = 1_000_000_000  # a shard is sorted in memory, and Arrow strings end at 2 GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPlan:
    """What will be written. `copies` rows in `shards` files; shard k holds places bound(k)..bound(k + 1)."""

    key: str
    format: Literal["parquet", "jsonl.zst"]
    shards: int
    copies: int
    text_bytes: int

    def bound(self, shard: int) -> int:
        """Return the first place of a shard; bound(shards) is the number of copies."""
        return shard * self.copies // self.shards

    def name(self, shard: int) -> str:
        """Return a shard's file name."""
        return f"part-{shard:05d}.{self.format}"


def make_plan(
    corpus: Corpus, run_folder: Path, table: SelectionTable, section: MaterialiseSection, seed: int
) -> DatasetPlan:
    """Cut the selected copies into shards of about `shard_bytes` of text (1 GB at most)."""
    copies = int(table.copies.sum())
    if not copies:
        raise BudgetError(
            "the selection holds no document at all, expected at least one; "
            "raise budget.tokens or budget.share (all documents were dropped or excluded)"
        )
    text_bytes = sum(c.text_bytes for c in corpus.counts)
    expected = round(text_bytes * table.tokens_out / int(table.tokens.sum(dtype="int64")))
    shards = -(-expected // min(section.shard_bytes, MAX_SHARD_BYTES))
    asked = {
        "corpus": corpus.digest,
        "selection": file_digest(run_folder / SELECTION),
        "format": section.format,
        "shard_bytes": section.shard_bytes,
        "seed": seed,
        "version": 1,
    }
    return DatasetPlan(
        key=value_digest(asked),
        format=section.format,
        shards=min(copies, max(1, shards)),
        copies=copies,
        text_bytes=expected,
    )


def struct_type(criteria: list[str]) -> pa.StructType:
    """Return the type of the one column that is added: why a row is here, and how often.

    scores: normalised, smaller = better, null = missing. rank: middle of the document's interval,
    0 = best of its domain. copy_index: 0..copies-1.
    """
    return pa.struct(
        [
            ("doc_id", pa.string()),
            ("domain", pa.string()),
            ("tokens", pa.int32()),
            ("scores", pa.struct([(name, pa.float32()) for name in criteria])),
            ("merged", pa.float64()),
            ("rank", pa.float64()),
            ("expected_copies", pa.float64()),
            ("copies", pa.int32()),
            ("copy_index", pa.int32()),
        ]
    )


def output_schema(user: pa.Schema, criteria: list[str]) -> pa.Schema:
    """Return the user's columns and the added one; schema metadata of other tools would no longer be true."""
    for name in user.names:
        if name == STRUCT or name.startswith(f"{STRUCT}."):
            raise InputError(
                f"the corpus already has a column {name!r}, which the dataset needs for its own numbers; "
                "rename it (is this corpus the output of an earlier run?)"
            )
    return pa.schema([*user, pa.field(STRUCT, struct_type(criteria))], metadata={"quadmix.format": "1"})


@contextmanager
def disk_room(path: Path, needed: int) -> Generator[None]:
    """Turn "no space left" into an error that says where, how much is needed, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
        raise QuadmixError(
            f"the disk is full at {path}: this step needs about {needed:,} bytes more and {free:,} are free. "
            "Free some space (or move the run folder to a larger disk) and run the same command again; "
            "finished shards are kept, and no half-written file is visible"
        ) from error
