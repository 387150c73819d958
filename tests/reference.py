"""Slow, obvious versions of the method: one document at a time, plain Python, written from the paper.

They share no code with the library and are the oracles of its tests.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from scipy.integrate import quad


def merged_score(scores: Sequence[float], weights: Sequence[float]) -> float:
    """Eq. 1 of one document; missing scores (NaN) are left out and the weights rescaled."""
    pairs = [(s, w) for s, w in zip(scores, weights, strict=True) if not math.isnan(s)]
    total = sum(w for _, w in pairs)
    if total == 0:
        return sum(s for s, _ in pairs) / len(pairs)
    return sum(s * w for s, w in pairs) / total


def paper_rank(x: int, merged: Sequence[float], tokens: Sequence[int], domain: Sequence[int]) -> float:
    """Eq. 2 of document x, literally: the share of its domain's tokens with q̄_y <= q̄_x."""
    mates = [y for y in range(len(merged)) if domain[y] == domain[x]]
    return sum(tokens[y] for y in mates if merged[y] <= merged[x]) / sum(tokens[y] for y in mates)


def rank_interval(
    x: int, merged: Sequence[float], tokens: Sequence[int], domain: Sequence[int]
) -> tuple[float, float]:
    """The tokens strictly better than document x, and those at least as good, as shares of its domain."""
    mates = [y for y in range(len(merged)) if domain[y] == domain[x]]
    total = sum(tokens[y] for y in mates)
    better = sum(tokens[y] for y in mates if merged[y] < merged[x])
    return better / total, paper_rank(x, merged, tokens, domain)


def mid_rank(value: float, values: Sequence[float], tokens: Sequence[int]) -> float:
    """Token share below `value` plus half of the share at it, among the values that are not missing."""
    known = [(v, t) for v, t in zip(values, tokens, strict=True) if not math.isnan(v)]
    below = sum(t for v, t in known if v < value)
    at = sum(t for v, t in known if v == value)
    return (below + at / 2) / sum(t for _, t in known)


def copies_at(rank: float, steepness: float, cutoff: float, exponent: float, floor: float) -> float:
    """Eq. 3 with the sigmoid written out."""
    if rank > cutoff:
        return floor
    return (2.0 / (1.0 + math.exp(-steepness * (cutoff - rank)))) ** exponent + floor


def mass_between(
    low: float, high: float, steepness: float, cutoff: float, exponent: float, floor: float
) -> float:
    """∫_low^high S dr by adaptive quadrature, split where the curve bends and where it jumps."""
    knees = [cutoff - j / steepness for j in (40.0, 10.0, 3.0, 1.0)]
    points = sorted({low, min(high, cutoff), *(k for k in knees if low < k < min(high, cutoff))})
    inside = 0.0
    for a, b in pairwise(points):
        inside += quad(
            lambda r: copies_at(r, steepness, cutoff, exponent, 0.0), a, b, epsabs=0, epsrel=1e-13, limit=200
        )[0]
    return inside + floor * (high - low)


def mass(steepness: float, cutoff: float, exponent: float, floor: float) -> float:
    """G + ε: the mean of S over a whole domain."""
    return mass_between(0.0, 1.0, steepness, cutoff, exponent, floor)
