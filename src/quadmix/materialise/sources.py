"""dataset/sources.json: from how many sources the tokens come, before and after, and the largest of them.

In: `part-*-sources.npy` of all splits, each sorted by the hash of the source's name. Out: `SourceFacts`. All
counts are exact: the files are added up range by range of hashes, so memory is that of one range of about
BUCKET_ROWS rows (some 400 bytes each at the peak) whatever the number of sources. Two of a hundred
million sources share a 64-bit hash with a chance of 3 in 10,000 and would count as one. For the Gini
coefficient sources are grouped by tokens, to 1 part in 1024, which makes it at most 0.0003 too low.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.io.atomic import map_array
from quadmix.io.tables import read_batch
from quadmix.materialise.gather import COUNTS, facts_file
from quadmix.rng import doc_keys
from quadmix.types import Floats, Ints
from quadmix.types.facts import Concentration, SourceCount, SourceFacts

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
BUCKET_ROWS = 500_000
TOP = 50  # of each side
UNNAMED = doc_keys([""])[0]
_SIDES = ("in", "out")


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketTask:
    """The rows of all splits whose hash begins with the `bits` bits of `bucket`; splits: in order."""

    work: str
    splits: tuple[int, ...]
    suffix: str
    bucket: int
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BucketRows:
    """Rows of one range, by hash, inside it by split. split, place: where each stands. starts: of hashes."""

    rows: NDArray[Any]
    split: Ints
    place: Ints
    starts: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceBucket:
    """What one range of sources holds. sums: per side sources, documents, tokens, Σ tokens², largest.

    bins: per side (bins, 3): group by tokens, sources, tokens. top: (T, 3 + 5) hash, split and place of a
    name, counts. unnamed: (5,).
    """

    sums: tuple[tuple[float, ...], ...]
    bins: tuple[Floats, ...]
    top: list[tuple[int, ...]]
    unnamed: tuple[int, ...]


def bucket_tasks(work: str, splits: Sequence[int], suffix: str, rows: int = BUCKET_ROWS) -> list[BucketTask]:
    """Return tasks of about `rows` rows each that share out the files of these splits."""
    total = sum(len(map_array(facts_file(work, s, suffix))) for s in splits)
    bits = max(0, (-(-total // rows) - 1)).bit_length()
    return [
        BucketTask(work=work, splits=tuple(splits), suffix=suffix, bucket=b, bits=bits)
        for b in range(1 << bits)
    ]


def run_buckets(function: Callable[[BucketTask], Any], tasks: list[BucketTask], mapper: Mapper) -> list[Any]:
    """Run the tasks, a single one here: a worker takes longer to start."""
    return mapper(function, tasks) if len(tasks) > 1 else [function(task) for task in tasks]


def read_bucket(task: BucketTask) -> BucketRows:
    """Read the rows of one range of hashes."""
    held: list[NDArray[Any]] = []
    split: list[Ints] = []
    place: list[Ints] = []
    for number in task.splits:
        file = map_array(facts_file(task.work, number, task.suffix))
        begin, end = (_edge(file, task.bucket + k, task.bits) for k in (0, 1))
        held.append(np.array(file[begin:end]))
        split.append(np.full(end - begin, number, dtype=np.int64))
        place.append(np.arange(begin, end, dtype=np.int64))
    rows = np.concatenate(held)
    order = np.argsort(rows["hash"], kind="stable")
    rows = rows[order]
    hashes = rows["hash"]
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])[: len(rows)])
    return BucketRows(
        rows=rows, split=np.concatenate(split)[order], place=np.concatenate(place)[order], starts=starts
    )


def _edge(file: NDArray[Any], bucket: int, bits: int) -> int:
    """Return the first row of a range in a file sorted by hash; few pages of it are read."""
    least = bucket << (64 - bits)
    return bisect_left(range(len(file)), least, key=lambda row: int(file[row]["hash"]))


def count_sources(task: BucketTask) -> SourceBucket:
    """Add up one range of sources."""
    found = read_bucket(task)
    starts = found.starts
    counts = np.stack([_sums(found.rows[name], starts) for name in COUNTS], axis=1)
    hashes, split, place = found.rows["hash"][starts], found.split[starts], found.place[starts]
    named = hashes != UNNAMED
    unnamed = tuple(counts[~named].sum(axis=0).tolist())
    hashes, split, place, counts = hashes[named], split[named], place[named], counts[named]
    sides = [(counts[:, 0], counts[:, 1]), (counts[:, 2], counts[:, 4])]
    best = {int(i) for _, tokens in sides for i in np.lexsort((hashes, -tokens))[:TOP] if tokens[i] > 0}
    top = [(int(hashes[i]), int(split[i]), int(place[i]), *counts[i].tolist()) for i in sorted(best)]
    return SourceBucket(
        sums=tuple(_side(documents, tokens) for documents, tokens in sides),
        bins=tuple(_bins(tokens) for _, tokens in sides),
        top=top,
        unnamed=unnamed,
    )


def _sums(values: Ints, starts: Ints) -> Ints:
    return np.add.reduceat(values, starts) if len(starts) else np.empty(0, dtype=np.int64)


def _side(documents: Ints, tokens: Ints) -> tuple[float, ...]:
    exact = tokens.astype(np.float64)
    return (
        int((tokens > 0).sum()), int(documents.sum()), int(tokens.sum()), float(exact @ exact),
        int(tokens.max(initial=0)),
    )  # fmt: skip


def _bins(tokens: Ints) -> Floats:
    """Return (B, 3) group, sources, tokens: tokens up to 2047 are a group each, larger ones share 10 bits."""
    some = tokens[tokens > 0].astype(np.float64)
    groups, place = np.unique(some.view(np.int64) >> 42, return_inverse=True)
    return np.stack(
        [groups, np.bincount(place, minlength=len(groups)), np.bincount(place, some, len(groups))], axis=1
    ).astype(np.float64)


def gini(bins: Sequence[Floats]) -> float:
    """Return the Gini coefficient of sources in groups: (B, 3) group, sources, tokens; NaN without any."""
    rows = np.concatenate([np.empty((0, 3)), *bins])
    groups, place = np.unique(rows[:, 0], return_inverse=True)
    if not len(groups):
        return float("nan")
    number = np.bincount(place, rows[:, 1], len(groups))
    below = np.concatenate([[0.0], np.cumsum(np.bincount(place, rows[:, 2], len(groups)))])
    return float(1.0 - (number * (below[1:] + below[:-1])).sum() / (number.sum() * below[-1]))


def source_facts(work: str, splits: Sequence[int], column: str, mapper: Mapper, plan: str) -> SourceFacts:
    """Add up the sources of all splits. plan: of the manifest."""
    buckets: list[SourceBucket] = run_buckets(
        count_sources, bucket_tasks(work, splits, "-sources.npy"), mapper
    )
    before, after = (_concentration(buckets, side) for side in range(len(_SIDES)))
    unnamed = [sum(values) for values in zip(*(b.unnamed for b in buckets), strict=True)]
    rows = [row for b in buckets for row in b.top]
    kept = {row[0] for k in (4, 7) for row in sorted(rows, key=lambda r: (-r[k], r[0]))[:TOP]}
    top = sorted((r for r in rows if r[0] in kept), key=lambda r: (-r[7], -r[4], r[0]))
    return SourceFacts(
        plan=plan, column=column, reason="", unnamed=_count("", unnamed), before=before, after=after,
        top=tuple(_count(_name(work, row[1], row[2]), row[3:]) for row in top),
    )  # fmt: skip


def no_sources(plan: str, reason: str) -> SourceFacts:
    """Return the file of a dataset whose sources were not counted."""
    none = Concentration(
        sources=0, documents=0, tokens=0, effective=float("nan"), gini=float("nan"), largest=float("nan")
    )
    return SourceFacts(
        plan=plan, column="", reason=reason, unnamed=_count("", [0] * len(COUNTS)), before=none,
        after=none, top=(),
    )  # fmt: skip


def _concentration(buckets: Sequence[SourceBucket], side: int) -> Concentration:
    sources, documents, tokens, squares = (sum(b.sums[side][k] for b in buckets) for k in range(4))
    most = max(b.sums[side][4] for b in buckets)
    return Concentration(
        sources=int(sources),
        documents=int(documents),
        tokens=int(tokens),
        effective=float(tokens) ** 2 / squares if squares else float("nan"),
        gini=gini([b.bins[side] for b in buckets]),
        largest=most / tokens if tokens else float("nan"),
    )


def _count(name: str, counts: Sequence[int]) -> SourceCount:
    return SourceCount(source=name, **dict(zip(COUNTS, map(int, counts), strict=True)))


def _name(work: str | Path, split: int, place: int) -> str:
    return read_batch(facts_file(work, split, "-names.arrow"), 0)["name"][place].as_py()
