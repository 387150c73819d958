"""What a θ selects, in numbers a regressor can learn from.

In: parameters θ and a fixed stratified sample of the scored documents. Out: a `FeatureTable`; per θ the
token share of every domain, the mean normalised score of the selected tokens per domain and criterion,
how often a selected token is repeated, and the totals. arXiv 2504.16511 feeds θ itself; these
features predict better from few trials because domain sizes and the ranking are already worked out.
Raw θ in unit coordinates is kept beside them. The mean rank of the selected tokens is not a feature:
it made ridge and the Gaussian process slightly worse in simulation. Copies per domain token are
not one either: at a fixed budget they are the share over again.

Shares and totals are exact integrals of Eq. 3 (interval ranks). Scores and repetition come from up to
`per_domain` documents per domain, chosen by a hash and weighted by tokens; with fewer documents
than that they are exact too. Trials and candidates use the same sample, so its error is shared.
Only the best documents up to the cutoff are looked at: those outside the window are all taken at the
floor's rate, and their moments follow from those of the whole domain.

Differs from Eq. 2 where the recipe asks for `paper` ranks: features use interval ranks always.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quadmix.errors import SearchError
from quadmix.mixing.batch import (
    ThetaBatch,
    batch_mass,
    batch_to_unit,
    curve_integral,
    curve_series,
    stack_thetas,
)
from quadmix.mixing.prior import Prior
from quadmix.rng import keyed_uniform
from quadmix.search.table import SHARE, FeatureTable
from quadmix.types import Annotations, Floats, Theta

_CHUNK = 128  # θ at a time: their arrays of sampled documents then stay in the processor's cache


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
    return batch_features(sample, stack_thetas(thetas), prior)


def batch_features(sample: FeatureSample, batch: ThetaBatch, prior: Prior) -> FeatureTable:
    """Return the features of K θ as a (K, P) table; realised columns first, then raw ones."""
    blocks = [_realised(sample, batch.rows(slice(i, i + _CHUNK))) for i in range(0, len(batch), _CHUNK)]
    return _as_table(sample, np.concatenate(blocks), batch_to_unit(batch, prior))


def raw_features(sample: FeatureSample, batch: ThetaBatch, prior: Prior) -> FeatureTable:
    """Return the same table with NaN for everything but the raw columns, which cost next to nothing."""
    realised = np.full((len(batch), len(_layout(sample)[0])), np.nan)
    return _as_table(sample, realised, batch_to_unit(batch, prior))


def _as_table(sample: FeatureSample, realised: Floats, raw: Floats) -> FeatureTable:
    names, types, domains = _layout(sample)
    raw_names, raw_types, raw_domains = _raw_layout(sample)
    return FeatureTable(
        values=np.concatenate([realised, raw], axis=1),
        names=(*names, *raw_names),
        types=(*types, *raw_types),
        domains=(*domains, *raw_domains),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Curves:
    """K curves of one domain. weights: (K, N). series: (16, K, 1). whole: (K, 1), Φ(λω). Others: (K, 1)."""

    weights: Floats
    steepness: Floats
    cutoff: Floats
    exponent: Floats
    floor: Floats
    scale: Floats
    series: Floats
    whole: Floats


def _realised(sample: FeatureSample, batch: ThetaBatch) -> Floats:
    """Return (K, P) realised features of one batch."""
    k, m = batch.cutoff.shape
    mass, unique = batch_mass(batch), np.empty((k, m))
    scores = np.empty((k, m, len(sample.criterion_names)))
    series = curve_series(batch.exponent)
    whole = curve_integral(batch.steepness * batch.cutoff, batch.exponent, series)
    for domain, documents in enumerate(sample.domains):
        curves = _Curves(
            weights=batch.weights[:, domain],
            steepness=batch.steepness[:, domain, None],
            cutoff=batch.cutoff[:, domain, None],
            exponent=batch.exponent[:, domain, None],
            floor=batch.floor[:, domain, None],
            scale=batch.scale[:, domain, None],
            series=series[:, :, domain, None],
            whole=whole[:, domain, None],
        )
        unique[:, domain], scores[:, domain] = _domain_moments(documents, curves)
        if not len(documents.weights):
            mass[:, domain] = 0.0
    tokens = mass * sample.tokens
    total, total_unique = tokens.sum(axis=1), (unique * sample.tokens).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.nan_to_num(tokens / total[:, None])
        repeats = np.nan_to_num(mass / unique, nan=1.0, posinf=1.0)
    columns = [share, scores.reshape(k, -1), np.log(repeats)]
    totals = np.stack([np.log(total + 1.0), np.log(total_unique + 1.0)], axis=1)
    return np.concatenate([*columns, totals], axis=1)


def _domain_moments(documents: DomainSample, curves: _Curves) -> tuple[Floats, Floats]:
    """Return per θ the chance of a token of one domain to be selected at all (K,) and the mean scores
    (K, N) of its selected tokens."""
    k, n = len(curves.cutoff), len(documents.weights)
    if not n:
        return np.zeros(k), np.full((k, documents.scores.shape[0]), 0.5)
    order, weights, inside = _window(documents, curves)
    floor, scale = curves.floor, curves.scale
    once = np.minimum(weights, scale * (inside + floor * weights)).sum(axis=1)
    rest = 1.0 - weights.sum(axis=1)
    unique = once + rest * np.minimum(1.0, (scale * floor)[:, 0])
    taken = np.zeros((k, n))
    np.put_along_axis(taken, order, inside, axis=1)
    return unique, _selected_means(documents, taken, floor)


def _selected_means(documents: DomainSample, inside: Floats, floor: Floats) -> Floats:
    """Return (K, N) the copies-weighted mean of every criterion over the documents that carry it.

    inside: (K, n) copies that the window gives, times token weight. The floor takes every rank alike,
    so it adds the plain mean of the domain.
    """
    values, weights, present = documents.scores, documents.weights, documents.present
    total = inside @ values.T + floor * (values @ weights)
    if present is None:
        mass = inside.sum(axis=1, keepdims=True) + floor
    else:
        mass = inside @ present.T + floor * (present @ weights)
    return np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), 0.5)


def _window(documents: DomainSample, curves: _Curves) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return the best documents of every θ up to its cutoff at least: which (K, W), best first, their token
    weights (K, W), and the copies that the window gives them, times those weights (K, W).

    A document gets the mean of Eq. 3 over its rank interval. Documents with equal merged scores (Eq. 1)
    share one interval, as in `rank_within_domain`.
    """
    merged = _merged(documents, curves.weights)
    order, ordered = _best_first(documents, merged, curves.cutoff)
    weights = documents.weights[order]
    edges = np.zeros((len(order), order.shape[1] + 1))
    np.cumsum(weights, axis=1, out=edges[:, 1:])
    left = np.maximum(curves.cutoff - edges, 0.0)
    left *= curves.steepness
    through = curves.whole - curve_integral(left, curves.exponent, curves.series)
    through /= curves.steepness
    inside = np.diff(through, axis=1)
    fresh = ordered[:, 1:] != ordered[:, :-1]
    if not fresh.all():
        inside = weights * _shared(through, fresh) / _shared(edges, fresh)
    return order, weights, inside


