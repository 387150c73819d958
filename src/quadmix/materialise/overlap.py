"""What two selections share, counted in bounded memory.

In: two run folders with their selection manifests. Out: an `Overlap` of sums, a few examples and a sample.
Where row k of part p is the same document in both runs, one part of each is in memory (`by_parts`);
otherwise the documents whose id hashes into one bucket, and all parts are read once per bucket
(`by_buckets`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.errors import IntegrityError
from quadmix.io.atomic import read_table
from quadmix.io.tables import read_slice
from quadmix.materialise.table import SELECTION, SelectionManifest, part_name
from quadmix.rng import keyed_uniform
from quadmix.types import Floats, Ints
from quadmix.types.diffing import State

EXAMPLES = 10
BUCKET_DOCUMENTS = 8_000_000  # documents of both runs in memory at a time, about 100 bytes each
STATES: tuple[State, ...] = ("absent", "excluded", "not drawn", "kept")
_EXCLUDED, _NOT_DRAWN, _KEPT = 1, 2, 3  # places in STATES
Folders = tuple[Path, Path]
Manifests = tuple[SelectionManifest, SelectionManifest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """A document of the sample and where it stands in its run."""

    doc_id: str
    split: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlap:
    """Documents: both, only_a, only_b, other_copies (in both, with other copies). shared, union: Σ over all
    of the smaller and the larger tokens x copies. examples: ids of those only in one with the most of them.
    picked: a sample of those only in one, all with the same chance, in the order of their hash.

    documents, tokens: (4, 4) by STATES in A and in B; tokens once per document, as A counts them or else B.
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
    picked_a: tuple[Picked, ...]
    picked_b: tuple[Picked, ...]
    documents: Ints
    tokens: Ints
    scores_a: Floats
    scores_b: Floats
    weights_a: Floats
    weights_b: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Documents:
    """Documents of one run: hash, state (place in STATES), tokens, tokens x copies, copies, and the (split,
    row) of each."""

    key: NDArray[np.uint64]
    state: Ints
    tokens: Ints
    weight: Ints
    copies: Ints
    split: Ints
    row: Ints


_NONE = np.empty(0, dtype=np.int64)
_EMPTY = _Documents(
    key=_NONE.astype(np.uint64), state=_NONE, tokens=_NONE, weight=_NONE, copies=_NONE, split=_NONE, row=_NONE
)


@dataclass(slots=True, kw_only=True)
class _Sums:
    """What is added up. heavy: of the documents only in A, only in B those with the most tokens x copies, as
    (-tokens x copies, split, row). picked: the `sample` of them with the smallest hash of `seed` and id, as
    (hash, split, row). documents, tokens: (4, 4) by states."""

    sample: int
    seed: int
    both: int = 0
    only: list[int] = field(default_factory=lambda: [0, 0])
    other_copies: int = 0
    shared: int = 0
    union: int = 0
    heavy: tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]] = field(
        default_factory=lambda: ([], [])
    )
    picked: tuple[list[tuple[float, int, int]], list[tuple[float, int, int]]] = field(
        default_factory=lambda: ([], [])
    )
    documents: Ints = field(default_factory=lambda: np.zeros((len(STATES),) * 2, dtype=np.int64))
    tokens: Ints = field(default_factory=lambda: np.zeros((len(STATES),) * 2, dtype=np.int64))


