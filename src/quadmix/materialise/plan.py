"""What will be written: format, order, shards, what a row looks like, and how much disk it takes.

In: the corpus, the selection's manifest, the recipe's section. Out: a `DatasetPlan`, which names its own
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
from quadmix.io.atomic import value_digest
from quadmix.io.tables import ZSTD, parquet_codec
from quadmix.materialise.table import SelectionManifest
from quadmix.recipe import MaterialiseSection
from quadmix.types import Corpus

STRUCT = "quadmix"
MAX_SHARD_BYTES = 1_000_000_000  # a shard is sorted in memory
GROUP_ROWS = 10_000
GROUP_BYTES = 64_000_000  # the row groups of long documents hold fewer rows
INDEX_SCHEMA = pa.schema([("doc_id", pa.string()), ("copies", pa.int32())])
_VERSION = 2  # of the bytes that a plan leads to


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPlan:
    """What will be written, and its key. text_bytes: expected, over `copies` rows; 0 for an index.

    shards: of the shuffle, by time; in corpus order there is one file per split that has selected rows.
    codec: of Parquet columns.
    """

    key: str
    format: Literal["parquet", "jsonl.zst", "index"]
    order: Literal["shuffled", "corpus"]
    codec: str
    seed: int
    shards: int
    copies: int
    text_bytes: int

    @property
    def group_rows(self) -> int:
        """Rows of a row group."""
        return max(1, min(GROUP_ROWS, GROUP_BYTES * self.copies // max(1, self.text_bytes)))

    def name(self, number: int) -> str:
        """Return the file name of a shard, or of a split in corpus order."""
        return f"part-{number:05d}.{'parquet' if self.format == 'index' else self.format}"


def make_plan(
    corpus: Corpus, selection: SelectionManifest, section: MaterialiseSection, seed: int
) -> DatasetPlan:
    """Say what is to be written; a shuffle has shards of about `shard_bytes` of text (1 GB at most)."""
    copies = sum(p.copies for p in selection.parts)
    if not copies:
        raise BudgetError(
            "the selection holds no document at all, expected at least one; "
            "raise budget.tokens or budget.share (all documents were dropped or excluded)"
        )
    index = section.format == "index"
    order = "corpus" if index else section.order
    text_bytes = 0 if index else _expected_bytes(corpus, selection)
    shards = -(-text_bytes // min(section.shard_bytes, MAX_SHARD_BYTES)) if order == "shuffled" else 1
    codec = _codec(corpus) if section.format == "parquet" else ZSTD
    asked = {
        "corpus": corpus.digest,
        "selection": selection.digest,
        "format": section.format,
        "order": order,
        "codec": codec,
        "shard_bytes": section.shard_bytes if order == "shuffled" else 0,
        "seed": seed,
        "version": _VERSION,
    }
    return DatasetPlan(
        key=value_digest(asked),
        format=section.format,
        order=order,
        codec=codec,
        seed=seed,
        shards=min(copies, max(1, shards)),
        copies=copies,
        text_bytes=text_bytes,
    )


def _expected_bytes(corpus: Corpus, selection: SelectionManifest) -> int:
    """Return the text that will be written, from that of the corpus and the share of its tokens."""
    domains = [d for p in selection.parts for d in p.domains]
    tokens_in = sum(d.tokens_in for d in domains)
    text_bytes = sum(c.text_bytes for c in corpus.counts)
    return round(text_bytes * sum(d.tokens_out for d in domains) / max(1, tokens_in))


def _codec(corpus: Corpus) -> str:
    """Return the compression of the text in the first Parquet file of the corpus, zstd if there is none."""
    first = next((s.path for s in corpus.splits if s.format == "parquet"), None)
    return ZSTD if first is None else parquet_codec(first, corpus.columns.text)


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
