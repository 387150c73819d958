"""Do the shards of a corpus agree with each other? Distances between each shard and all documents.

In: annotation parts, and a reference of all of them (distributions of scores, coverage, shares of domains).
Out: per shard and measure a distance in [0, 1], and what of it is left when sampling noise is taken off, so
that a small shard is not flagged for being small. Memory: one row of numbers per shard.

Measures: `score:<criterion>` is the Kolmogorov-Smirnov distance of the shard's scores, read at 64 quantiles;
`coverage:<criterion>` the difference of the share of documents with a score; `domains` the total variation
between the shares of domains. What is taken off is the one-sided Dvoretzky-Kiefer-Wolfowitz (or Hoeffding)
bound that holds for all shards and measures at once with 95 % confidence: n documents of a shard against m
of the reference, sqrt(ln(2 / a) / 2 (1/n + 1/m)); the total variation's expected value without drift as well.
Documents of one shard often come from the same sites: that is not noise but what this looks for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from quadmix.annotate.survey import Mapper, PartTask, domain_index, oriented, read_raw
from quadmix.types import Floats, Ints

SCORE_LIMIT, COVERAGE_LIMIT, DOMAIN_LIMIT = 0.1, 0.05, 0.2
CONFIDENCE = 0.95
QUANTILES = 64
REFERENCE_DOMAINS = 100  # the largest; smaller ones are held against the distribution of all documents


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """All documents, against which a shard is held.

    edges: (N, E) float32 scores, smaller = better. below: (1 + G, N, E), share of scores <= each edge, of all
    documents first and then of each of `domains` (G, indices). scores: (N,) how many scores that is from.
    coverage: (N,). mix: (M,) share of documents per domain.
    """

    edges: NDArray[np.float32]
    below: Floats
    domains: Ints
    scores: Ints
    coverage: Floats
    mix: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drift:
    """Distances of S shards in K measures; NaN where a shard has no documents or no scores.

    distance: (S, K) in [0, 1]. at_least: (S, K), what of it is not sampling noise; flagged where it is above
    `limits` (K,). given_domains: (S, N), the distance of scores once the shard's mix of domains is allowed
    for: near 0 where the shard differs in its domains only.
    """

    shards: tuple[str, ...]
    documents: Ints
    measures: tuple[str, ...]
    limits: Floats
    distance: Floats
    at_least: Floats
    given_domains: Floats

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """(S, K): is the distance above its limit, beyond sampling noise?"""
        return self.at_least > self.limits


def reference_of(
    domain: NDArray[np.int16],
    scores: NDArray[np.float32],
    *,
    coverage: Floats,
    mix: Floats,
) -> Reference:
    """Return the reference from a sample: domain (S,), scores (S, N); coverage and mix are of all."""
    probabilities = (np.arange(QUANTILES) + 0.5) / QUANTILES
    largest = np.argsort(-mix, kind="stable")[:REFERENCE_DOMAINS]
    groups = [np.ones(len(domain), dtype=bool), *(domain == m for m in largest.tolist())]
    edges = np.full((scores.shape[1], QUANTILES), np.nan, dtype=np.float32)
    below = np.full((len(groups), scores.shape[1], QUANTILES), np.nan)
    known = ~np.isnan(scores)
    for n in range(scores.shape[1]):
        if not known[:, n].any():
            continue
        values = scores[known[:, n], n]
        edges[n] = np.quantile(values, probabilities, method="inverted_cdf")
        for g, rows in enumerate(groups):
            inside = scores[rows & known[:, n], n]
            below[g, n] = _below(inside, edges[n]) if len(inside) else below[0, n]
    return Reference(
        edges=edges, below=below, domains=largest, scores=known.sum(axis=0), coverage=coverage, mix=mix
    )


def measure_drift(
    tasks: Sequence[PartTask], names: Sequence[str], reference: Reference, mapper: Mapper
) -> Drift:
    """Read every part once more and hold it against the reference; names: of the N criteria."""
    rows = mapper(partial(_shard_row, reference=reference), tasks)
    count, criteria = len(rows), len(names)
    table = np.array(rows, dtype=np.float64).reshape(count, 3 * criteria + 2 + criteria)
    documents, known = table[:, 0], table[:, 1 : 1 + criteria]
    distance = table[:, 1 + criteria : 2 + 3 * criteria]
    chance = (1.0 - CONFIDENCE) / max(distance.size, 1)
    with np.errstate(divide="ignore"):
        inverse = 1.0 / known + 1.0 / reference.scores, np.repeat(1.0 / documents[:, None], criteria + 1, 1)
    noise = np.sqrt(np.log(2.0 / chance) / 2.0 * np.concatenate(inverse, axis=1))
    noise[:, -1] += _expected_variation(reference.mix, documents)
    limits = [SCORE_LIMIT] * criteria + [COVERAGE_LIMIT] * criteria + [DOMAIN_LIMIT]
    return Drift(
        shards=tuple(task.path.replace("\\", "/").rsplit("/", 1)[-1] for task in tasks),
        documents=documents.astype(np.int64),
        measures=(*(f"score:{n}" for n in names), *(f"coverage:{n}" for n in names), "domains"),
        limits=np.array(limits),
        distance=distance,
        at_least=np.maximum(distance - noise, 0.0),
        given_domains=table[:, 2 + 3 * criteria :],
    )


def drift_warnings(drift: Drift) -> list[str]:
    """Return a sentence per measure in which shards are flagged, the largest distances first."""
    warnings: list[str] = []
    for k, measure in enumerate(drift.measures):
        rows = np.flatnonzero(drift.flagged[:, k])
        if not len(rows):
            continue
        order = rows[np.argsort(-drift.at_least[rows, k], kind="stable")]
        shown = ", ".join(_shown(drift, s, k) for s in order[:3].tolist()) + (
            ", ..." if rows[3:].size else ""
        )
        warnings.append(
            f"{measure} differs in {len(rows)} of {len(drift.shards)} shards from all documents (distance "
            f"above {drift.limits[k]:g} beyond sampling noise): {shown}"
        )
    return warnings


def _shown(drift: Drift, shard: int, measure: int) -> str:
    text = f"{drift.shards[shard]} {drift.distance[shard, measure]:.2f}"
    if measure < drift.given_domains.shape[1]:
        return f"{text} ({drift.given_domains[shard, measure]:.2f} once its domains are allowed for)"
    return text


def _shard_row(task: PartTask, reference: Reference) -> list[float]:
    """Return documents, known (N), score distances (N), coverage distances (N), domain distance, and the
    score distances given the domains (N)."""
    raw = read_raw(task, ids=False)
    scores, domain = oriented(raw, task.frame.criteria), domain_index(raw, task)
    count, criteria = scores.shape
    if not count:
        return [0.0, *[0.0] * criteria, *[float("nan")] * (3 * criteria + 1)]
    known = ~np.isnan(scores)
    pairs = [_distances(scores[known[:, n], n], domain[known[:, n]], n, reference) for n in range(criteria)]
    coverage = np.abs(known.mean(axis=0) - reference.coverage)
    mix = np.bincount(domain, minlength=len(reference.mix)) / count
    variation = float(np.abs(mix - reference.mix).sum() / 2.0)
    plain, given = [p[0] for p in pairs], [p[1] for p in pairs]
    return [float(count), *known.sum(axis=0).tolist(), *plain, *coverage.tolist(), variation, *given]


def _distances(
    values: NDArray[np.float32], domain: NDArray[np.int16], n: int, reference: Reference
) -> tuple[float, float]:
    """Return the distance of one criterion's scores from all, and from all with the shard's domains."""
    if not len(values) or not reference.scores[n]:
        return float("nan"), float("nan")
    found = _below(values, reference.edges[n])
    shares = np.bincount(domain, minlength=len(reference.mix))[reference.domains] / len(values)
    rest = max(1.0 - float(shares.sum()), 0.0)
    expected = shares @ reference.below[1:, n] + rest * reference.below[0, n]
    return float(np.abs(found - reference.below[0, n]).max()), float(np.abs(found - expected).max())


def _below(values: NDArray[np.float32], edges: NDArray[np.float32]) -> Floats:
    """Return (E,) the share of values <= each edge."""
    return np.searchsorted(np.sort(values), edges, side="right") / len(values)


def _expected_variation(mix: Floats, documents: Floats) -> Floats:
    """Return (S,) at most what total variation is expected of n documents drawn from the mix itself."""
    spread = np.sqrt(mix * (1.0 - mix)).sum() / 2.0
    with np.errstate(divide="ignore"):
        return spread / np.sqrt(documents)
