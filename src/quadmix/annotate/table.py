"""The annotations of all splits as one table the method works on: checked, oriented, domains merged.

In: the parts under annotations/ and the recipe's `annotate` section. Out: `LoadedAnnotations`. Here scores
turn round to smaller = better, tiny domains become `other`, coverage is held against its threshold
(promise P8), and documents that must not be selected get a reason, so that counts still add up (P4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.annotate.annotator import OTHER
from quadmix.annotate.run import AnnotationManifest, counts_by_split, manifest_path, part_path
from quadmix.annotate.trained import spearman
from quadmix.errors import IntegrityError, ScoreError
from quadmix.io.atomic import file_digest, read_table, read_value
from quadmix.recipe import AnnotateSection, DomainSection
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import Annotations, Corpus, CriterionInfo

SELECTABLE, HELD_OUT, MISSING_SCORE = 0, 1, 2
EXCLUDED_REASONS = ("selectable", "held_out", "missing_score")
MAX_DOMAINS = 32_767
LENGTH_BIAS = 0.8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedAnnotations:
    """table: all documents of the corpus in its order.

    excluded: (D,) int8, index into EXCLUDED_REASONS; only documents with 0 may be selected.
    coverage: criterion -> domain -> share of documents with a score. merged_domains: label -> documents
    that became `other`. dropped: reason -> documents. length_bias: criterion -> Spearman correlation of
    goodness with tokens. overlap: (D,) int32, the target bits.
    """

    table: Annotations
    excluded: NDArray[np.int8]
    overlap: NDArray[np.int32]
    coverage: dict[str, dict[str, float]]
    merged_domains: dict[str, int]
    dropped: dict[str, int]
    length_bias: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def selectable(self) -> Annotations:
        """The documents that may be selected, in order."""
        return self.table.take(self.excluded == SELECTABLE)


def load_annotations(
    folder: str | Path, corpus: Corpus, section: AnnotateSection, *, holdout: float, seed: int
) -> LoadedAnnotations:
    """Read all parts, check them, and return the table.

    Raises IntegrityError for parts that do not fit the manifest or corpus, ScoreError for a criterion
    that is missing everywhere or below `min_coverage`, or more domains than can be numbered.
    """
    manifest = read_value(manifest_path(folder), AnnotationManifest)
    _check_manifest(manifest, corpus, section)
    raw, split = _read_parts(folder, corpus, manifest)
    tokens = raw["tokens"].to_numpy().astype(np.int32)
    domain, domains, merged = _domains(raw["domain"], tokens, section.domain)
    criteria = tuple(
        CriterionInfo(
            name=c.name,
            declared="lower" if c.direction == "lower" else "higher",
            kind=c.kind,
            digest=c.digest,
        )
        for c in manifest.criteria
    )
    scores = _oriented(raw, criteria)
    coverage = _coverage(scores, domain, criteria, domains)
    _check_coverage(scores, criteria, manifest, section.min_coverage)
    keys = doc_keys(raw["doc_id"].to_pylist())
    held_out = keyed_uniform(seed, keys, "holdout") < holdout
    gone = np.isnan(scores).any(axis=1) if section.missing == "drop" else np.isnan(scores).all(axis=1)
    excluded = np.where(held_out, HELD_OUT, np.where(gone, MISSING_SCORE, SELECTABLE)).astype(np.int8)
    bias = {c.name: _length_bias(scores[:, j], tokens) for j, c in enumerate(criteria)}
    warnings = [
        *manifest.warnings,
        *_missing_warnings(manifest),
        *_constant(scores, domain, criteria, domains),
    ]
    warnings += _domain_warnings(merged, np.bincount(domain, minlength=len(domains)), domains, section.domain)
    warnings += [_length_warning(name, rho) for name, rho in bias.items() if abs(rho) > LENGTH_BIAS]
    if section.missing == "median":
        scores = _filled(scores, domain, criteria, domains)
    dropped = {EXCLUDED_REASONS[c]: int((excluded == c).sum()) for c in (HELD_OUT, MISSING_SCORE)}
    table = Annotations(
        doc_id=raw["doc_id"], keys=keys, tokens=tokens, domain=domain, scores=scores, held_out=held_out,
        split=split, criteria=criteria, domains=domains,
    )  # fmt: skip
    return LoadedAnnotations(
        table=table, excluded=excluded, overlap=raw["overlap"].to_numpy(), coverage=coverage,
        merged_domains=merged, dropped=dropped, length_bias=bias, warnings=tuple(warnings),
    )  # fmt: skip


def _check_manifest(manifest: AnnotationManifest, corpus: Corpus, section: AnnotateSection) -> None:
    got, expected = [c.name for c in manifest.criteria], [c.name for c in section.criteria]
    if manifest.corpus != corpus.digest or got != expected:
        raise IntegrityError(
            f"annotations are of corpus {manifest.corpus} with criteria {got}, expected corpus "
            f"{corpus.digest} with {expected}; run the annotate stage again"
        )


def _read_parts(
    folder: str | Path, corpus: Corpus, manifest: AnnotationManifest
) -> tuple[pa.Table, NDArray[np.int32]]:
    """Return the parts in corpus order as one table, and the split of every row."""
    counts, parts = counts_by_split(corpus), {p.name: p for p in manifest.parts}
    tables: list[pa.Table] = []
    for split in corpus.splits:
        path = part_path(folder, split.index)
        expected = counts[split.index].documents
        if not path.is_file() or path.name not in parts or file_digest(path) != parts[path.name].digest:
            raise IntegrityError(
                f"{path} is absent or differs from annotations/manifest.json; run the annotate stage again"
            )
        table = read_table(path).replace_schema_metadata(None)
        if table.num_rows != expected:
            raise IntegrityError(
                f"{path} has {table.num_rows} documents, expected {expected}; run the annotate stage again"
            )
        tables.append(table)
    rows = [t.num_rows for t in tables]
    split_of = np.repeat(np.array([s.index for s in corpus.splits], np.int32), rows)
    return pa.concat_tables(tables), split_of


def _domains(
    labels: pa.ChunkedArray, tokens: NDArray[np.int32], section: DomainSection
) -> tuple[NDArray[np.int16], tuple[str, ...], dict[str, int]]:
    """Return the (D,) domain index, the names (sorted, `other` last), and what was merged into `other`."""
    encoded = labels.combine_chunks().dictionary_encode()
    names: list[str] = encoded.dictionary.to_pylist()
    index = encoded.indices.to_numpy(zero_copy_only=False)
    documents = np.bincount(index, minlength=len(names))
    share = np.bincount(index, weights=tokens, minlength=len(names)) / max(int(tokens.sum(dtype=np.int64)), 1)
    tiny = (documents < section.min_documents) | (share < section.min_token_share)
    if len(names) == 1:
        tiny[:] = False  # there is nothing to merge with
    new = [OTHER if t else n for n, t in zip(names, tiny.tolist(), strict=True)]
    kept = sorted(set(new) - {OTHER}) + ([OTHER] if OTHER in new else [])
    if len(kept) > MAX_DOMAINS:
        raise ScoreError(
            f"{len(kept)} domains, expected at most {MAX_DOMAINS}; is the column a domain and not an id? "
            "Raise annotate.domain.min_documents to merge small ones"
        )
    place = {n: i for i, n in enumerate(kept)}
    lookup = np.array([place[n] for n in new], np.int16)
    merged = {n: int(c) for n, c, t in zip(names, documents, tiny, strict=True) if t and n != OTHER}
    return lookup[index], tuple(kept), dict(sorted(merged.items()))


def _oriented(raw: pa.Table, criteria: Sequence[CriterionInfo]) -> NDArray[np.float32]:
    """Return (D, N) float32 with smaller = better: scores of `higher` criteria are negated."""
    columns = [raw[f"score:{c.name}"].to_numpy() for c in criteria]
    signs = [np.float32(-1.0 if c.declared == "higher" else 1.0) for c in criteria]
    return np.stack([column * s for column, s in zip(columns, signs, strict=True)], axis=1)


def _coverage(
    scores: NDArray[np.float32], domain: NDArray[np.int16],
    criteria: Sequence[CriterionInfo], domains: Sequence[str],
) -> dict[str, dict[str, float]]:  # fmt: skip
    size = np.bincount(domain, minlength=len(domains))
    shares = {
        c.name: np.bincount(domain, weights=~np.isnan(scores[:, j]), minlength=len(domains)) / size
        for j, c in enumerate(criteria)
    }
    return {name: dict(zip(domains, s.tolist(), strict=True)) for name, s in shares.items()}


def _check_coverage(
    scores: NDArray[np.float32],
    criteria: Sequence[CriterionInfo],
    manifest: AnnotationManifest,
    least: float,
) -> None:
    for j, criterion in enumerate(criteria):
        share = float((~np.isnan(scores[:, j])).mean())
        reasons = manifest.missing.get(f"score:{criterion.name}", {})
        why = ", ".join(f"{r}: {n}" for r, n in reasons.items())
        if share == 0.0:
            raise ScoreError(
                f"criterion {criterion.name!r} has a score for no document ({why}); check its column or "
                "remove it from annotate.criteria"
            )
        if share < least:
            raise ScoreError(
                f"criterion {criterion.name!r} covers {share:.4%} of the documents, expected at least "
                f"{least:.4%} ({why}); complete the scores or lower annotate.min_coverage"
            )


def _missing_warnings(manifest: AnnotationManifest) -> list[str]:
    return [
        f"{name}: {reason} for {count} of {manifest.documents} documents"
        for name, reasons in manifest.missing.items()
        for reason, count in reasons.items()
    ]


def _constant(
    scores: NDArray[np.float32], domain: NDArray[np.int16],
    criteria: Sequence[CriterionInfo], domains: Sequence[str],
) -> list[str]:  # fmt: skip
    """Name criteria that order nothing, in all documents or inside a domain."""
    warnings: list[str] = []
    for j, criterion in enumerate(criteria):
        column = scores[:, j]
        known = ~np.isnan(column)
        low, high = np.full(len(domains), np.inf), np.full(len(domains), -np.inf)
        np.minimum.at(low, domain[known], column[known])
        np.maximum.at(high, domain[known], column[known])
        if low.min() == high.max():
            warnings.append(
                f"criterion {criterion.name!r} is constant: it orders nothing and only dilutes the others"
            )
        elif flat := [d for d, same in zip(domains, (low == high).tolist(), strict=True) if same]:
            shown = ", ".join(flat[:5]) + (f" and {len(flat) - 5} more" if len(flat) > 5 else "")
            warnings.append(f"criterion {criterion.name!r} is constant in the domains {shown}")
    return warnings


def _domain_warnings(
    merged: dict[str, int], sizes: NDArray[np.int64], domains: Sequence[str], section: DomainSection
) -> list[str]:
    if not merged:
        return []
    largest = sorted(merged, key=lambda n: -merged[n])[:5]
    shown = ", ".join(f"{n} ({merged[n]})" for n in largest) + (", ..." if len(merged) > 5 else "")
    warnings = [f"{len(merged)} small domains with {sum(merged.values())} documents became `other`: {shown}"]
    size = int(sizes[domains.index(OTHER)])
    if size < section.min_documents:
        warnings.append(
            f"domain `other` has only {size} documents, fewer than min_documents = {section.min_documents}"
        )
    return warnings


def _filled(
    scores: NDArray[np.float32], domain: NDArray[np.int16],
    criteria: Sequence[CriterionInfo], domains: Sequence[str],
) -> NDArray[np.float32]:  # fmt: skip
    """Return the scores with every missing one replaced by the median of its criterion in its domain."""
    filled = scores.copy()
    for row, j in {(int(domain[d]), int(j)) for d, j in np.argwhere(np.isnan(scores))}:
        inside = domain == row
        known = scores[inside & ~np.isnan(scores[:, j]), j]
        if not len(known):
            raise ScoreError(
                f"criterion {criteria[j].name!r} has no score in domain {domains[row]!r}, so there is no "
                "median; use annotate.missing: renormalise"
            )
        filled[inside & np.isnan(scores[:, j]), j] = np.median(known)
    return filled


def _length_bias(score: NDArray[np.float32], tokens: NDArray[np.int32]) -> float:
    known = ~np.isnan(score)
    return spearman(-score[known], tokens[known].astype(np.float64))


def _length_warning(name: str, rho: float) -> str:
    return (
        f"criterion {name!r} follows document length (Spearman {rho:+.2f} of goodness with tokens); "
        "selecting by it is selecting by length"
    )
