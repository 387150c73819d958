"""Equation 2: merged score -> the place of each document among the tokens of its domain.

In: merged scores (smaller = better), tokens, domains. Out: `Ranks`, 0 = best, 1 = worst.

    r̄_x = Σ{t_y : d_y = m, q̄_y <= q̄_x} / Σ{t_y : d_y = m}                              (Eq. 2)

Differs from the paper by default: a document covers an interval of its domain's tokens, and tied
documents share one interval. Literally, `<=` gives every tied document the worst rank of its group
(a domain whose best fifth is tied vanishes) and no document ever has rank 0. The literal form is
`mode="paper"`; `hash-tiebreak` is the same after ordering ties by a hash of the document.
Token sums are integers, so ranks do not depend on the order of the documents.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import ScoreError
from quadmix.types import Annotations, Floats, Ints, Ranks

RankMode = Literal["interval", "paper", "hash-tiebreak"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grouped:
    """Documents by domain, prepared once for a table that many θ are applied to.

    order: (D,) rows sorted by domain. starts: (M+1,) where each domain begins in `order`.
    """

    order: Ints
    starts: Ints


def group_by_domain(domain: NDArray[np.integer], num_domains: int) -> Grouped:
    """Return the documents of `domain` (D,) in 0..num_domains-1 as one block per domain."""
    counts = np.bincount(domain, minlength=num_domains)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Grouped(order=np.argsort(domain, kind="stable").astype(np.int64), starts=starts)


def pool_tokens(annotations: Annotations) -> Floats:
    """Return (M,) float64, the tokens per domain that may be selected (held-out documents may not)."""
    weights = np.where(annotations.held_out, 0, annotations.tokens)
    return np.bincount(annotations.domain, weights=weights, minlength=len(annotations.domains)).astype(
        np.float64
    )


def rank_within_domain(
    merged: Floats,
    tokens: NDArray[np.integer],
    domain: NDArray[np.integer],
    *,
    mode: RankMode = "interval",
    keys: NDArray[np.uint64] | None = None,
    grouped: Grouped | None = None,
) -> Ranks:
    """Return the token-weighted rank of every document inside its domain (Eq. 2).

    merged: (D,) smaller = better. tokens: (D,) >= 0; a document of 0 tokens gets a place and moves
    nobody. domain: (D,). keys: (D,) uint64, needed by `hash-tiebreak`. Ranks are in corpus order.
    """
    if not np.isfinite(merged).all():
        row = int(np.flatnonzero(~np.isfinite(merged))[0])
        raise ScoreError(f"merged score of row {row} is {merged[row]}, expected a finite number")
    if mode not in ("interval", "paper", "hash-tiebreak"):
        raise ScoreError(f"rank mode is {mode!r}, expected interval, paper or hash-tiebreak")
    if not len(merged):
        return Ranks(low=np.empty(0), high=np.empty(0))
    if grouped is None:
        grouped = group_by_domain(domain, int(domain.max()) + 1)
    if mode == "hash-tiebreak":
        if keys is None:
            raise ScoreError("rank mode 'hash-tiebreak' needs `keys`, one uint64 hash per document")
        order = np.lexsort((keys, merged, domain))
    else:
        order = _sort_blocks(merged, grouped)
    low, high = _cumulate(merged[order], tokens[order], grouped.starts, ties=mode != "hash-tiebreak")
    if mode != "interval":
        low = high
    ranks = Ranks(low=np.empty(len(merged)), high=np.empty(len(merged)))
    ranks.low[order] = low
    ranks.high[order] = high
    return ranks


def _sort_blocks(merged: Floats, grouped: Grouped) -> Ints:
    """Return the rows by domain, then merged score; the order inside ties does not matter."""
    order = np.empty_like(grouped.order)
    for start, stop in zip(grouped.starts[:-1], grouped.starts[1:], strict=True):
        block = grouped.order[start:stop]
        order[start:stop] = block[np.argsort(merged[block])]
    return order


def _cumulate(
    merged: Floats, tokens: NDArray[np.integer], starts: Ints, *, ties: bool
) -> tuple[Floats, Floats]:
    """Return (low, high) for documents sorted by domain and score; ties share the whole group's interval."""
    total = len(merged)
    through = np.concatenate([[0], np.cumsum(tokens, dtype=np.int64)])
    sizes = np.diff(starts)
    before_domain = np.repeat(through[starts[:-1]], sizes)
    domain_tokens = np.repeat(np.maximum(through[starts[1:]] - through[starts[:-1]], 1), sizes)
    begins = np.ones(total, dtype=np.bool_)
    if ties:
        begins[1:] = merged[1:] != merged[:-1]
        begins[starts[:-1][sizes > 0]] = True
    first = np.flatnonzero(begins)
    stop = np.append(first[1:], total)
    sizes_of_ties = np.diff(np.append(first, total))
    low = (np.repeat(through[first], sizes_of_ties) - before_domain) / domain_tokens
    high = (np.repeat(through[stop], sizes_of_ties) - before_domain) / domain_tokens
    return low, high
