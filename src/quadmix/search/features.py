"""What a θ selects, in numbers a regressor can learn from.

In: parameters θ and a fixed stratified sample of the scored documents. Out: per θ the log token
share of every domain, the mean normalised score of the selected tokens per domain and criterion,
how often a selected token is repeated, and the totals. arXiv 2504.16511 feeds θ itself; these
features predict better from few trials because domain sizes and the ranking are already worked out.
Raw θ in unit coordinates is kept beside them. The mean rank of the selected tokens is not a feature:
it made ridge and the Gaussian process slightly worse in simulation. Copies per domain token are
not one either: at a fixed budget they are the share over again.

Shares and totals are exact integrals of Eq. 3 (interval ranks). Scores and repetition come from up to
`per_domain` documents per domain, chosen by a hash and weighted by tokens; with fewer documents
than that they are exact too. Trials and candidates use the same sample, so its error is shared.
The integral is written for many θ at once, where `mixing.curve` takes many documents of one θ; a
test holds the two together.

Differs from Eq. 2 where the recipe asks for `paper` ranks: features use interval ranks always.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from quadmix.errors import SearchError
from quadmix.mixing.prior import Prior, to_unit
from quadmix.rng import keyed_uniform
from quadmix.types import Annotations, Floats, Theta

SHARE_EPSILON = 1e-3
_CHUNK = 256
_DEGREE = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureTable:
    """One row per θ. values: (K, P). names, types ("share", "score", "repetition", "total", "raw")
    and domains (its domain, or M where a feature belongs to none): (P,) each."""

    values: Floats
    names: tuple[str, ...]
    types: tuple[str, ...]
    domains: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: NDArray[np.int64]) -> "FeatureTable":
        """Return the table restricted to the rows of `index`."""
        return FeatureTable(
            values=self.values[index], names=self.names, types=self.types, domains=self.domains
        )

    def columns(self, *, raw: bool) -> "FeatureTable":
        """Return only the raw columns (`raw`) or only the realised ones."""
        keep = [i for i, kind in enumerate(self.types) if (kind == "raw") == raw]
        return FeatureTable(
            values=self.values[:, keep],
            names=tuple(self.names[i] for i in keep),
            types=tuple(self.types[i] for i in keep),
            domains=tuple(self.domains[i] for i in keep),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DomainSample:
    """Sampled documents of one domain. weights: (n,) token weights, sum 1. scores: (N, n), 0 where
    missing. present: (N, n) 1 or 0, or None when nothing is missing."""

    weights: Floats
    scores: Floats
    present: Floats | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureSample:
    """The fixed sample behind all features. tokens: (M,) tokens of each domain in the whole pool."""

    domains: tuple[DomainSample, ...]
    tokens: Floats
    domain_names: tuple[str, ...]
    criterion_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Batch:
    """K thetas stacked: weights (K, M, N), the others (K, M)."""

    weights: Floats
    steepness: Floats
    cutoff: Floats
    exponent: Floats
    floor: Floats
    scale: Floats


def sample_documents(
    annotations: Annotations, normalised: NDArray[np.float32], *, seed: int, per_domain: int = 512
) -> FeatureSample:
    """Choose the documents with the smallest hashes, up to `per_domain` in every domain.

    normalised: (D, N), 0 = best, NaN = missing, rows as in `annotations`.
    """
    if not len(annotations):
        raise SearchError("the selectable pool has 0 documents; features need at least one")
    hashes = keyed_uniform(seed, annotations.keys, "features")
    samples: list[DomainSample] = []
    for domain in range(len(annotations.domains)):
        rows = np.flatnonzero(annotations.domain == domain)
        rows = rows[np.argsort(hashes[rows], kind="stable")[:per_domain]]
        tokens = annotations.tokens[rows].astype(np.float64)
        scores = np.ascontiguousarray(normalised[rows].T, dtype=np.float64)
        present = np.isfinite(scores)
        samples.append(
            DomainSample(
                weights=tokens / tokens.sum() if len(rows) else tokens,
                scores=np.where(present, scores, 0.0),
                present=None if present.all() else present.astype(np.float64),
            )
        )
    return FeatureSample(
        domains=tuple(samples),
        tokens=annotations.domain_tokens(),
        domain_names=annotations.domains,
        criterion_names=tuple(c.name for c in annotations.criteria),
    )


def features(sample: FeatureSample, thetas: Sequence[Theta], prior: Prior) -> FeatureTable:
    """Return the features of every θ as a (K, P) table; realised columns first, then raw ones."""
    blocks = [_realised(sample, _stack(thetas[i : i + _CHUNK])) for i in range(0, len(thetas), _CHUNK)]
    raw = np.stack([to_unit(theta, prior) for theta in thetas])
    names, types, domains = _layout(sample)
    return FeatureTable(
        values=np.concatenate([np.concatenate(blocks), raw], axis=1),
        names=(*names, *(f"raw[{i}]" for i in range(raw.shape[1]))),
        types=(*types, *["raw"] * raw.shape[1]),
        domains=(*domains, *[len(sample.domains)] * raw.shape[1]),
    )


def window_integral(rank: Floats, steepness: Floats, cutoff: Floats, exponent: Floats) -> Floats:
    """Return ∫_0^min(r, ω) (2 / (1 + e^{-λ(ω-x)}))^η dx (Eq. 3 without its floor), for K curves.

    rank: (K, J) in [0, 1]; the parameters: (K,). With u = e^{-λ(ω-x)} the integral is
    2^η (r + (h(u(r)) - h(u(0))) / λ), where h(u) = ∫_0^u ((1+v)^-η - 1)/v dv is smooth on [0, 1]:
    a Chebyshev series of degree 16 per curve gives it to about 1e-10.
    """
    inside = np.minimum(rank, cutoff[:, None])
    series = (_shape_series(exponent)).T[:, :, None]
    distance = steepness[:, None] * (inside - cutoff[:, None])
    start = np.exp(-steepness * cutoff)[:, None]
    at_rank = chebyshev.chebval(2.0 * np.exp(distance) - 1.0, series, tensor=False)
    at_zero = chebyshev.chebval(2.0 * start - 1.0, series, tensor=False)
    return np.exp2(exponent)[:, None] * (inside + (at_rank - at_zero) / steepness[:, None])


def _shape_series(exponent: Floats) -> Floats:
    """Return (K, 17), the Chebyshev coefficients on [0, 1] of h(u) for each η."""
    nodes = 0.5 + 0.5 * chebyshev.chebpts1(_DEGREE + 1)
    x, w = np.polynomial.legendre.leggauss(_DEGREE)
    points = nodes[:, None] * (0.5 + 0.5 * x)
    slope = np.expm1(-exponent[:, None, None] * np.log1p(points)) / points
    at_nodes = slope @ (0.5 * w) * nodes
    return at_nodes @ np.linalg.inv(chebyshev.chebvander(2.0 * nodes - 1.0, _DEGREE)).T


def _realised(sample: FeatureSample, batch: _Batch) -> Floats:
    """Return (K, P) realised features of one batch."""
    k, m = batch.cutoff.shape
    mass, unique = np.empty((k, m)), np.empty((k, m))
    scores = np.empty((k, m, len(sample.criterion_names)))
    for domain, documents in enumerate(sample.domains):
        curve = _Batch(
            weights=batch.weights[:, domain],
            steepness=batch.steepness[:, domain],
            cutoff=batch.cutoff[:, domain],
            exponent=batch.exponent[:, domain],
            floor=batch.floor[:, domain],
            scale=batch.scale[:, domain],
        )
        mass[:, domain], unique[:, domain], scores[:, domain] = _domain_moments(documents, curve)
    tokens = mass * sample.tokens
    total, total_unique = tokens.sum(axis=1), (unique * sample.tokens).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.nan_to_num(tokens / total[:, None])
        repeats = np.nan_to_num(mass / unique, nan=1.0, posinf=1.0)
    columns = [np.log(share + SHARE_EPSILON), scores.reshape(k, -1), np.log(repeats)]
    totals = np.stack([np.log(total + 1.0), np.log(total_unique + 1.0)], axis=1)
    return np.concatenate([*columns, totals], axis=1)


def _domain_moments(documents: DomainSample, curve: _Batch) -> tuple[Floats, Floats, Floats]:
    """Return per θ: expected copies per token (K,), chance of a token to be selected at all (K,)
    and mean scores (K, N) of the selected tokens of one domain."""
    k, n = len(curve.cutoff), len(documents.weights)
    if not n:
        return np.zeros(k), np.zeros(k), np.full((k, documents.scores.shape[0]), 0.5)
    order, low, high = _intervals(documents, curve.weights)
    width = max(1, int((low < curve.cutoff[:, None]).sum(axis=1).max()))
    order, low, high = order[:, :width], low[:, :width], high[:, :width]
    weights = documents.weights[order]
    window = _integral_between(low, high, curve)
    taken = window / (high - low)  # mean copies of the window over the document's interval
    floor, scale = curve.floor[:, None], curve.scale[:, None]
    chance = (weights * np.minimum(1.0, scale * (taken + floor))).sum(axis=1)
    rest = 1.0 - weights.sum(axis=1)
    unique = chance + rest * np.minimum(1.0, curve.scale * curve.floor)
    inside = weights * taken
    mass = inside.sum(axis=1) + curve.floor
    scores = np.stack(
        [_selected_mean(documents, n, order, inside, curve.floor) for n in range(len(documents.scores))],
        axis=1,
    )
    return mass * curve.scale, unique, scores


def _selected_mean(
    documents: DomainSample, criterion: int, order: NDArray[np.intp], inside: Floats, floor: Floats
) -> Floats:
    """Return (K,) the copies-weighted mean of one criterion over the documents that carry it.

    The floor takes every rank alike, so it adds the plain mean of the domain.
    """
    values, weights = documents.scores[criterion], documents.weights
    total = (inside * values[order]).sum(axis=1) + floor * float(weights @ values)
    if documents.present is None:
        mass = inside.sum(axis=1) + floor
    else:
        has = documents.present[criterion]
        mass = (inside * has[order]).sum(axis=1) + floor * float(weights @ has)
    return np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), 0.5)


def _intervals(documents: DomainSample, weights: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Return order (K, n) best first and the rank interval [low, high] of each sorted document.

    Documents with equal merged scores (Eq. 1) share one interval, as in `rank_within_domain`.
    """
    merged = _merged(documents, weights)
    order = np.argsort(merged, axis=1)
    high = np.cumsum(documents.weights[order], axis=1)
    low = np.concatenate([np.zeros((len(weights), 1)), high[:, :-1]], axis=1)
    ordered = np.take_along_axis(merged, order, axis=1)
    fresh = ordered[:, 1:] != ordered[:, :-1]
    if not fresh.all():
        first = np.concatenate([np.ones((len(weights), 1), dtype=bool), fresh], axis=1)
        last = np.concatenate([fresh, np.ones((len(weights), 1), dtype=bool)], axis=1)
        low = np.maximum.accumulate(np.where(first, low, 0.0), axis=1)
        high = np.minimum.accumulate(np.where(last, high, np.inf)[:, ::-1], axis=1)[:, ::-1]
    return order, low, high


