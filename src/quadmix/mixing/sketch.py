"""How many tokens carry each score: the mergeable statistics from which a normaliser is frozen.

In: a table, or one shard of it. Out: per criterion, every distinct (domain, score) with its tokens.

Token counts are integers, so merging is commutative and associative: any grouping of shards gives the
same normaliser to the last bit (a quantile sketch would be smaller but depend on the grouping). A `coarse`
sketch drops the last 8 bits of each score towards 0, a relative 3e-5 or less, and so holds at most 16
million entries per criterion however many documents there are, and a tenth of that in practice.
Held-out and missing scores are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import ScoreError
from quadmix.types import Annotations, Floats, Ints

_SIGN = np.uint32(0x80000000)
_COARSE = np.uint32(0xFFFFFF00)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """Tokens per distinct score of one criterion.

    keys: (K,) uint64 ascending, domain in the high half, the score as an order-keeping integer in
    the low half. tokens: (K,) int64.
    """

    keys: NDArray[np.uint64]
    tokens: Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sketch:
    """Counts of every criterion over the documents seen so far."""

    criteria: tuple[str, ...]
    domains: tuple[str, ...]
    counts: tuple[Counts, ...]


def sketch(annotations: Annotations, *, coarse: bool = False) -> Sketch:
    """Count the tokens of every distinct score of a table or of one shard; coarse: see the module."""
    use = ~annotations.held_out
    domain = annotations.domain[use].astype(np.uint64) << np.uint64(32)
    tokens = annotations.tokens[use].astype(np.int64)
    scores = annotations.scores[use]
    if coarse:
        scores = (scores.view(np.uint32) & _COARSE).view(np.float32)
    counts: list[Counts] = []
    for n in range(scores.shape[1]):
        known = ~np.isnan(scores[:, n])
        keys = domain[known] | ordered_bits(scores[known, n]).astype(np.uint64)
        counts.append(_count(keys, tokens[known]))
    names = tuple(c.name for c in annotations.criteria)
    return Sketch(criteria=names, domains=annotations.domains, counts=tuple(counts))


def merge_sketches(sketches: Sequence[Sketch]) -> Sketch:
    """Return the sketch of all documents together; order and grouping do not matter."""
    if not sketches:
        raise ScoreError("merge_sketches got no sketch, expected at least one")
    first = sketches[0]
    for i, other in enumerate(sketches):
        if (other.criteria, other.domains) != (first.criteria, first.domains):
            raise ScoreError(
                f"sketch {i} is of criteria {other.criteria} and {len(other.domains)} domains, expected "
                f"{first.criteria} and {len(first.domains)} domains as in sketch 0"
            )
    counts = tuple(
        _count(
            np.concatenate([s.counts[n].keys for s in sketches]),
            np.concatenate([s.counts[n].tokens for s in sketches]),
        )
        for n in range(len(first.criteria))
    )
    return Sketch(criteria=first.criteria, domains=first.domains, counts=counts)


def distinct(counts: Counts, domain: int | None = None) -> tuple[Floats, Ints]:
    """Return (values ascending, tokens) of all documents, or of one domain."""
    if domain is not None:
        edges = np.array([domain, domain + 1], dtype=np.uint64) << np.uint64(32)
        start, stop = np.searchsorted(counts.keys, edges)
        keys, tokens = counts.keys[start:stop], counts.tokens[start:stop]
    else:
        merged = _count(counts.keys & np.uint64(0xFFFFFFFF), counts.tokens)
        keys, tokens = merged.keys, merged.tokens
    return float_values((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)), tokens


def ordered_bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return integers that sort as the float32 values do; -0 and 0 are one value."""
    bits = (values.astype(np.float32) + np.float32(0.0)).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def float_values(ordered: NDArray[np.uint32]) -> Floats:
    """Undo `ordered_bits`; the result is float64 that float32 holds exactly."""
    bits = np.where(ordered & _SIGN, ordered & ~_SIGN, ~ordered)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def _count(keys: NDArray[np.uint64], tokens: Ints) -> Counts:
    """Sum the tokens of equal keys, in integers."""
    if not len(keys):
        return Counts(keys=np.empty(0, dtype=np.uint64), tokens=np.empty(0, dtype=np.int64))
    order = np.argsort(keys)  # among equal keys any order gives the same sum
    keys, tokens = keys[order], tokens[order]
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return Counts(keys=keys[first], tokens=np.add.reduceat(tokens, first))
