"""What is odd about the scores of a run: criteria that repeat each other, follow length, are flat, or drift.

In: surveyed annotation parts, read part by part. Out: a `Diagnosis`: rank correlations of every pair of
criteria, length bias and coverage, of all documents and per domain; drift between shards; warnings. Counts
are exact; correlations are of a sample of at most 200,000 documents, drawn by a hash of the document id.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.annotate.drift import Drift, drift_warnings, measure_drift, reference_of
from quadmix.annotate.probes import ProbeResult, probe_warnings
from quadmix.annotate.survey import Mapper, PartTask, domain_index, oriented, part_keys, read_raw
from quadmix.annotate.table import LENGTH_BIAS, Surveyed
from quadmix.annotate.trained import spearman
from quadmix.rng import keyed_uniform
from quadmix.types import Floats, Ints

SAMPLE = 200_000  # documents whose scores are held against each other
REDUNDANT = 0.95  # |rank correlation| above which two criteria order documents alike
FLAT = 0.99  # share of one value above which a criterion is nearly constant
LEAST = 30  # documents with both scores below which no correlation is given
LARGEST = 100  # domains of which correlations are given
ALL = "all documents"
_AT_ONCE = 1_024  # parts whose counts are held before they are added up


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts:
    """What parts hold, added over parts: exact counts per domain (M) and criterion (N), and a sample (S).

    low, high: (M, N) range of the scores, smaller = better, inf where there is none. draw: (S,) the hash in
    [0, 1) that chose the document. domain: (S,). tokens: (S,). scores: (S, N), NaN = missing.
    """

    documents: Ints
    known: Ints
    low: Floats
    high: Floats
    draw: Floats
    domain: NDArray[np.int16]
    tokens: NDArray[np.int32]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """All documents or those of one domain, N criteria in the order of the diagnosis.

    documents: exact. sampled: documents that the correlations are from. correlation: (N, N) Spearman of
    goodness with goodness, NaN below 30 documents that have both or where a side is constant; pairs: (N, N)
    documents that have both. length_bias: (N,) Spearman of goodness with tokens. coverage: (N,) exact share
    of documents with a score. constant: criteria that have one value here. most_common: (N,) share of
    the commonest value among the sampled scores.
    """

    name: str
    documents: int
    sampled: int
    correlation: Floats
    pairs: Ints
    length_bias: Floats
    coverage: Floats
    most_common: Floats
    constant: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Diagnosis:
    """groups: all documents first, then the domains, largest first, at most 100 of them (`domains` says how
    many there are). probes, shared: filled by the caller who has the annotators and the targets."""

    criteria: tuple[str, ...]
    domains: int
    groups: tuple[Group, ...]
    drift: Drift
    warnings: tuple[str, ...]
    probes: tuple[ProbeResult, ...] = ()
    circular: tuple[str, ...] = ()

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """The warnings of parts, probes and circularity together."""
        return (*self.warnings, *(w for p in self.probes for w in probe_warnings(p)), *self.circular)


def _serial(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in tasks]


def diagnose(surveyed: Surveyed, *, mapper: Mapper = _serial) -> Diagnosis:
    """Read the surveyed parts twice, counting and then holding each against all; the order of parts and the
    number of workers change nothing.

    Raises IntegrityError for a part that is gone or changed since the survey.
    """
    names = tuple(c.name for c in surveyed.frame.criteria)
    counts = empty_counts(len(surveyed.frame.domains), len(names))
    for start in range(0, len(surveyed.tasks), _AT_ONCE):
        counts = add_counts([counts, *mapper(count_part, surveyed.tasks[start : start + _AT_ONCE])])
    groups = [_group(ALL, None, counts, names)]
    groups += [_group(surveyed.frame.domains[m], m, counts, names) for m in _largest(counts)]
    total = max(int(counts.documents.sum()), 1)
    reference = reference_of(
        counts.domain, counts.scores, coverage=counts.known.sum(axis=0) / total, mix=counts.documents / total
    )
    drift = measure_drift(surveyed.tasks, names, reference, mapper)
    warnings = [*_flat(groups, names), *_redundant(groups[0], names), *_long(groups, names)]
    return Diagnosis(
        criteria=names,
        domains=len(surveyed.frame.domains),
        groups=tuple(groups),
        drift=drift,
        warnings=(*warnings, *drift_warnings(drift)),
    )


def count_part(task: PartTask) -> Counts:
    """Count one part and draw its share of the sample (`task.sample` of its documents)."""
    raw = read_raw(task, ids=False)
    scores, domain, keys = oriented(raw, task.frame.criteria), domain_index(raw, task), part_keys(raw)
    size = (len(task.frame.domains), scores.shape[1])
    known, (low, high) = ~np.isnan(scores), _unbounded(size)
    np.minimum.at(low, domain, np.where(known, scores, np.inf))
    np.maximum.at(high, domain, np.where(known, scores, -np.inf))
    draw = keyed_uniform(task.frame.seed, keys, "diagnose")
    chosen = draw < task.sample
    per_criterion = [np.bincount(domain[known[:, n]], minlength=size[0]) for n in range(size[1])]
    return Counts(
        documents=np.bincount(domain, minlength=size[0]),
        known=np.stack(per_criterion, axis=1),
        low=low,
        high=high,
        draw=draw[chosen],
        domain=domain[chosen],
        tokens=_tokens(raw)[chosen],
        scores=scores[chosen],
    )


def _tokens(raw: pa.Table) -> NDArray[np.int32]:
    return raw["tokens"].to_numpy().astype(np.int32)


def empty_counts(domains: int, criteria: int) -> Counts:
    """Return the counts of no documents."""
    low, high = _unbounded((domains, criteria))
    return Counts(
        documents=np.zeros(domains, np.int64), known=np.zeros((domains, criteria), np.int64), low=low,
        high=high, draw=np.empty(0), domain=np.empty(0, np.int16), tokens=np.empty(0, np.int32),
        scores=np.empty((0, criteria), np.float32),
    )  # fmt: skip


def _unbounded(size: tuple[int, int]) -> tuple[Floats, Floats]:
    return np.full(size, np.inf), np.full(size, -np.inf)


def add_counts(parts: Sequence[Counts], limit: int = SAMPLE) -> Counts:
    """Return the counts of all parts; of more than `limit` sampled documents the least hashes stay."""
    draw = np.concatenate([p.draw for p in parts])
    kept = np.argsort(draw, kind="stable")[
        :limit
    ]  # by hash: in an order that parts and workers do not change
    return Counts(
        documents=np.sum([p.documents for p in parts], axis=0),
        known=np.sum([p.known for p in parts], axis=0),
        low=np.minimum.reduce([p.low for p in parts]),
        high=np.maximum.reduce([p.high for p in parts]),
        draw=draw[kept],
        domain=np.concatenate([p.domain for p in parts])[kept],
        tokens=np.concatenate([p.tokens for p in parts])[kept],
        scores=np.concatenate([p.scores for p in parts])[kept],
    )


def _largest(counts: Counts) -> list[int]:
    order = np.argsort(-counts.documents, kind="stable")[:LARGEST]
    return [m for m in order.tolist() if counts.documents[m]]


def _group(name: str, domain: int | None, counts: Counts, names: Sequence[str]) -> Group:
    """Return the numbers of one domain, or of all documents where `domain` is None."""
    cells = slice(None) if domain is None else slice(domain, domain + 1)
    rows = np.ones(len(counts.draw), dtype=bool) if domain is None else counts.domain == domain
    goodness, tokens = -counts.scores[rows], counts.tokens[rows]
    known, criteria = ~np.isnan(goodness), len(names)
    correlation, pairs = np.full((criteria, criteria), np.nan), np.zeros((criteria, criteria), np.int64)
    for i in range(criteria):
        for j in range(i, criteria):
            both = known[:, i] & known[:, j]
            pairs[i, j] = pairs[j, i] = int(both.sum())
            correlation[i, j] = correlation[j, i] = _rho(goodness[both, i], goodness[both, j])
    documents = int(counts.documents[cells].sum())
    low, high = counts.low[cells].min(axis=0), counts.high[cells].max(axis=0)
    return Group(
        name=name,
        documents=documents,
        sampled=int(rows.sum()),
        correlation=correlation,
        pairs=pairs,
        length_bias=np.array([_rho(goodness[known[:, n], n], tokens[known[:, n]]) for n in range(criteria)]),
        coverage=counts.known[cells].sum(axis=0) / max(documents, 1),
        most_common=np.array([_mode_share(goodness[known[:, n], n]) for n in range(criteria)]),
        constant=tuple(n for n, same in zip(names, (low == high).tolist(), strict=True) if same),
    )


def _rho(a: NDArray[Any], b: NDArray[Any]) -> float:
    if len(a) < LEAST or a.min() == a.max() or b.min() == b.max():
        return float("nan")
    return spearman(a, b)


def _mode_share(values: NDArray[np.float32]) -> float:
    if not len(values):
        return float("nan")
    return float(np.unique(values, return_counts=True)[1].max() / len(values))


def _flat(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """Name the criteria that order nothing, or next to nothing, in all documents or inside a domain."""
    warnings: list[str] = []
    for n, name in enumerate(names):
        share = float(groups[0].most_common[n])
        if name in groups[0].constant:
            warnings.append(f"criterion {name!r} is constant: it orders nothing and only dilutes the others")
        elif share >= FLAT:
            warnings.append(f"criterion {name!r} is nearly constant: {share:.2%} of its scores are one value")
        else:
            flat = [
                f"{g.name} ({g.documents:,})"
                for g in groups[1:]
                if name in g.constant or (g.most_common[n] >= FLAT and g.sampled >= LEAST)
            ]
            if flat:
                warnings.append(f"criterion {name!r} is constant or nearly so in the domains {_first(flat)}")
    return warnings


def _redundant(group: Group, names: Sequence[str]) -> list[str]:
    warnings: list[str] = []
    for i, first in enumerate(names):
        for j in range(i + 1, len(names)):
            rho = float(group.correlation[i, j])
            if abs(rho) <= REDUNDANT or np.isnan(rho):
                continue
            told = (
                f"criteria {first!r} and {names[j]!r} have rank correlation {rho:+.2f} "
                f"(n = {group.pairs[i, j]:,})"
            )
            warnings.append(
                f"{told}: they order documents alike, one of them is enough" if rho > 0
                else f"{told}: they order documents in opposite ways; is one declared the wrong way round?"
            )  # fmt: skip
    return warnings


def _long(groups: Sequence[Group], names: Sequence[str]) -> list[str]:
    """Name the criteria that follow length in all documents, or in domains of at least 30."""
    warnings: list[str] = []
    for n, name in enumerate(names):
        found = [g for g in groups if abs(g.length_bias[n]) > LENGTH_BIAS]
        if not found:
            continue
        shown = _first([f"{g.name} {g.length_bias[n]:+.2f}" for g in found])
        warnings.append(
            f"criterion {name!r} follows document length (Spearman of goodness with tokens: {shown}); "
            "selecting by it is selecting by length"
        )
    return warnings


def _first(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if names[count:] else "")
