"""The annotations of all splits as one table the method works on: checked, oriented, domains merged.

In: the parts under annotations/ and the recipe's `annotate` section. Out: `LoadedAnnotations`. Here scores
turn round to smaller = better, tiny domains become `other`, coverage is held against its threshold
(promise P8), and documents that must not be selected get a reason, so that counts still add up (P4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.annotate.annotator import OTHER
from quadmix.annotate.run import AnnotationManifest, counts_by_split, manifest_path, part_path
from quadmix.annotate.survey import (
    EXCLUDED_REASONS,
    SELECTABLE,
    Frame,
    Mapper,
    Missing,
    Part,
    PartTask,
    Survey,
    add_surveys,
    blank_frame,
    frame_of,
    load_part,
    sample_share,
    survey_part,
)
from quadmix.annotate.trained import spearman
from quadmix.errors import IntegrityError, ScoreError
from quadmix.io.atomic import read_value, table_rows, value_digest
from quadmix.recipe import AnnotateSection, DomainSection
from quadmix.types import Annotations, Corpus, CriterionInfo, Floats

LENGTH_BIAS = 0.8
__all__ = ["EXCLUDED_REASONS", "SELECTABLE", "LoadedAnnotations", "Surveyed", "load_annotations", "survey"]


def _serial(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
    return [function(task) for task in tasks]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surveyed:
    """The annotations as counts, without one document in memory.

    tasks: one per split, from which `load_part` reads it. open_documents, open_tokens: (M,) of documents that
    may be selected. coverage: criterion -> domain -> share of documents with a score. merged_domains: label
    -> documents that became `other`. dropped: reason -> documents. length_bias: criterion -> Spearman
    correlation of goodness with tokens (of at most about 200,000 documents). digest: of all parts.
    """

    frame: Frame
    tasks: tuple[PartTask, ...]
    open_documents: Floats
    open_tokens: Floats
    coverage: dict[str, dict[str, float]]
    merged_domains: dict[str, int]
    dropped: dict[str, int]
    length_bias: dict[str, float]
    warnings: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedAnnotations:
    """table: all documents of the corpus in its order.

    excluded: (D,) int8, index into EXCLUDED_REASONS; only documents with 0 may be selected. overlap: (D,)
    int32, the target bits. surveyed: the counts, and how to read the same documents part by part.
    """

    table: Annotations
    excluded: NDArray[np.int8]
    overlap: NDArray[np.int32]
    surveyed: Surveyed

    @property
    def selectable(self) -> Annotations:
        """The documents that may be selected, in order."""
        return self.table.take(self.excluded == SELECTABLE)


def survey(
    folder: str | Path,
    corpus: Corpus,
    section: AnnotateSection,
    *,
    holdout: float,
    seed: int,
    domains: Sequence[str] = (),
    mapper: Mapper = _serial,
) -> Surveyed:
    """Count all parts, check them, and return what is needed to read any of them alone.

    domains: of a θ that was found elsewhere; left out, they are the labels that are not too small. Raises
    IntegrityError for parts that do not fit the manifest or corpus, ScoreError for a criterion that is
    missing everywhere or below `min_coverage`, or more domains than can be numbered.
    """
    manifest = read_value(manifest_path(folder), AnnotationManifest)
    _check_manifest(manifest, corpus, section)
    criteria = tuple(
        CriterionInfo(
            name=c.name,
            declared="lower" if c.direction == "lower" else "higher",
            kind=c.kind,
            digest=c.digest,
        )
        for c in manifest.criteria
    )
    blank = blank_frame(
        criteria, missing=section.missing, holdout=holdout, seed=seed, domains=domains,
        exclude_overlap=section.exclude_overlap,
    )  # fmt: skip
    surveyed, totals = _survey(_part_tasks(folder, corpus, manifest, blank), blank, section.domain, mapper)
    _check_coverage(totals, criteria, manifest, section.min_coverage)
    notes = [*manifest.warnings, *_missing_warnings(manifest)]
    return replace(
        surveyed,
        warnings=(*notes, *surveyed.warnings),
        digest=value_digest([p.digest for p in manifest.parts]),
    )


def survey_parts(
    paths: Sequence[str | Path],
    criteria: tuple[CriterionInfo, ...],
    domain: DomainSection,
    *,
    missing: Missing = "renormalise",
    holdout: float = 0.0,
    seed: int = 0,
    mapper: Mapper = _serial,
) -> Surveyed:
    """Count annotation parts that lie anywhere, without a corpus: Parquet files with the columns doc_id,
    tokens, domain and `score:<criterion>` (float32 as delivered, NaN = missing), and `key` if there is one.

    The bytes of the parts are not checked against any manifest.
    """
    blank = blank_frame(criteria, missing=missing, holdout=holdout, seed=seed)
    sizes = [table_rows(path) for path in paths]
    share = sample_share(sum(sizes))
    tasks = [
        PartTask(path=str(path), digest="", split=i, frame=blank, sample=share)
        for i, path in enumerate(paths)
    ]
    surveyed, _ = _survey(tasks, blank, domain, mapper)
    return replace(surveyed, digest=value_digest([[str(p), n] for p, n in zip(paths, sizes, strict=True)]))


def _survey(
    tasks: Sequence[PartTask], blank: Frame, section: DomainSection, mapper: Mapper
) -> tuple[Surveyed, "_DomainCounts"]:
    counted = add_surveys(mapper(survey_part, tasks))
    frame = frame_of(blank, counted, section, tasks, mapper)
    totals = _DomainCounts.of(counted, frame)
    merged = _merged(counted, frame)
    bias = _length_bias(counted, frame.criteria)
    warnings = _constant(totals, frame)
    warnings += _domain_warnings(merged, totals.documents, frame.domains, section)
    warnings += [_length_warning(name, rho) for name, rho in bias.items() if abs(rho) > LENGTH_BIAS]
    surveyed = Surveyed(
        frame=frame,
        tasks=tuple(replace(t, frame=frame) for t in tasks),
        open_documents=totals.open_documents,
        open_tokens=totals.open_tokens,
        coverage=_coverage(totals, frame),
        merged_domains=merged,
        dropped=counted.dropped,
        length_bias=bias,
        warnings=tuple(warnings),
        digest="",
    )
    return surveyed, totals


def load_annotations(
    folder: str | Path,
    corpus: Corpus,
    section: AnnotateSection,
    *,
    holdout: float,
    seed: int,
    mapper: Mapper = _serial,
) -> LoadedAnnotations:
    """Read all parts as one table, 60 bytes per document and its id; see `survey` for what is raised."""
    surveyed = survey(folder, corpus, section, holdout=holdout, seed=seed, mapper=mapper)
    return load_table(surveyed)


def load_table(surveyed: Surveyed) -> LoadedAnnotations:
    """Read the surveyed parts into one table."""
    parts: list[Part] = [load_part(replace(task, digest="")) for task in surveyed.tasks]
    return LoadedAnnotations(
        table=_joined([p.table for p in parts]),
        excluded=np.concatenate([p.excluded for p in parts]),
        overlap=np.concatenate([p.overlap for p in parts]),
        surveyed=surveyed,
    )


def _joined(tables: Sequence[Annotations]) -> Annotations:
    return Annotations(
        doc_id=pa.chunked_array([c for t in tables for c in t.doc_id.chunks], pa.string()),
        keys=np.concatenate([t.keys for t in tables]),
        tokens=np.concatenate([t.tokens for t in tables]),
        domain=np.concatenate([t.domain for t in tables]),
        scores=np.concatenate([t.scores for t in tables]),
        held_out=np.concatenate([t.held_out for t in tables]),
        split=np.concatenate([t.split for t in tables]),
        criteria=tables[0].criteria,
        domains=tables[0].domains,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _DomainCounts:
    """The survey's counts per domain (M) instead of per label."""

    documents: Floats
    open_documents: Floats
    open_tokens: Floats
    known: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, counted: Survey, frame: Frame) -> "_DomainCounts":
        at = np.array([frame.place[n] for n in counted.labels], dtype=np.int64)
        size = (len(frame.domains), len(frame.criteria))

        def total(values: NDArray[np.int64]) -> Floats:
            out = np.zeros((size[0], *values.shape[1:]))
            np.add.at(out, at, values)
            return out

        low, high = np.full(size, np.inf), np.full(size, -np.inf)
        np.minimum.at(low, at, counted.low)
        np.maximum.at(high, at, counted.high)
        return cls(
            documents=total(counted.documents),
            open_documents=total(counted.open_documents),
            open_tokens=total(counted.open_tokens),
            known=total(counted.known),
            low=low,
            high=high,
        )


