"""Equation 2 without the table in memory: token counts by score, from shards, into a lookup of ranks.

In: merged scores, tokens and domains of one shard at a time. Out: a `RankTable`, small whatever the corpus.

A domain is cut into bins of merged score; documents of one bin are tied and share the interval of tokens that
the bin covers. With one bin per distinct score this is `rank_within_domain` to the last bit; a domain with
too many documents for that gets bins of at most 1e-4 of its tokens each, so no rank is off by more. Where a
bin came out heavier and holds more than one score it is divided again, so that ties and spikes cost
nothing. Counts are integers and sums of them, minima and maxima do not depend on order or grouping, so
neither do the ranks (promise P7).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import ScoreError
from quadmix.types import Floats, Ints, Ranks

FIRST_BINS = 65_536
SUB_BINS = 256
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DomainTally:
    """Bins of one domain that hold a document, ascending.

    low, high: (K,) least and greatest merged score in each bin. tokens: (K,) int64.
    """

    low: Floats
    high: Floats
    tokens: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankTable:
    """Where each domain's tokens lie on its scale of merged scores; one entry per domain.

    values: (K,) ascending, the least score of each bin. through: (K + 1,) int64, tokens before each bin.
    """

    values: tuple[Floats, ...]
    through: tuple[Ints, ...]

    @property
    def tokens(self) -> Floats:
        """(M,) float64, the tokens of each domain that were counted."""
        return np.array([t[-1] for t in self.through], dtype=np.float64)


def by_domain(domain: NDArray[np.integer]) -> list[tuple[int, Ints]]:
    """Return (domain, its rows in order) for every domain that occurs."""
    order = np.argsort(domain, kind="stable")
    ordered = domain[order]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))[: len(order)]
    stops = np.append(first[1:], len(order))[: len(first)]
    bounds = zip(ordered[first].tolist(), first.tolist(), stops.tolist(), strict=True)
    return [(int(m), order[start:stop]) for m, start, stop in bounds]


def tally(merged: Floats, tokens: NDArray[np.integer]) -> DomainTally:
    """Count the documents of one domain in one shard, one bin per distinct score."""
    order = np.argsort(merged)  # among equal scores any order gives the same counts
    values = merged[order]
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))[: len(values)]
    return _between(values, tokens[order], starts)


def _between(values: Floats, tokens: NDArray[np.integer], starts: Ints) -> DomainTally:
    """Return bins of the ascending `values` that begin at `starts`."""
    through = np.concatenate([[0], np.cumsum(tokens, dtype=np.int64)])
    stops = np.append(starts[1:], len(values))[: len(starts)]
    return DomainTally(low=values[starts], high=values[stops - 1], tokens=through[stops] - through[starts])


def merge_tallies(tallies: Sequence[DomainTally]) -> DomainTally:
    """Return all shards of a domain together, one bin per distinct score; order does not matter."""
    if not tallies:
        return DomainTally(low=np.empty(0), high=np.empty(0), tokens=np.empty(0, dtype=np.int64))
    return tally(np.concatenate([t.low for t in tallies]), np.concatenate([t.tokens for t in tallies]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BinTally:
    """One shard of a domain in the bins of given edges. bins: (K,) ascending, index of each bin that holds a
    document; low, high, tokens as in `DomainTally`."""

    bins: Ints
    counted: DomainTally


def tally_bins(merged: Floats, tokens: NDArray[np.integer], edges: Floats) -> BinTally:
    """Count one domain of one shard in bins from each of `edges` (ascending) to the next.

    What lies below the first edge belongs to the first bin.
    """
    order = np.argsort(merged)
    values = merged[order]
    bounds = np.append(0, np.searchsorted(values, edges[1:], side="left"))
    bins = np.flatnonzero(np.diff(np.append(bounds, len(values))))
    return BinTally(bins=bins, counted=_between(values, tokens[order], bounds[bins]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bins:
    """A domain's bins while shards are added, in whatever order.

    edges: (B,) ascending. low, high, tokens: (B,), written in place by `add_bins`.
    """

    edges: Floats
    low: Floats
    high: Floats
    tokens: Ints


def open_bins(edges: Floats) -> Bins:
    """Return empty bins."""
    size = len(edges)
    return Bins(
        edges=edges, low=np.full(size, np.inf), high=np.full(size, -np.inf), tokens=np.zeros(size, np.int64)
    )


def add_bins(total: Bins, shard: BinTally) -> None:
    """Add one shard."""
    at, counted = shard.bins, shard.counted
    total.low[at] = np.minimum(total.low[at], counted.low)
    total.high[at] = np.maximum(total.high[at], counted.high)
    total.tokens[at] += counted.tokens


def closed_bins(total: Bins) -> DomainTally:
    """Return the bins that hold a document (one of 0 tokens does not count)."""
    used = total.tokens > 0
    return DomainTally(low=total.low[used], high=total.high[used], tokens=total.tokens[used])


def first_edges(low: float, high: float) -> Floats:
    """Return the edges of the first bins over the range of a domain's merged scores."""
    return np.unique(np.linspace(low, high, FIRST_BINS + 1)[:-1])


def finer_edges(counted: DomainTally, edges: Floats, tolerance: float = TOLERANCE) -> Floats | None:
    """Return edges that divide every bin that is too heavy and not one score, None if there is none.

    A bin is divided between its least and its greatest score, so that each division moves on.
    """
    heavy = (counted.tokens > tolerance * counted.tokens.sum()) & (counted.high > counted.low)
    if not heavy.any():
        return None
    cuts = [
        np.append(np.linspace(low, high, SUB_BINS + 1)[:-1], high)
        for low, high in zip(counted.low[heavy].tolist(), counted.high[heavy].tolist(), strict=True)
    ]
    return np.unique(np.concatenate([edges, *cuts]))


def rank_table(tallies: Sequence[DomainTally]) -> RankTable:
    """Return the lookup from the finished tally of each domain."""
    return RankTable(
        values=tuple(t.low for t in tallies),
        through=tuple(np.concatenate([[0], np.cumsum(t.tokens, dtype=np.int64)]) for t in tallies),
    )


def lookup_ranks(
    table: RankTable, merged: Floats, domain: NDArray[np.integer], *, literal: bool = False
) -> Ranks:
    """Return the ranks of documents that were counted in `table`; 0 = best.

    literal: rank mode "paper", where both ends are the worst end of the interval.
    """
    return ranks_at(table, lookup_bins(table, merged, domain), domain, literal=literal)


def lookup_bins(table: RankTable, merged: Floats, domain: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return (D,) the bin in which each document was counted, numbered in its domain."""
    bins = np.empty(len(merged), dtype=np.int32)
    for m, rows in by_domain(domain):
        if not len(table.values[m]):
            raise ScoreError(f"domain {m} has {len(rows)} documents but none was counted; count it first")
        bins[rows] = np.maximum(np.searchsorted(table.values[m], merged[rows], side="right") - 1, 0)
    return bins


def ranks_at(
    table: RankTable, bins: NDArray[np.int32], domain: NDArray[np.integer], *, literal: bool = False
) -> Ranks:
    """Return the ranks of documents in the bins that `lookup_bins` gave."""
    low, high = np.empty(len(bins)), np.empty(len(bins))
    for m, rows in by_domain(domain):
        through, here = table.through[m], bins[rows]
        total = max(int(through[-1]), 1)
        low[rows] = through[here] / total
        high[rows] = through[here + 1] / total
    return Ranks(low=high if literal else low, high=high)
