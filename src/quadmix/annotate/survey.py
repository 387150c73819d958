"""What the annotation parts hold in all, counted part by part, and the `Frame` that follows from it.

In: annotation parts as they were written, one at a time. Out: counts per label that add up over parts, and
the frame: which label is which domain, which scores fill gaps, who may be selected. The frame is small; with
it any part can be read on its own, in any process, exactly as it would be read with all the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.annotate.annotator import OTHER
from quadmix.codec import to_json
from quadmix.errors import IntegrityError, ScoreError
from quadmix.io.atomic import file_digest, read_table
from quadmix.recipe import DomainSection
from quadmix.rng import doc_keys, keyed_uniform
from quadmix.types import Annotations, CriterionInfo, Floats, Ints

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
Missing = Literal["renormalise", "median", "drop"]
SELECTABLE, HELD_OUT, MISSING_SCORE, OVERLAP = 0, 1, 2, 3
EXCLUDED_REASONS = ("selectable", "held_out", "missing_score", "overlaps_target_or_benchmark")
MAX_DOMAINS = 32_767
_SAMPLE = 200_000  # documents whose length is held against their scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """How a part is read.

    place: label -> index into domains. medians: (M, N), what fills a missing score, NaN where none is missing
    or `missing` is not "median". holdout: share of documents that are never selected. exclude_overlap: may
    documents that share a passage with a target or benchmark not be selected either?
    """

    criteria: tuple[CriterionInfo, ...]
    domains: tuple[str, ...]
    place: dict[str, int]
    missing: Missing
    medians: tuple[tuple[float, ...], ...]
    holdout: float
    seed: int
    exclude_overlap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartTask:
    """One part to read: where it lies and what its bytes must be ("" = not checked)."""

    path: str
    digest: str
    split: int
    frame: Frame
    sample: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One part in memory. excluded: (D,) int8, index into EXCLUDED_REASONS. overlap: (D,) int32 target
    bits."""

    table: Annotations
    excluded: NDArray[np.int8]
    overlap: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survey:
    """Counts per label (L), added over parts. known, low, high: (L, N) documents with a score and its range.

    open_documents, open_tokens: of documents that may be selected. sample: (S, 1 + N) float32, tokens and
    scores of some documents, chosen by their hash. dropped: reason -> documents.
    """

    labels: tuple[str, ...]
    documents: Ints
    tokens: Ints
    open_documents: Ints
    open_tokens: Ints
    known: Ints
    low: Floats
    high: Floats
    sample: NDArray[np.float32]
    dropped: dict[str, int]


def blank_frame(
    criteria: tuple[CriterionInfo, ...],
    *,
    missing: Missing,
    holdout: float,
    seed: int,
    domains: Sequence[str] = (),
    exclude_overlap: bool = False,
) -> Frame:
    """Return a frame that places no label yet, enough to survey parts. domains: fixed beforehand, or none."""
    return Frame(
        criteria=criteria, domains=tuple(domains), place={}, missing=missing, medians=(), holdout=holdout,
        seed=seed, exclude_overlap=exclude_overlap,
    )  # fmt: skip


def frame_facts(frame: Frame) -> dict[str, Any]:
    """Return what determines how parts are read, for digests."""
    facts = to_json(frame)
    if not frame.exclude_overlap:
        del facts["exclude_overlap"]  # frames without it have the digests of before it was there
    return facts


def sample_share(documents: int) -> float:
    """Return the share of documents that a survey keeps whole."""
    return min(1.0, _SAMPLE / max(documents, 1))


def survey_part(task: PartTask) -> Survey:
    """Count one part per label."""
    raw = read_raw(task, ids=False)
    scores, tokens, keys = oriented(raw, task.frame.criteria), raw["tokens"].to_numpy(), part_keys(raw)
    labels, index = encode_labels(raw["domain"])
    excluded = exclude(scores, keys, part_overlap(raw), task.frame)
    count, criteria = len(labels), scores.shape[1]
    reasons = (HELD_OUT, MISSING_SCORE, OVERLAP) if task.frame.exclude_overlap else (HELD_OUT, MISSING_SCORE)
    is_open = excluded == SELECTABLE
    known = ~np.isnan(scores)
    chosen = keyed_uniform(task.frame.seed, keys, "survey") < task.sample
    return Survey(
        labels=labels,
        documents=np.bincount(index, minlength=count),
        tokens=_sums(index, tokens, count),
        open_documents=np.bincount(index[is_open], minlength=count),
        open_tokens=_sums(index[is_open], tokens[is_open], count),
        known=np.stack([np.bincount(index[known[:, n]], minlength=count) for n in range(criteria)], axis=1),
        low=_per_label(np.minimum, np.where(known, scores, np.inf), index, count),
        high=_per_label(np.maximum, np.where(known, scores, -np.inf), index, count),
        sample=np.column_stack([tokens[chosen].astype(np.float32), scores[chosen]]),
        dropped={EXCLUDED_REASONS[c]: int((excluded == c).sum()) for c in reasons},
    )