def _check_manifest(manifest: AnnotationManifest, corpus: Corpus, section: AnnotateSection) -> None:
    got, expected = [c.name for c in manifest.criteria], [c.name for c in section.criteria]
    if manifest.corpus != corpus.digest or got != expected:
        raise IntegrityError(
            f"annotations are of corpus {manifest.corpus} with criteria {got}, expected corpus "
            f"{corpus.digest} with {expected}; run the annotate stage again"
        )


def _part_tasks(
    folder: str | Path, corpus: Corpus, manifest: AnnotationManifest, blank: Frame
) -> list[PartTask]:
    """Return a task per split in corpus order; every part must hold the documents that were counted."""
    counts, parts = counts_by_split(corpus), {p.name: p for p in manifest.parts}
    tasks: list[PartTask] = []
    for split in corpus.splits:
        path = part_path(folder, split.index)
        expected = counts[split.index].documents
        if path.name not in parts:
            raise IntegrityError(
                f"{path} is absent or differs from annotations/manifest.json; run the annotate stage again"
            )
        if parts[path.name].rows != expected:
            raise IntegrityError(
                f"{path} has {parts[path.name].rows} documents, expected {expected}; run the annotate stage "
                "again"
            )
        share = sample_share(manifest.documents)
        tasks.append(
            PartTask(
                path=str(path), digest=parts[path.name].digest, split=split.index, frame=blank, sample=share
            )
        )
    return tasks


