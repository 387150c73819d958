"""The shards of a dataset against their manifest and the selection: files, rows, copies and order.

In: dataset/, its manifest and the selection. Out: `ShardsFound`. The numbers of one shard are in memory at a
time, text never; where the rows are not those of the selection, a second pass names documents.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadmix.io.atomic import file_digest
from quadmix.materialise.audit import Advance, copies_of
from quadmix.materialise.checks import Check
from quadmix.materialise.checksum import BUCKETS, Sums, bucket_of, checksum, mix_rows
from quadmix.materialise.order import copy_times, shard_of, shard_order
from quadmix.materialise.publish import is_published
from quadmix.materialise.stored import StoredRows, numbers_of, read_stored
from quadmix.materialise.table import SelectionManifest, read_part
from quadmix.types import DatasetManifest, Ints

NAMED = 5
BUCKET_ROWS = 4_000_000  # rows that the naming pass holds at a time


@dataclass(slots=True, kw_only=True, eq=False)
class ShardsFound:
    """What was added up over the shards.

    files: one check per shard. miscounted: shards with other rows or tokens than recorded. unordered: shards
    whose rows are not in the order of the dataset. touching: neighbours that are copies of one document,
    beyond what no order can avoid. places, numbers: as in `PartsFound`. away: shards that were published and
    are not kept here, whose rows cannot be read.
    """

    files: list[Check] = field(default_factory=list[Check])
    miscounted: list[str] = field(default_factory=list[str])
    unordered: list[str] = field(default_factory=list[str])
    away: int = 0
    rows: int = 0
    tokens: int = 0
    touching: int = 0
    places: Sums
    numbers: Sums

    @property
    def whole(self) -> bool:
        """Whether all files are here and sound, so that their rows were read."""
        return not self.away and all(c.ok for c in self.files)


def audit_shards(
    folder: Path, manifest: DatasetManifest, selection: SelectionManifest, *, whole: bool, advance: Advance
) -> ShardsFound:
    """Hash every shard and read the numbers of its rows; after the first unsound one only hash.

    selection: for the order of the corpus. whole: whether all its parts are sound, so that they can be read.
    """
    found = ShardsFound(
        places=np.zeros((2, BUCKETS), dtype=np.uint64), numbers=np.zeros((2, BUCKETS), dtype=np.uint64)
    )
    line = None
    if manifest.order == "corpus":
        line = _Line(_corpus_order(folder, manifest, selection) if whole else iter(()))
    for place, shard in enumerate(manifest.shards):
        file = folder / "dataset" / shard.name
        if not file.is_file() and is_published(folder, shard):
            found.away += 1
            detail = "published and not kept here: its rows are not recounted"
            found.files.append(Check(name=f"shard {shard.name}", ok=True, detail=detail))
        else:
            found.files.append(_file(file, shard.bytes, shard.digest))
        if found.whole:
            rows = numbers_of(file, manifest.format)
            tokens = int(rows.tokens.sum())
            if len(rows.keys) != shard.rows or (manifest.format != "index" and tokens != shard.tokens):
                found.miscounted.append(shard.name)
            found.rows, found.tokens = found.rows + len(rows.keys), found.tokens + tokens
            found.places += checksum(rows.keys, rows.copy_index)
            found.numbers += checksum(rows.keys, rows.copy_index, rows.copies, rows.tokens)
            found.touching += _touching(rows.keys)
            in_order = line.follows(rows) if line else _shuffled(rows, manifest, place)
            if not in_order:
                found.unordered.append(shard.name)
        advance(shard.bytes)
    return found


def _file(file: Path, size: int, digest: str) -> Check:
    name = f"shard {file.name}"
    if not file.is_file():
        return Check(name=name, ok=False, detail="the file is missing")
    got, found = file.stat().st_size, file_digest(file)
    return Check(
        name=name,
        ok=(got, found) == (size, digest),
        detail=f"{got:,} bytes, digest {found}, recorded {digest}",
    )


def _touching(keys: NDArray[np.uint64]) -> int:
    """Return how many neighbours are copies of one document beyond what its share of the shard enforces."""
    touching = int((keys[1:] == keys[:-1]).sum())
    if not touching:
        return 0
    most = int(np.unique(keys, return_counts=True)[1].max())
    return touching - max(0, most - (len(keys) - most) - 1)


def _shuffled(rows: StoredRows, manifest: DatasetManifest, place: int) -> bool:
    """Return whether the rows are those of this shard, in its order, by their own numbers."""
    index, copies = rows.copy_index.astype(np.int32), np.maximum(rows.copies, 1).astype(np.int32)
    times = copy_times(manifest.seed, rows.keys, index, copies)
    if (shard_of(times, len(manifest.shards)) != place).any():
        return False
    order = shard_order(rows.keys, index, times)
    return np.array_equal(rows.keys[order], rows.keys) and np.array_equal(index[order], index)


def _corpus_order(
    folder: Path, manifest: DatasetManifest, selection: SelectionManifest
) -> Iterator[StoredRows]:
    for part in selection.parts:
        yield copies_of(read_part(folder, part.split), manifest.format)[0]


class _Line:
    """The rows that a dataset in corpus order must hold next; parts and shards are cut at other places."""

    def __init__(self, parts: Iterator[StoredRows]) -> None:
        self._parts = parts
        self._keys = np.empty(0, dtype=np.uint64)
        self._copy_index = np.empty(0, dtype=np.int64)

    def follows(self, rows: StoredRows) -> bool:
        """Return whether `rows` are the next ones, and step over as many."""
        size = len(rows.keys)
        while len(self._keys) < size and (part := next(self._parts, None)) is not None:
            self._keys = np.concatenate([self._keys, part.keys])
            self._copy_index = np.concatenate([self._copy_index, part.copy_index])
        same = np.array_equal(self._keys[:size], rows.keys)
        same &= np.array_equal(self._copy_index[:size], rows.copy_index)
        self._keys, self._copy_index = self._keys[size:], self._copy_index[size:]
        return same


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Documents whose rows are not those of the selection. names: of the first ones, with what is wrong.

    complete: whether all of them were counted.
    """

    documents: int
    unknown_rows: int
    names: tuple[str, ...]
    complete: bool