def _sums(index: Ints, tokens: NDArray[np.int32], count: int) -> Ints:
    # exact: the tokens of one part are far below 2^53
    return np.bincount(index, weights=tokens, minlength=count).astype(np.int64)


def _per_label(least: np.ufunc, scores: NDArray[np.floating], index: Ints, count: int) -> Floats:
    """Return (L, N) the least (or greatest) score of each label; every label occurs."""
    if not count:
        return np.empty((0, scores.shape[1]))
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(count))
    return least.reduceat(scores[order], starts, axis=0).astype(np.float64)


def add_surveys(surveys: Sequence[Survey]) -> Survey:
    """Return the counts of all parts together, labels sorted."""
    labels = tuple(sorted({name for s in surveys for name in s.labels}))
    place = {name: i for i, name in enumerate(labels)}
    rows = [np.array([place[n] for n in s.labels], dtype=np.int64) for s in surveys]
    criteria = surveys[0].known.shape[1]

    def add(values: Sequence[Ints]) -> Ints:
        total = np.zeros((len(labels), *values[0].shape[1:]), dtype=np.int64)
        for at, value in zip(rows, values, strict=True):
            total[at] += value
        return total

    low, high = np.full((len(labels), criteria), np.inf), np.full((len(labels), criteria), -np.inf)
    for at, survey in zip(rows, surveys, strict=True):
        low[at], high[at] = np.minimum(low[at], survey.low), np.maximum(high[at], survey.high)
    return Survey(
        labels=labels,
        documents=add([s.documents for s in surveys]),
        tokens=add([s.tokens for s in surveys]),
        open_documents=add([s.open_documents for s in surveys]),
        open_tokens=add([s.open_tokens for s in surveys]),
        known=add([s.known for s in surveys]),
        low=low,
        high=high,
        sample=np.concatenate([s.sample for s in surveys]),
        dropped={r: sum(s.dropped[r] for s in surveys) for r in surveys[0].dropped},
    )


