"""`draw.settle_copies` over shards: one factor per domain that makes the drawn tokens meet the expected ones.

In: expected copies, tokens and keys of one shard at a time. Out: the factor of each domain, so that copies
⌊S⌋ + [u < factor · frac(S)] hold the tokens Σ t·S within one document (promise P10).

Two passes: how many tokens lie at each ratio u / frac(S), in fixed bins; then the documents of the one bin in
which the expected tokens are reached, one by one. The copies are those of `settle_copies` on the whole table.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.mixing.draw import UNITS, fraction_units
from quadmix.mixing.tally import by_domain
from quadmix.rng import keyed_uniform
from quadmix.types import Copies, Floats, Ints

BINS = 4096
_WIDEST = 2.0  # factors are near 1; what lies above is one last bin
EDGES = np.append(np.linspace(0.0, _WIDEST, BINS), np.inf)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fractions:
    """What is open in one domain of one shard: the tokens to be filled by fractions, and where they lie.

    wanted: Σ t · frac(S) in units of 1 / UNITS tokens. bins: (K,) indices into EDGES that hold a document.
    tokens: (K,) int64.
    """

    wanted: int
    bins: Ints
    tokens: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """The bin of ratios in which a domain's expected tokens are reached. filled: tokens below `low`."""

    low: float
    high: float
    wanted: float
    filled: int


def ratios(expected: Floats, keys: NDArray[np.uint64], *, seed: int) -> tuple[Floats, Floats]:
    """Return (fraction, ratio) of each document: frac(S) and u / frac(S), infinite where frac(S) is 0."""
    fraction = expected - np.floor(expected)
    uniform = keyed_uniform(seed, keys, "copies")
    with np.errstate(divide="ignore"):
        ratio = np.where(fraction > 0, uniform / np.where(fraction > 0, fraction, 1.0), np.inf)
    return fraction, ratio


def count_fractions(
    expected: Floats,
    keys: NDArray[np.uint64],
    tokens: NDArray[np.integer],
    domain: NDArray[np.integer],
    *,
    num_domains: int,
    seed: int,
) -> list[Fractions]:
    """Return the open fractions of every domain in one shard."""
    fraction, ratio = ratios(expected, keys, seed=seed)
    empty = Fractions(wanted=0, bins=np.empty(0, dtype=np.int64), tokens=np.empty(0, dtype=np.int64))
    found = [empty] * num_domains
    for m, rows in by_domain(domain):
        rows = rows[fraction[rows] > 0]
        weight = tokens[rows]
        where = np.searchsorted(EDGES, ratio[rows], side="right") - 1
        total = np.bincount(where, weights=weight, minlength=1).astype(np.int64)
        bins = np.flatnonzero(total)
        wanted = fraction_units(fraction[rows], weight)
        found[m] = Fractions(wanted=wanted, bins=bins, tokens=total[bins])
    return found


def window(total: Ints, units: int) -> Window | None:
    """Return the bin in which a domain's expected tokens are reached; None if nothing is open.

    total: (BINS,) int64, tokens per bin over all shards. units: Σ `Fractions.wanted`.
    """
    wanted = units / UNITS
    used = np.flatnonzero(total)
    if not len(used):
        return None
    through = np.cumsum(total)
    place = min(int(np.searchsorted(through, wanted)), int(used[-1]))
    return Window(
        low=float(EDGES[place]),
        high=float(EDGES[place + 1]),
        wanted=wanted,
        filled=int(through[place] - total[place]),
    )


def inside(found: Window, ratio: Floats, tokens: NDArray[np.integer]) -> tuple[Floats, Ints]:
    """Return (ratio, tokens) of one domain's documents in the window."""
    rows = (ratio >= found.low) & (ratio < found.high)
    return ratio[rows], tokens[rows].astype(np.int64)


def factor_of(found: Window | None, ratio: Floats, tokens: Ints) -> float:
    """Return the factor of a domain from all its documents in the window; 1 where nothing is open."""
    if found is None:
        return 1.0
    order = np.argsort(ratio, kind="stable")
    filled = found.filled + np.concatenate([[0], np.cumsum(tokens[order], dtype=np.int64)])
    count = int(np.abs(filled - found.wanted).argmin())
    if count < len(order):
        return float(ratio[order[count]])
    return float(np.nextafter(ratio[order[-1]], np.inf)) if len(order) else found.low


def drawn(expected: Floats, keys: NDArray[np.uint64], factor: Floats, *, seed: int) -> Copies:
    """Return (D,) int32 copies ⌊S⌋ + [u / frac(S) < factor]; factor: (D,), each document's domain's."""
    _, ratio = ratios(expected, keys, seed=seed)
    return np.floor(expected).astype(np.int32) + (ratio < factor)
