"""What two selections share, counted in bounded memory.

In: two run folders with their selection manifests. Out: an `Overlap` of sums and a few examples. Where row k
of part p is the same document in both runs, one part of each is in memory (`by_parts`); otherwise the
selected documents whose id hashes into one bucket, and all parts are read once per bucket (`by_buckets`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.errors import IntegrityError
from quadmix.io.atomic import read_table
from quadmix.io.tables import read_slice
from quadmix.materialise.table import SELECTION, SelectionManifest, part_name
from quadmix.types import Floats, Ints

EXAMPLES = 10
BUCKET_DOCUMENTS = 8_000_000  # selected documents of both runs in memory at a time, about 50 bytes each
Folders = tuple[Path, Path]
Manifests = tuple[SelectionManifest, SelectionManifest]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlap:
    """Documents: both, only_a, only_b, other_copies (in both, with other copies). shared, union: Σ over all
    of the smaller and the larger tokens x copies. examples: ids of those only in one with the most of them.

    scores, weights: (M, N) Σ tokens x copies x normalised score and Σ tokens x copies, where a score is.
    """

    both: int
    only_a: int
    only_b: int
    other_copies: int
    shared: float
    union: float
    examples_a: tuple[str, ...]
    examples_b: tuple[str, ...]
    scores_a: Floats
    scores_b: Floats
    weights_a: Floats
    weights_b: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Documents:
    """Documents of one run: hash, tokens x copies, copies, and the (split, row) of each."""

    key: NDArray[np.uint64]
    weight: Ints
    copies: Ints
    split: Ints
    row: Ints


@dataclass(slots=True, kw_only=True)
class _Sums:
    """What is added up. heavy: of the documents only in A, only in B those with the most tokens x copies, as
    (-tokens x copies, split, row)."""

    both: int = 0
    only: list[int] = field(default_factory=lambda: [0, 0])
    other_copies: int = 0
    shared: int = 0
    union: int = 0
    heavy: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]] = field(
        default_factory=lambda: ([], [])
    )


def by_parts(folders: Folders, manifests: Manifests) -> Overlap:
    """Compare runs over the same corpus, whose parts hold the same documents in the same order."""
    sums = _Sums()
    for part in manifests[0].parts:
        a, b = (_documents(folder, part.split) for folder in folders)
        if not np.array_equal(a.key, b.key):
            raise IntegrityError(
                f"part {part.split} of {folders[0]} and of {folders[1]} hold other documents, expected the "
                "same ones in the same order over one corpus; run `quadmix verify` on both"
            )
        _add(sums, a, b)
    return _overlap(sums, folders, manifests)


def by_buckets(
    folders: Folders, manifests: Manifests, *, bucket_documents: int = BUCKET_DOCUMENTS
) -> Overlap:
    """Compare any two runs by the hash of the document id."""
    selected = sum(p.selected for m in manifests for p in m.parts)
    buckets = max(1, -(-selected // bucket_documents))
    sums = _Sums()
    for bucket in range(buckets):
        a, b = (
            _gather(folder, manifest, bucket, buckets)
            for folder, manifest in zip(folders, manifests, strict=True)
        )
        keys = np.union1d(a.key, b.key)
        _add(sums, _spread(a, keys), _spread(b, keys))
    return _overlap(sums, folders, manifests)


def _documents(folder: Path, split: int) -> _Documents:
    table = read_table(folder / SELECTION / part_name(split), columns=["key", "tokens", "copies"])
    copies = table["copies"].to_numpy().astype(np.int64)
    return _Documents(
        key=table["key"].to_numpy(),
        weight=table["tokens"].to_numpy().astype(np.int64) * copies,
        copies=copies,
        split=np.full(len(copies), split, dtype=np.int64),
        row=np.arange(len(copies), dtype=np.int64),
    )


def _take(documents: _Documents, rows: NDArray[np.bool_] | Ints) -> _Documents:
    return _Documents(
        key=documents.key[rows],
        weight=documents.weight[rows],
        copies=documents.copies[rows],
        split=documents.split[rows],
        row=documents.row[rows],
    )


def _gather(folder: Path, manifest: SelectionManifest, bucket: int, buckets: int) -> _Documents:
    """Return the selected documents of one bucket by key; several with one id are one."""
    parts: list[_Documents] = []
    for part in manifest.parts:
        rows = _documents(folder, part.split)
        parts.append(_take(rows, (rows.copies > 0) & (rows.key % np.uint64(buckets) == np.uint64(bucket))))
    key = np.concatenate([np.empty(0, dtype=np.uint64), *(p.key for p in parts)])
    columns = [
        np.concatenate([np.empty(0, dtype=np.int64), *(getattr(p, name) for p in parts)])
        for name in ("weight", "copies", "split", "row")
    ]
    keys, first, place = np.unique(key, return_index=True, return_inverse=True)
    weight, copies = np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.int64)
    np.add.at(weight, place, columns[0])
    np.add.at(copies, place, columns[1])
    return _Documents(key=keys, weight=weight, copies=copies, split=columns[2][first], row=columns[3][first])


def _spread(documents: _Documents, keys: NDArray[np.uint64]) -> _Documents:
    """Return one row per key (ascending), with 0 copies where the run does not select the document."""
    place = np.searchsorted(keys, documents.key)

    def full(values: Ints) -> Ints:
        out = np.zeros(len(keys), dtype=np.int64)
        out[place] = values
        return out

    return _Documents(
        key=keys,
        weight=full(documents.weight),
        copies=full(documents.copies),
        split=full(documents.split),
        row=full(documents.row),
    )


def _add(sums: _Sums, a: _Documents, b: _Documents) -> None:
    """Count aligned rows."""
    both = (a.copies > 0) & (b.copies > 0)
    sums.both += int(both.sum())
    sums.other_copies += int((both & (a.copies != b.copies)).sum())
    sums.shared += int(np.minimum(a.weight, b.weight).sum())
    sums.union += int(np.maximum(a.weight, b.weight).sum())
    for side, (mine, other) in enumerate(((a, b), (b, a))):
        only = _take(mine, (mine.copies > 0) & (other.copies == 0))
        sums.only[side] += len(only.key)
        first = np.lexsort((only.row, only.split, -only.weight))[:EXAMPLES]
        heavy = zip(
            (-only.weight[first]).tolist(), only.split[first].tolist(), only.row[first].tolist(), strict=True
        )
        sums.heavy[side][:] = sorted([*sums.heavy[side], *heavy])[:EXAMPLES]


def _overlap(sums: _Sums, folders: Folders, manifests: Manifests) -> Overlap:
    (scores_a, weights_a), (scores_b, weights_b) = (
        _score_sums(folder, manifest) for folder, manifest in zip(folders, manifests, strict=True)
    )
    return Overlap(
        both=sums.both,
        only_a=sums.only[0],
        only_b=sums.only[1],
        other_copies=sums.other_copies,
        shared=float(sums.shared),
        union=float(sums.union),
        examples_a=_ids(folders[0], sums.heavy[0]),
        examples_b=_ids(folders[1], sums.heavy[1]),
        scores_a=scores_a,
        scores_b=scores_b,
        weights_a=weights_a,
        weights_b=weights_b,
    )


def _ids(folder: Path, heavy: Sequence[tuple[int, int, int]]) -> tuple[str, ...]:
    return tuple(
        read_slice(folder / SELECTION / part_name(split), row, row + 1, columns=["doc_id"])["doc_id"][
            0
        ].as_py()
        for _, split, row in heavy
    )


def _score_sums(folder: Path, manifest: SelectionManifest) -> tuple[Floats, Floats]:
    """Return (M, N) Σ tokens x copies x normalised score, and the Σ tokens x copies of those that have it."""
    shape = (len(manifest.info.domains), len(manifest.info.criteria))
    sums, weights = np.zeros(shape), np.zeros(shape)
    names = [f"norm:{c.name}" for c in manifest.info.criteria]
    for table in _selected_tables(folder, manifest, ["domain", "tokens", "copies", *names]):
        labels = table["domain"].combine_chunks().dictionary_encode()
        places = np.array(
            [manifest.info.domains.index(d) for d in labels.dictionary.to_pylist()], dtype=np.int64
        )
        domain = places[labels.indices.to_numpy()] if len(places) else np.empty(0, dtype=np.int64)
        weight = table["tokens"].to_numpy().astype(np.float64) * table["copies"].to_numpy()
        for n, name in enumerate(names):
            score = table[name].to_numpy().astype(np.float64)
            known = ~np.isnan(score)
            parts = (weight[known] * score[known], weight[known])
            sums[:, n] += np.bincount(domain[known], weights=parts[0], minlength=shape[0])
            weights[:, n] += np.bincount(domain[known], weights=parts[1], minlength=shape[0])
    return sums, weights


def _selected_tables(folder: Path, manifest: SelectionManifest, columns: list[str]) -> Iterator[pa.Table]:
    """Yield the rows with copies, part by part."""
    for part in manifest.parts:
        if part.selected:
            table = read_table(folder / SELECTION / part.name, columns=columns)
            yield table.filter(pa.array(table["copies"].to_numpy() > 0))