def _merged(counted: Survey, frame: Frame) -> dict[str, int]:
    """Return label -> documents of the labels that became `other`."""
    pairs = zip(counted.labels, counted.documents.tolist(), strict=True)
    return {n: int(d) for n, d in pairs if n != OTHER and frame.domains[frame.place[n]] == OTHER}


def _coverage(totals: _DomainCounts, frame: Frame) -> dict[str, dict[str, float]]:
    shares = totals.known / np.maximum(totals.documents, 1.0)[:, None]
    return {
        c.name: dict(zip(frame.domains, shares[:, n].tolist(), strict=True))
        for n, c in enumerate(frame.criteria)
    }


def _check_coverage(
    totals: _DomainCounts,
    criteria: Sequence[CriterionInfo],
    manifest: AnnotationManifest,
    least: float,
) -> None:
    documents = max(totals.documents.sum(), 1)
    for j, criterion in enumerate(criteria):
        share = float(totals.known[:, j].sum() / documents)
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


def _constant(totals: _DomainCounts, frame: Frame) -> list[str]:
    """Name criteria that order nothing, in all documents or inside a domain."""
    warnings: list[str] = []
    for j, criterion in enumerate(frame.criteria):
        low, high = totals.low[:, j], totals.high[:, j]
        if low.min() == high.max():
            warnings.append(
                f"criterion {criterion.name!r} is constant: it orders nothing and only dilutes the others"
            )
        elif flat := [d for d, same in zip(frame.domains, (low == high).tolist(), strict=True) if same]:
            shown = ", ".join(flat[:5]) + (f" and {len(flat) - 5} more" if len(flat) > 5 else "")
            warnings.append(f"criterion {criterion.name!r} is constant in the domains {shown}")
    return warnings


def _domain_warnings(
    merged: dict[str, int], sizes: Floats, domains: Sequence[str], section: DomainSection
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


def _length_bias(counted: Survey, criteria: Sequence[CriterionInfo]) -> dict[str, float]:
    tokens, out = counted.sample[:, 0].astype(np.float64), dict[str, float]()
    for j, criterion in enumerate(criteria):
        score = counted.sample[:, 1 + j]
        known = ~np.isnan(score)
        out[criterion.name] = spearman(-score[known], tokens[known])
    return out


def _length_warning(name: str, rho: float) -> str:
    return (
        f"criterion {name!r} follows document length (Spearman {rho:+.2f} of goodness with tokens); "
        "selecting by it is selecting by length"
    )