def _merged(documents: DomainSample, weights: Floats) -> Floats:
    """Return (K, n) merged scores (Eq. 1), to the bit as `merge_scores` gives them, or ties would part.

    weights: (K, N). Missing scores are left out and the weights that remain rescaled.
    """
    merged = np.zeros((len(weights), len(documents.weights)))
    for column, values in zip(weights.T, documents.scores, strict=True):
        merged += column[:, None] * values
    if documents.present is None:
        return merged
    lacking = np.flatnonzero((documents.present == 0).any(axis=0))
    has, values = documents.present[:, lacking], documents.scores[:, lacking]
    seen = np.zeros((len(weights), len(lacking)))
    for column, known in zip(weights.T, has, strict=True):
        seen += column[:, None] * known
    plain = values.sum(axis=0) / np.maximum(has.sum(axis=0), 1.0)
    merged[:, lacking] = np.where(seen > 0, merged[:, lacking] / np.where(seen > 0, seen, 1.0), plain)
    return merged


def _integral_between(low: Floats, high: Floats, curve: _Batch) -> Floats:
    parameters = (curve.steepness, curve.cutoff, curve.exponent)
    return window_integral(high, *parameters) - window_integral(low, *parameters)


def _stack(thetas: Sequence[Theta]) -> _Batch:
    return _Batch(
        weights=np.stack([t.weights for t in thetas]),
        steepness=np.stack([t.steepness for t in thetas]),
        cutoff=np.stack([t.cutoff for t in thetas]),
        exponent=np.stack([t.exponent for t in thetas]),
        floor=np.stack([t.floor for t in thetas]),
        scale=np.stack([t.scale for t in thetas]),
    )


def _layout(sample: FeatureSample) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    """Return names, types and domains of the realised columns, in the order of `_realised`."""
    m, names = len(sample.domains), sample.domain_names
    n = len(sample.criterion_names)
    pairs = [f"score[{d},{c}]" for d in names for c in sample.criterion_names]
    columns = (
        *(f"share[{d}]" for d in names),
        *pairs,
        *(f"repeats[{d}]" for d in names),
        "total[tokens]",
        "total[unique]",
    )
    types = (*["share"] * m, *["score"] * (m * n), *["repetition"] * m, "total", "total")
    every = tuple(range(m))
    domains = (*every, *(d for d in every for _ in range(n)), *every, m, m)
    return columns, types, domains