def place_labels(survey: Survey, section: DomainSection) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the domains (sorted, `other` last) and label -> domain; tiny labels become `other`."""
    share = survey.tokens / max(int(survey.tokens.sum()), 1)
    tiny = (survey.documents < section.min_documents) | (share < section.min_token_share)
    if len(survey.labels) == 1:
        tiny = np.zeros(1, dtype=bool)  # there is nothing to merge with
    new = [OTHER if t else n for n, t in zip(survey.labels, tiny.tolist(), strict=True)]
    domains = sorted(set(new) - {OTHER}) + ([OTHER] if OTHER in new else [])
    if len(domains) > MAX_DOMAINS:
        raise ScoreError(
            f"{len(domains)} domains, expected at most {MAX_DOMAINS}; is the column a domain and not an id? "
            "Raise annotate.domain.min_documents to merge small ones"
        )
    index = {name: i for i, name in enumerate(domains)}
    return tuple(domains), {label: index[n] for label, n in zip(survey.labels, new, strict=True)}


def place_onto(labels: Sequence[str], domains: Sequence[str]) -> dict[str, int]:
    """Return label -> index in `domains`, which another corpus gave; unknown labels become `other`."""
    index = {name: i for i, name in enumerate(domains)}
    unknown = [name for name in labels if name not in index]
    if unknown and OTHER not in index:
        shown = ", ".join(map(repr, unknown[:5])) + (f" and {len(unknown) - 5} more" if unknown[5:] else "")
        raise ScoreError(
            f"the corpus has the domains {shown}, for which θ has no parameters (it has "
            f"{', '.join(domains)}, and no {OTHER!r}); search on documents of all domains, or take these out"
        )
    return {name: index.get(name, index.get(OTHER, -1)) for name in labels}


def frame_of(
    blank: Frame, survey: Survey, section: DomainSection, tasks: Sequence[PartTask], mapper: Mapper
) -> Frame:
    """Return the frame of the surveyed parts; reads them once more where medians are asked for.

    Domains that stand in `blank` already are kept, and the labels are fitted onto them.
    """
    domains, place = (
        (blank.domains, place_onto(survey.labels, blank.domains))
        if blank.domains
        else place_labels(survey, section)
    )
    frame = replace(blank, domains=domains, place=place)
    size = (len(domains), len(blank.criteria))
    medians = np.full(size, np.nan)
    if blank.missing == "median":
        documents, known = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        at = np.array([place[n] for n in survey.labels], dtype=np.int64)
        np.add.at(documents, at, survey.documents[:, None])
        np.add.at(known, at, survey.known)
        cells = [(int(m), int(n)) for m, n in np.argwhere(known < documents)]
        if empty := [c for c in cells if not known[c]]:
            raise ScoreError(
                f"criterion {frame.criteria[empty[0][1]].name!r} has no score in domain "
                f"{domains[empty[0][0]]!r}, so there is no median; use annotate.missing: renormalise"
            )
        parts = mapper(partial(_cell_values, cells=tuple(cells)), [replace(t, frame=frame) for t in tasks])
        for i, cell in enumerate(cells):
            medians[cell] = np.median(np.concatenate([p[i] for p in parts]))
    return replace(frame, medians=tuple(map(tuple, medians.tolist())))


def _cell_values(task: PartTask, cells: tuple[tuple[int, int], ...]) -> list[NDArray[np.float32]]:
    """Return the known scores of one part in each (domain, criterion) of `cells`."""
    raw = read_raw(task, ids=False)
    scores, domain = oriented(raw, task.frame.criteria), domain_index(raw, task)
    return [scores[(domain == m) & ~np.isnan(scores[:, n]), n] for m, n in cells]


def load_part(task: PartTask, *, ids: bool = True) -> Part:
    """Read one part in its frame; ids: False leaves `doc_id` null, for passes over numbers alone."""
    raw = read_raw(task, ids=ids)
    scores, keys, domain = oriented(raw, task.frame.criteria), part_keys(raw), domain_index(raw, task)
    overlap = part_overlap(raw)
    excluded = exclude(scores, keys, overlap, task.frame)
    if task.frame.missing == "median":
        fill = np.array(task.frame.medians, dtype=np.float32)[domain]
        scores = np.where(np.isnan(scores), fill, scores)
    table = Annotations(
        doc_id=raw["doc_id"] if ids else pa.chunked_array([pa.nulls(len(keys), pa.string())]),
        keys=keys,
        tokens=raw["tokens"].to_numpy().astype(np.int32),
        domain=domain,
        scores=scores,
        held_out=excluded == HELD_OUT,
        split=np.full(len(keys), task.split, dtype=np.int32),
        criteria=task.frame.criteria,
        domains=task.frame.domains,
    )
    return Part(table=table, excluded=excluded, overlap=overlap)


def read_raw(task: PartTask, *, ids: bool = True) -> pa.Table:
    """Read a part as it was written; IntegrityError if it is gone or not what the manifest says.

    ids: False leaves out doc_id, most of its bytes, where the part has the keys.
    """
    path = Path(task.path)
    if not path.is_file() or (task.digest and file_digest(path) != task.digest):
        raise IntegrityError(
            f"{path} is absent or differs from annotations/manifest.json; run the annotate stage again"
        )
    numbers = ["key", "tokens", "domain", "overlap", *(f"score:{c.name}" for c in task.frame.criteria)]
    table = read_table(path, None if ids else numbers)
    if "key" not in table.column_names and not ids:
        table = read_table(path)
    return table.replace_schema_metadata(None)


def exclude(
    scores: NDArray[np.float32], keys: NDArray[np.uint64], overlap: NDArray[np.int32], frame: Frame
) -> NDArray[np.int8]:
    """Return (D,) why a document may not be selected: the first that holds of held out, missing score,
    overlap. So the last counts what excluding overlaps alone costs."""
    held_out = keyed_uniform(frame.seed, keys, "holdout") < frame.holdout
    missing = np.isnan(scores)
    gone = missing.any(axis=1) if frame.missing == "drop" else missing.all(axis=1)
    shared = (overlap != 0) & frame.exclude_overlap
    out = np.where(shared, OVERLAP, SELECTABLE)
    return np.where(held_out, HELD_OUT, np.where(gone, MISSING_SCORE, out)).astype(np.int8)


def part_overlap(raw: pa.Table) -> NDArray[np.int32]:
    """Return (D,) the target bits; 0 where the part has none."""
    return raw["overlap"].to_numpy() if "overlap" in raw.column_names else np.zeros(len(raw), np.int32)


def oriented(raw: pa.Table, criteria: Sequence[CriterionInfo]) -> NDArray[np.float32]:
    """Return (D, N) float32 with smaller = better: scores of `higher` criteria are negated."""
    columns = [raw[f"score:{c.name}"].to_numpy() for c in criteria]
    signs = [np.float32(-1.0 if c.declared == "higher" else 1.0) for c in criteria]
    return np.stack([column * s for column, s in zip(columns, signs, strict=True)], axis=1)


def part_keys(raw: pa.Table) -> NDArray[np.uint64]:
    """Return (D,) the hashes of the document ids."""
    return raw["key"].to_numpy() if "key" in raw.column_names else doc_keys(raw["doc_id"].to_pylist())


def encode_labels(labels: pa.ChunkedArray) -> tuple[tuple[str, ...], Ints]:
    """Return the distinct labels and (D,) the index of each document's."""
    encoded = labels.combine_chunks().dictionary_encode()
    return tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy(zero_copy_only=False).astype(
        np.int64
    )


def domain_index(raw: pa.Table, task: PartTask) -> NDArray[np.int16]:
    """Return (D,) the domain of each document."""
    labels, index = encode_labels(raw["domain"])
    place: Mapping[str, int] = task.frame.place
    if unknown := [n for n in labels if n not in place]:
        raise IntegrityError(
            f"{task.path} has the domain label {unknown[0]!r}, which no domain of the run stands for; run "
            "the annotate stage again"
        )
    return np.array([place[n] for n in labels], dtype=np.int16)[index] if labels else np.empty(0, np.int16)
