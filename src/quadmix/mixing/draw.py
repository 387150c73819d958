"""Expected copies -> whole copies, by a keyed hash of the document.

In: expected copies S, document ids, a seed. Out: ⌊S⌋ + [u < frac(S)] with u a hash of (seed, id).

The paper draws the fraction as a Bernoulli variable. Here its uniform number belongs to the
document, so the draw does not depend on order, shard or worker, and two θ are compared with the
same luck (common random numbers): copies differ only where S differs.

`settle_copies` differs from the paper in one more way: independent draws miss a domain's tokens by
several per cent when its documents are few or long, so one factor per domain, near 1, moves all its
thresholds until the drawn tokens are within one document of the expected ones (sequential Poisson
sampling, Ohlsson 1998, J. Official Statistics 14(2)). The mean over seeds is S up to a bias that falls
with the number of drawn documents: below 1 % with hundreds per domain, but where a domain takes only a
dozen, small fractions are drawn too seldom by a tenth or more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import ScoreError
from quadmix.rng import keyed_uniform
from quadmix.types import Copies, Floats

UNITS = 1 << 24  # in 63 bits this leaves 500 billion tokens for one domain of one shard


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """copies: (D,) int32. factor: (M,) float64, what the drawn fractions were multiplied with."""

    copies: Copies
    factor: Floats


def settle_copies(
    expected: Floats,
    keys: NDArray[np.uint64],
    tokens: NDArray[np.int32],
    domain: NDArray[np.int16],
    *,
    num_domains: int,
    seed: int,
) -> Drawn:
    """Return ⌊S⌋ + [u < factor[m] · frac(S)], the factor chosen so that the tokens of each domain m come
    as near to Σ t·S as whole documents allow.

    expected: (D,) >= 0. keys: (D,) uint64 of the documents. tokens, domain: (D,).
    """
    draw_copies(expected, keys, seed=seed)  # refuses what is not finite or negative
    whole = np.floor(expected)
    fraction = expected - whole
    open_rows = np.flatnonzero(fraction > 0)
    ratio = keyed_uniform(seed, keys[open_rows], "copies") / fraction[open_rows]
    order = np.lexsort((ratio, domain[open_rows]))
    ratio, rows = ratio[order], open_rows[order]
    ends = np.searchsorted(domain[rows], np.arange(num_domains + 1))
    factor = np.ones(num_domains)
    copies = whole.astype(np.int32)
    for m in range(num_domains):
        mine = slice(ends[m], ends[m + 1])
        if ends[m] == ends[m + 1]:
            continue
        weight = tokens[rows[mine]].astype(np.float64)
        filled = np.concatenate([[0.0], np.cumsum(weight)])
        wanted = fraction_units(fraction[rows[mine]], tokens[rows[mine]]) / UNITS
        count = int(np.abs(filled - wanted).argmin())
        last = ends[m] + count
        factor[m] = ratio[last] if last < ends[m + 1] else np.nextafter(ratio[last - 1], np.inf)
        copies[rows[mine]] += ratio[mine] < factor[m]
    return Drawn(copies=copies, factor=factor)


def fraction_units(fraction: Floats, tokens: NDArray[np.integer]) -> int:
    """Return Σ t · fraction in units of 1 / UNITS tokens: an integer, so that no order of summing and no
    number of threads changes it."""
    return int((np.rint(fraction * UNITS).astype(np.int64) * tokens).sum(dtype=np.int64))


def draw_copies(expected: Floats, doc_id: NDArray[np.uint64] | Sequence[str], *, seed: int) -> Copies:
    """Return (D,) int32 copies whose mean over seeds is `expected`.

    expected: (D,) >= 0. doc_id: (D,) ids, or their uint64 hashes from `rng.doc_keys`.
    """
    expected = np.asarray(expected, dtype=np.float64)
    if len(doc_id) != len(expected):
        raise ScoreError(f"draw_copies got {len(doc_id)} ids for {len(expected)} expected copies")
    bad = ~(np.isfinite(expected) & (expected >= 0) & (expected < 2**31 - 1))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ScoreError(f"expected copies of row {row} are {expected[row]}, expected a number >= 0")
    uniform = keyed_uniform(seed, doc_id, "copies")
    whole = np.floor(expected)
    return (whole + (uniform < expected - whole)).astype(np.int32)
