"""One document among its domain, counted again from all parts of the selection, one part in memory at a time.

In: a run folder and a document's domain, merged score and bin. Out: where it stands among the tokens of the
domain, and the domain's factor of the draw. Merged scores: smaller = better.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quadmix.io.atomic import read_table
from quadmix.materialise.table import SELECTION, SelectionManifest
from quadmix.mixing.settle import BINS, Window, count_fractions, factor_of, inside, ratios, window
from quadmix.mixing.tally import RankTable
from quadmix.types import Floats, Ints

_COLUMNS = ["domain", "key", "tokens", "merged", "expected", "excluded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A bin of a domain's merged scores: from `low` up to, but without, `high`; tokens before it, in it, in
    the domain. The first bin begins at minus infinity, the last ends at infinity."""

    low: float
    high: float
    before: int
    tokens: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recount:
    """What the parts say. documents, total: of the domain (selectable only). before, tokens: of the bin.
    better: tokens of strictly smaller merged scores. tied: tokens of the same one. through_key: `better` and
    those of `tied` whose key is not above the document's."""

    documents: int
    total: int
    before: int
    tokens: int
    better: int
    tied: int
    through_key: int
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    key: NDArray[np.uint64]
    tokens: Ints
    merged: Floats
    expected: Floats


def place_of(ranks: RankTable, domain: int, merged: float) -> Place:
    """Return the bin of a merged score, as `lookup_ranks` finds it; the domain must have one."""
    values, through = ranks.values[domain], ranks.through[domain]
    bin_ = max(int(np.searchsorted(values, merged, side="right")) - 1, 0)
    return Place(
        low=float(values[bin_]) if bin_ else -np.inf,
        high=float(values[bin_ + 1]) if bin_ + 1 < len(values) else np.inf,
        before=int(through[bin_]),
        tokens=int(through[bin_ + 1] - through[bin_]),
        total=int(through[-1]),
    )


def recount(
    folder: Path, manifest: SelectionManifest, domain: int, *, merged: float, key: np.uint64, place: Place
) -> Recount:
    """Read the numbers of a domain twice, part by part: once for the ranks, once more for the factor."""
    documents = 0
    sums = np.zeros(6, dtype=np.int64)
    bins, wanted = np.zeros(BINS, dtype=np.int64), 0
    for rows in _domain_rows(folder, manifest, domain):
        documents += len(rows.tokens)
        same = rows.merged == merged
        masks = (
            np.ones(len(same), dtype=np.bool_),
            rows.merged < place.low,
            (rows.merged >= place.low) & (rows.merged < place.high),
            rows.merged < merged,
            same,
            same & (rows.key <= key),
        )
        sums += [int(rows.tokens[mask].sum()) for mask in masks]
        zero = np.zeros(len(same), dtype=np.int16)
        seed = manifest.info.seed
        part = count_fractions(rows.expected, rows.key, rows.tokens, zero, num_domains=1, seed=seed)[0]
        bins[part.bins] += part.tokens
        wanted += part.wanted
    total, before, tokens, better, tied, through = sums.tolist()
    return Recount(
        documents=documents,
        total=total,
        before=before,
        tokens=tokens,
        better=better,
        tied=tied,
        through_key=better + through,
        factor=_factor(folder, manifest, domain, window(bins, wanted)),
    )


def _factor(folder: Path, manifest: SelectionManifest, domain: int, around: Window | None) -> float:
    """Return the domain's factor; around: the bin of ratios in which its expected tokens are reached."""
    if around is None:
        return 1.0
    found = [
        inside(around, ratios(rows.expected, rows.key, seed=manifest.info.seed)[1], rows.tokens)
        for rows in _domain_rows(folder, manifest, domain)
    ]
    return factor_of(around, np.concatenate([r for r, _ in found]), np.concatenate([t for _, t in found]))


def _domain_rows(folder: Path, manifest: SelectionManifest, domain: int) -> Iterator[_Rows]:
    """Yield the selectable documents of one domain, part by part."""
    name = manifest.info.domains[domain]
    for part in manifest.parts:
        if not part.domains[domain].documents_in:
            continue
        table = read_table(folder / SELECTION / part.name, columns=_COLUMNS)
        labels = table["domain"].combine_chunks().dictionary_encode()
        known: list[str] = labels.dictionary.to_pylist()
        wanted = known.index(name) if name in known else -1
        mine = (labels.indices.to_numpy() == wanted) & table["excluded"].is_null().to_numpy()
        yield _Rows(
            key=table["key"].to_numpy()[mine],
            tokens=table["tokens"].to_numpy()[mine].astype(np.int64),
            merged=table["merged"].to_numpy()[mine],
            expected=table["expected"].to_numpy()[mine],
        )