def by_parts(folders: Folders, manifests: Manifests, *, sample: int = 0, seed: int = 0) -> Overlap:
    """Compare runs over the same corpus, whose parts hold the same documents in the same order."""
    sums = _Sums(sample=sample, seed=seed)
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
    folders: Folders,
    manifests: Manifests,
    *,
    sample: int = 0,
    seed: int = 0,
    bucket_documents: int = BUCKET_DOCUMENTS,
) -> Overlap:
    """Compare any two runs by the hash of the document id."""
    documents = sum(p.documents for m in manifests for p in m.parts)
    buckets = max(1, -(-documents // bucket_documents))
    sums = _Sums(sample=sample, seed=seed)
    for bucket in range(buckets):
        a, b = (
            _gather(folder, manifest, bucket, buckets)
            for folder, manifest in zip(folders, manifests, strict=True)
        )
        keys = np.union1d(a.key, b.key)
        _add(sums, _spread(a, keys), _spread(b, keys))
    return _overlap(sums, folders, manifests)


def _documents(folder: Path, split: int) -> _Documents:
    columns = ["key", "tokens", "copies", "excluded"]
    table = read_table(folder / SELECTION / part_name(split), columns=columns)
    copies = table["copies"].to_numpy().astype(np.int64)
    tokens = table["tokens"].to_numpy().astype(np.int64)
    open_rows = table["excluded"].is_null().to_numpy()
    return _Documents(
        key=table["key"].to_numpy(),
        state=np.where(copies > 0, _KEPT, np.where(open_rows, _NOT_DRAWN, _EXCLUDED)).astype(np.int64),
        tokens=tokens,
        weight=tokens * copies,
        copies=copies,
        split=np.full(len(copies), split, dtype=np.int64),
        row=np.arange(len(copies), dtype=np.int64),
    )


def _take(documents: _Documents, rows: NDArray[np.bool_] | Ints) -> _Documents:
    return _Documents(**{f.name: getattr(documents, f.name)[rows] for f in fields(documents)})


def _gather(folder: Path, manifest: SelectionManifest, bucket: int, buckets: int) -> _Documents:
    """Return the documents of one bucket by key; several with one id are one, in the place and with the state
    of the first that is selected, or of the first."""
    parts = [_EMPTY]
    for part in manifest.parts:
        rows = _documents(folder, part.split)
        parts.append(_take(rows, rows.key % np.uint64(buckets) == np.uint64(bucket)))
    joined = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(_Documents)}
    documents = _Documents(**joined)
    documents = _take(documents, np.argsort(-documents.state, kind="stable").astype(np.int64))
    keys, first, place = np.unique(documents.key, return_index=True, return_inverse=True)

    def total(values: Ints) -> Ints:
        sums = np.zeros(len(keys), dtype=np.int64)
        np.add.at(sums, place, values)
        return sums

    found = _take(documents, first.astype(np.int64))
    return replace(
        found,
        tokens=total(documents.tokens),
        weight=total(documents.weight),
        copies=total(documents.copies),
    )


def _spread(documents: _Documents, keys: NDArray[np.uint64]) -> _Documents:
    """Return one row per key (ascending), with 0 copies and state "absent" where the run has no such
    document."""
    place = np.searchsorted(keys, documents.key)

    def full(values: Ints) -> Ints:
        out = np.zeros(len(keys), dtype=np.int64)
        out[place] = values
        return out

    numbers = {f.name: full(getattr(documents, f.name)) for f in fields(documents) if f.name != "key"}
    return _Documents(key=keys, **numbers)


def _add(sums: _Sums, a: _Documents, b: _Documents) -> None:
    """Count aligned rows."""
    both = (a.copies > 0) & (b.copies > 0)
    sums.both += int(both.sum())
    sums.other_copies += int((both & (a.copies != b.copies)).sum())
    sums.shared += int(np.minimum(a.weight, b.weight).sum())
    sums.union += int(np.maximum(a.weight, b.weight).sum())
    np.add.at(sums.documents, (a.state, b.state), 1)
    np.add.at(sums.tokens, (a.state, b.state), np.where(a.state > 0, a.tokens, b.tokens))
    for side, (mine, other) in enumerate(((a, b), (b, a))):
        only = _take(mine, (mine.copies > 0) & (other.copies == 0))
        sums.only[side] += len(only.key)
        sums.heavy[side][:] = _smallest(-only.weight, only, sums.heavy[side], EXAMPLES)
        if sums.sample:
            luck = keyed_uniform(sums.seed, only.key, "diff")
            sums.picked[side][:] = _smallest(luck, only, sums.picked[side], sums.sample)


def _smallest(
    value: NDArray[Any], documents: _Documents, known: list[tuple[Any, int, int]], n: int
) -> list[tuple[Any, int, int]]:
    """Return the n smallest of `known` and the documents, as (value, split, row)."""
    first = np.lexsort((documents.row, documents.split, value))[:n]
    columns = (value, documents.split, documents.row)
    return sorted([*known, *zip(*(c[first].tolist() for c in columns), strict=True)])[:n]


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
        examples_a=tuple(p.doc_id for p in _named(folders[0], sums.heavy[0])),
        examples_b=tuple(p.doc_id for p in _named(folders[1], sums.heavy[1])),
        picked_a=_named(folders[0], sums.picked[0]),
        picked_b=_named(folders[1], sums.picked[1]),
        documents=sums.documents,
        tokens=sums.tokens,
        scores_a=scores_a,
        scores_b=scores_b,
        weights_a=weights_a,
        weights_b=weights_b,
    )


def _named(folder: Path, places: Sequence[tuple[float, int, int]]) -> tuple[Picked, ...]:
    return tuple(
        Picked(
            doc_id=read_slice(folder / SELECTION / part_name(split), row, row + 1, columns=["doc_id"])[
                "doc_id"
            ][0].as_py(),
            split=split,
            row=row,
        )
        for _, split, row in places
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
