"""σ of Equation 1: bring criteria on one scale, fitted once per corpus and then frozen.

In: a table of raw scores (smaller = better). Out: a `Normaliser`, and (D, N) normalised scores.

The paper only says that σ aligns scales. `rank-global` (default) maps a score to its token-weighted
mid-rank in the whole corpus, `rank-domain` in its own domain: 0 = best, 1 = worst, ties share the
middle of their interval. `zscore` and `robust-z` (median, IQR / 1.349) are token-weighted too;
`identity` passes scores through. A criterion without spread becomes 0.5 everywhere.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import InputError, ScoreError
from quadmix.mixing.rank import group_by_domain
from quadmix.mixing.sketch import Counts, Sketch, distinct, sketch
from quadmix.types import Annotations, Floats, Ints

Kind = Literal["rank-global", "rank-domain", "zscore", "robust-z", "identity"]

VERSION = 1
# Two knots per step of rank: at most 65,534 knots, rank error at most 1 / 32,767 = 3.1e-5.
_STEPS = 32_767
_IQR_OF_NORMAL = 1.3489795003921634


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knots:
    """A frozen piecewise linear map: values (K,) ascending -> ranks (K,) in [0, 1], 0 = best."""

    values: Floats
    ranks: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normaliser:
    """σ, frozen.

    knots: rank kinds only; one per criterion (`rank-global`) or per criterion and domain, criterion
    by criterion (`rank-domain`). centre, spread: (N,) for the z kinds; spread 0 means constant.
    """

    kind: Kind
    criteria: tuple[str, ...]
    domains: tuple[str, ...]
    knots: tuple[Knots, ...] = ()
    centre: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise InputError(
                f"normaliser has version {self.version}, expected {VERSION}; fit it again with this version"
            )


def fit_normaliser(annotations: Annotations, kind: Kind = "rank-global") -> Normaliser:
    """Fit σ on a whole table; the same as freezing the merged sketches of its shards."""
    return freeze(sketch(annotations), kind)


def freeze(statistics: Sketch, kind: Kind = "rank-global") -> Normaliser:
    """Turn a sketch into a frozen normaliser."""
    if kind not in ("rank-global", "rank-domain", "zscore", "robust-z", "identity"):
        raise ScoreError(
            f"normaliser kind is {kind!r}, expected rank-global, rank-domain, zscore, robust-z or identity"
        )
    blank = Normaliser(kind=kind, criteria=statistics.criteria, domains=statistics.domains)
    if kind == "identity":
        return blank
    if kind == "rank-global":
        return dataclasses.replace(blank, knots=tuple(_knots(*distinct(c)) for c in statistics.counts))
    if kind == "rank-domain":
        domains = range(len(statistics.domains))
        knots = tuple(_knots(*distinct(c, m)) for c in statistics.counts for m in domains)
        return dataclasses.replace(blank, knots=knots)
    moments = [_moments(c, robust=kind == "robust-z") for c in statistics.counts]
    return dataclasses.replace(
        blank, centre=tuple(m[0] for m in moments), spread=tuple(m[1] for m in moments)
    )


def normalise(
    normaliser: Normaliser, scores: NDArray[np.float32], domain: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Return (D, N) float32 normalised scores, smaller = better, NaN where the score is NaN.

    scores: (D, N) raw, smaller = better. domain: (D,). Values the normaliser never saw are placed
    between their neighbours, or at the end they lie beyond.
    """
    criteria = len(normaliser.criteria)
    if scores.ndim != 2 or scores.shape[1] != criteria:
        raise ScoreError(
            f"normalise got scores of shape {scores.shape}, expected (D, {criteria}) for criteria "
            f"{', '.join(normaliser.criteria)}"
        )
    if normaliser.kind == "rank-domain":
        return _rank_by_domain(normaliser, scores, domain)
    result = np.empty(scores.shape, dtype=np.float32)
    for n in range(criteria):
        column = scores[:, n].astype(np.float64)
        if normaliser.kind == "rank-global":
            column = _interpolate(normaliser.knots[n], column)
        elif normaliser.kind != "identity":
            column = _standardise(column, normaliser.centre[n], normaliser.spread[n])
        result[:, n] = column
    return result


def _rank_by_domain(
    normaliser: Normaliser, scores: NDArray[np.float32], domain: NDArray[np.integer]
) -> NDArray[np.float32]:
    count = len(normaliser.domains)
    if len(domain) and not 0 <= int(domain.min()) <= int(domain.max()) < count:
        raise ScoreError(
            f"domain spans {domain.min()}..{domain.max()}, expected 0..{count - 1} as in the normaliser"
        )
    grouped = group_by_domain(domain, count)
    result = np.empty(scores.shape, dtype=np.float32)
    for m in np.unique(domain):
        rows = grouped.order[grouped.starts[m] : grouped.starts[m + 1]]
        for n in range(scores.shape[1]):
            knots = normaliser.knots[n * count + int(m)]
            result[rows, n] = _interpolate(knots, scores[rows, n].astype(np.float64))
    return result


def _interpolate(knots: Knots, column: Floats) -> Floats:
    """Look a column up; an empty or one-knot map knows no order and gives 0.5."""
    if len(knots.values) < 2:
        return np.where(np.isnan(column), np.nan, 0.5)
    return np.interp(column, knots.values, knots.ranks)


def _standardise(column: Floats, centre: float, spread: float) -> Floats:
    if spread == 0:
        return np.where(np.isnan(column), np.nan, 0.5)
    return (column - centre) / spread


def _knots(values: Floats, tokens: Ints) -> Knots:
    """Token-weighted mid-ranks of the distinct values; the first and last of each step if too many.

    Two values of one step differ by less than a step of rank, so interpolating between its first
    and last knot keeps the error below 1 / 32,767.
    """
    ranks = _mid_ranks(tokens)
    if len(values) > 2 * _STEPS:
        step = np.minimum((ranks * _STEPS).astype(np.int64), _STEPS - 1)
        change = step[1:] != step[:-1]
        keep = np.append(True, change) | np.append(change, True)
        values, ranks = values[keep], ranks[keep]
    return Knots(values=values, ranks=ranks)


def _mid_ranks(tokens: Ints) -> Floats:
    through = np.cumsum(tokens, dtype=np.int64)
    return (2 * through - tokens) / (2.0 * through[-1]) if len(tokens) else np.empty(0)


def _moments(counts: Counts, *, robust: bool) -> tuple[float, float]:
    """Return (centre, spread); spread is 0 only for a constant criterion."""
    values, tokens = distinct(counts)
    if len(values) < 2:
        return (float(values[0]) if len(values) else 0.0), 0.0
    if robust:
        # Quantiles between mid-ranks, so the IQR is > 0 even where one value holds most tokens.
        low, median, high = np.interp([0.25, 0.5, 0.75], _mid_ranks(tokens), values)
        return float(median), float(high - low) / _IQR_OF_NORMAL
    share = tokens / tokens.sum()
    mean = float((share * values).sum())
    return mean, float(np.sqrt((share * (values - mean) ** 2).sum()))