def _best_first(documents: DomainSample, merged: Floats, cutoff: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return the order (K, W) of the documents that each θ's window may hold, and their merged scores.

    Sorting is the costliest step, and numbers sort three times as fast as their positions do. So the last
    bits of each score (non-negative, so its bits sort as it does) make way for the position; where two
    scores differ in those bits only, a second sort puts them right. Tied documents are never parted.
    """
    n = merged.shape[1]
    mask = (1 << n.bit_length()) - 1
    keys = merged.view(np.int64) & ~mask
    keys |= np.arange(n)
    keys.sort(axis=1)
    width = min(n, 8 + int(1.2 * n * float(cutoff.max(initial=0.0))))
    while True:
        order = keys[:, :width] & mask
        if width == n:
            break
        enough = documents.weights[order].sum(axis=1) >= cutoff[:, 0]
        if (enough & ((keys[:, width] ^ keys[:, width - 1]) > mask)).all():
            break
        width = min(n, 2 * width)
    ordered = np.take_along_axis(merged, order, axis=1)
    if (ordered[:, 1:] < ordered[:, :-1]).any():
        again = np.argsort(ordered, axis=1)
        return np.take_along_axis(order, again, axis=1), np.take_along_axis(ordered, again, axis=1)
    return order, ordered


def _shared(edges: Floats, fresh: NDArray[np.bool_]) -> Floats:
    """Return (K, W) the step of a rising function over each document's tied group.

    edges: (K, W + 1) its values between documents. fresh: (K, W - 1) whether a document starts a new group.
    """
    ends = np.ones((len(fresh), 1), dtype=bool)
    low = np.where(np.concatenate([ends, fresh], axis=1), edges[:, :-1], 0.0)
    high = np.where(np.concatenate([fresh, ends], axis=1), edges[:, 1:], np.inf)
    low = np.maximum.accumulate(low, axis=1)
    return np.minimum.accumulate(high[:, ::-1], axis=1)[:, ::-1] - low


def _merged(documents: DomainSample, weights: Floats) -> Floats:
    """Return (K, n) merged scores (Eq. 1), to the bit as `merge_scores` gives them, or ties would part.

    weights: (K, N). Missing scores are left out and the weights that remain rescaled.
    """
    merged = np.zeros((len(weights), len(documents.weights)))
    product = np.empty_like(merged)
    for column, values in zip(weights.T, documents.scores, strict=True):
        merged += np.multiply(column[:, None], values, out=product)
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
    types = (*[SHARE] * m, *["score"] * (m * n), *["repetition"] * m, "total", "total")
    every = tuple(range(m))
    domains = (*every, *(d for d in every for _ in range(n)), *every, m, m)
    return columns, types, domains


def _raw_layout(sample: FeatureSample) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    """Return names, types and domains of the raw columns, in the order of `batch_to_unit`."""
    m, names, criteria = len(sample.domains), sample.domain_names, sample.criterion_names
    curves = ("steepness", "cutoff", "exponent", "floor")
    columns = (
        *(f"weight[{d},{c}]" for d in names for c in criteria),
        *(f"{kind}[{d}]" for kind in curves for d in names),
    )
    types = (
        *(f"raw.weight.{c}" for _ in names for c in criteria),
        *(f"raw.{kind}" for kind in curves for _ in names),
    )
    return columns, types, (*(d for d in range(m) for _ in criteria), *(d for _ in curves for d in range(m)))