def name_differences(
    folder: Path, manifest: DatasetManifest, selection: SelectionManifest, buckets: Ints
) -> Difference:
    """Read selection and dataset again for the documents of `buckets`, the ones whose checksums differ.

    As many buckets are looked at as hold BUCKET_ROWS rows together, at least one.
    """
    total = manifest.ledger.copies + sum(s.rows for s in manifest.shards)
    taken = buckets[: max(1, BUCKET_ROWS * BUCKETS // max(1, total))]
    wanted = np.zeros(BUCKETS, dtype=np.bool_)
    wanted[taken] = True
    expected = _Gathered()
    for part in selection.parts:
        table = read_part(folder, part.split)
        rows, document = copies_of(table, manifest.format)
        mine = np.flatnonzero(wanted[bucket_of(rows.keys)])
        expected.add(rows, mine, table.doc_id.take(document[mine]).to_pylist())
    found = _Gathered()
    for shard in manifest.shards:
        for rows in read_stored(folder / "dataset" / shard.name, manifest.format):
            mine = np.flatnonzero(wanted[bucket_of(rows.keys)])
            found.add(rows, mine, [rows.doc_id[i] for i in mine.tolist()])
    return _compare(expected, found, complete=len(taken) == len(buckets))


class _Gathered:
    """Rows of some buckets, by document: how many, and the sum of their hashes."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self.sums: dict[str, int] = {}

    def add(self, rows: StoredRows, mine: Ints, ids: list[str]) -> None:
        columns = [c[mine] for c in (rows.copy_index, rows.copies, rows.tokens)]
        for name, mixed in zip(ids, mix_rows(rows.keys[mine], columns).tolist(), strict=True):
            self.count[name] = self.count.get(name, 0) + 1
            self.sums[name] = (self.sums.get(name, 0) + mixed) % 2**64


def _compare(expected: _Gathered, found: _Gathered, *, complete: bool) -> Difference:
    names: list[str] = []
    documents = unknown = 0
    for name in sorted(expected.count.keys() | found.count.keys()):
        if expected.sums.get(name) == found.sums.get(name):
            continue
        wanted, got = expected.count.get(name, 0), found.count.get(name, 0)
        documents += wanted > 0
        unknown += 0 if wanted else got
        if len(names) < NAMED:
            why = "copy_index, copies or tokens differ" if wanted == got else f"{got} rows, expected {wanted}"
            names.append(f"{name!r} ({why})")
    return Difference(documents=documents, unknown_rows=unknown, names=tuple(names), complete=complete)
