"""Annotate one split of the corpus: text in, one Parquet part of numbers out.

Each part holds doc_id, key (its hash), tokens, domain (the label), overlap (a bit per target) and one
`score:<criterion>` float32 column as delivered, in the order of the corpus. A part names in its metadata the
digest of all it depends on and what it counted, so a second run skips it (promise P6). `finish_annotations`
writes the manifest after the last part; without it the annotations do not exist (promise P3).
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.annotate.annotator import Annotator, AnnotatorCard, Scored
from quadmix.annotate.fallback import ask_batch
from quadmix.annotate.overlap import BITS, Hashes, ngram_hashes, overlap_bits
from quadmix.annotate.partial import WORK, annotate_batches, partial_path
from quadmix.annotate.prepare import AnnotatorSet
from quadmix.corpus.columns import column_values
from quadmix.corpus.read import DocBatch, read_documents
from quadmix.corpus.tokenizer import Tokenizer
from quadmix.errors import IntegrityError
from quadmix.io.atomic import (
    file_digest,
    map_array,
    read_table,
    read_value,
    table_rows,
    value_digest,
    write_array,
    write_json,
    write_table,
)
from quadmix.rng import doc_keys
from quadmix.types import Corpus, ShardInfo, SplitCount, from_json, to_json

VERSION = 2
_META = b"quadmix.annotations"
_MAX_TOKENS = np.iinfo(np.int32).max
REST = "others"  # name of the overlap count shared by the targets from the 31st on


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapIndex:
    """Hashes of the targets' 13-grams on disk, one sorted uint64 .npy per target."""

    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    ngrams: tuple[int, ...] = ()
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotateTask:
    """One split to annotate; everything else is found in the run folder. `digest` names the work.
    committed: digest of the part in a finished manifest, "" where there is none. checkpoint: seconds after
    which the work of slow raters on an unfinished piece is kept."""

    folder: str
    split: int
    corpus: str
    annotators: str
    overlap: tuple[str, ...]
    digest: str
    committed: str = ""
    checkpoint: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedSplit:
    """What one part holds. missing: criterion (also `domain`, `tokens`) -> reason -> documents.
    overlap: documents per target bit. reused: was the part already there?"""

    split: int
    digest: str
    documents: int
    tokens: int
    missing: dict[str, dict[str, int]]
    overlap: tuple[int, ...]
    reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationManifest:
    """annotations/manifest.json: the parts, the cards of their columns, and the counts over all parts."""

    corpus: str
    annotators: str
    criteria: tuple[AnnotatorCard, ...]
    domain: AnnotatorCard
    parts: tuple[ShardInfo, ...]
    documents: int
    tokens: int
    missing: dict[str, dict[str, int]]
    overlap: dict[str, int] = field(default_factory=dict[str, int])
    overlap_ngrams: dict[str, int] = field(default_factory=dict[str, int])
    warnings: tuple[str, ...] = ()
    version: int = VERSION


def prepare_overlap(targets: Mapping[str, Sequence[str]], folder: str | Path) -> OverlapIndex:
    """Hash the texts of every target into annotators/overlap/NN.npy under the run folder."""
    home = Path(folder) / "annotators" / "overlap"
    hashes = [ngram_hashes(texts) for texts in targets.values()]
    paths = [home / f"{i:02d}.npy" for i in range(len(hashes))]
    for path, array in zip(paths, hashes, strict=True):
        write_array(path, array)
    return OverlapIndex(
        names=tuple(targets),
        paths=tuple(map(str, paths)),
        ngrams=tuple(map(len, hashes)),
        digest=value_digest([[n, file_digest(p)] for n, p in zip(targets, paths, strict=True)]),
    )


def annotate_tasks(
    corpus: Corpus, annotators: AnnotatorSet, folder: str | Path, *, overlap: OverlapIndex | None = None,
    checkpoint: float = 120.0,
) -> list[AnnotateTask]:  # fmt: skip
    """Return one task per split; needs corpus/manifest.json and tokenizer.json in the run folder."""
    index = overlap or OverlapIndex()
    tokenizer = file_digest(Path(folder) / "tokenizer.json")
    base = [VERSION, corpus.digest, annotators.digest, tokenizer, index.digest]
    committed = _committed(folder, corpus, annotators)
    return [
        AnnotateTask(
            folder=str(folder),
            split=split.index,
            corpus=corpus.digest,
            annotators=annotators.digest,
            overlap=index.paths,
            # the corpus's digest says what is in the files; where they lie does not matter
            digest=value_digest([*base, to_json(replace(split, path=Path(split.path).name))]),
            committed=committed.get(part_path(folder, split.index).name, ""),
            checkpoint=checkpoint,
        )
        for split in corpus.splits
    ]


def _committed(folder: str | Path, corpus: Corpus, annotators: AnnotatorSet) -> dict[str, str]:
    """Return the digests of the parts by a manifest of the same work; nothing where there is none."""
    path = manifest_path(folder)
    if not path.is_file():
        return {}
    found = read_value(path, AnnotationManifest)
    same = (found.corpus, found.annotators) == (corpus.digest, annotators.digest)
    return {part.name: part.digest for part in found.parts} if same else {}


def annotate_split(task: AnnotateTask) -> AnnotatedSplit:
    """Score one split and commit its part, or return the counts of the part that is already there.

    Raises IntegrityError when the split no longer gives the documents that were counted in it.
    """
    path = part_path(task.folder, task.split)
    if (found := _existing(path, task)) is not None:
        return found
    corpus = _load_corpus(task.folder, task.corpus)
    annotators = _load_annotators(task.folder, task.annotators)
    hashes = [_load_hashes(p, file_digest(p)) for p in task.overlap]
    split = next(s for s in corpus.splits if s.index == task.split)
    partial = partial_path(path) if annotators.slow else None
    batches, missing = annotate_batches(
        read_documents(corpus, split, columns=annotators.columns),
        lambda batch, counts: _annotate(batch, corpus, annotators, task.folder, hashes, counts),
        partial,
        digest=task.digest,
        seconds=task.checkpoint,
    )
    schema = _schema([a.card.name for a in annotators.criteria])
    table = pa.Table.from_batches(batches, schema).combine_chunks()
    _check_rows(path, table.num_rows, counts_by_split(corpus)[task.split].documents)
    bits = table["overlap"].to_numpy()
    result = AnnotatedSplit(
        split=task.split,
        digest=task.digest,
        documents=table.num_rows,
        tokens=int(table["tokens"].to_numpy().sum(dtype=np.int64)),
        missing={k: dict(sorted(v.items())) for k, v in sorted(missing.items()) if v},
        overlap=tuple(int((bits >> b & 1).sum()) for b in range(min(len(hashes), BITS))),
    )
    write_table(path, table.replace_schema_metadata({_META: orjson.dumps(to_json(result))}))
    if partial:
        partial.unlink(missing_ok=True)
    return result


def _annotate(
    batch: DocBatch, corpus: Corpus, annotators: AnnotatorSet, folder: str, hashes: Sequence[Hashes],
    missing: dict[str, Counter[str]],
) -> pa.RecordBatch:  # fmt: skip
    """Return the annotations of one batch; adds the reasons for missing values to `missing`."""
    tokens, doubts = _count_tokens(batch, corpus.columns.tokens, folder)
    labelled = annotators.domain.label(batch.text, batch.rows)
    columns: list[Any] = [
        pa.array(batch.doc_id, pa.string()),
        pa.array(doc_keys(batch.doc_id)),
        pa.array(tokens),
        pa.array(labelled.labels, pa.string()),
        pa.array(overlap_bits(batch.text, hashes)),
    ]
    counted = {"tokens": doubts, "domain": labelled.missing}
    for annotator in annotators.criteria:
        scored = _scored(annotator, batch)
        values = np.where(np.isfinite(scored.values), scored.values, np.float32(np.nan)).astype(np.float32)
        unexplained = int(np.isnan(values).sum()) - sum(scored.missing.values())
        reasons = {**scored.missing, **({"not_finite": unexplained} if unexplained else {})}
        counted[f"score:{annotator.card.name}"] = reasons
        columns.append(pa.array(values, from_pandas=False))
    for name, reasons in counted.items():
        missing.setdefault(name, Counter()).update(reasons)
    return pa.RecordBatch.from_arrays(columns, schema=_schema([a.card.name for a in annotators.criteria]))


def _scored(annotator: Annotator, batch: DocBatch) -> Scored:
    """Score a batch; if that fails, score document by document, so that a bad one costs its own score alone.

    An annotator that fails on every document of a batch is broken, and its error is raised.
    """
    return ask_batch(annotator.score, _joined_scores, batch.text, batch.rows)


def _joined_scores(answers: list[Scored | None], failed: Counter[str]) -> Scored:
    reasons = sum((Counter(a.missing) for a in answers if a), failed)
    values = np.array([a.values[0] if a else np.nan for a in answers], np.float32)
    return Scored(values=values, missing=dict(sorted(reasons.items())))


def _schema(criteria: Sequence[str]) -> pa.Schema:
    fixed = [
        ("doc_id", pa.string()),
        ("key", pa.uint64()),
        ("tokens", pa.int32()),
        ("domain", pa.string()),
        ("overlap", pa.int32()),
    ]
    return pa.schema([pa.field(n, t, nullable=False) for n, t in fixed] + [
        pa.field(f"score:{n}", pa.float32(), nullable=False) for n in criteria
    ])  # fmt: skip


def _count_tokens(
    batch: DocBatch, column: str | None, folder: str
) -> tuple[NDArray[np.int32], dict[str, int]]:
    """Return (D,) tokens > 0 and what was doubtful: a count of the user's that is no positive integer is
    replaced by the run tokenizer's, a text the tokenizer finds nothing in counts as one token."""
    counts = np.zeros(len(batch.text), np.int64)
    if column is not None:
        for i, value in enumerate(column_values(batch.rows, column)):
            whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
            counts[i] = int(value) if whole and 0 < value <= _MAX_TOKENS else 0
    todo = np.flatnonzero(counts == 0)
    if len(todo):
        path = Path(folder) / "tokenizer.json"
        ids = _load_tokenizer(str(path), file_digest(path)).encode([batch.text[i] for i in todo])
        counts[todo] = [len(x) for x in ids]
    empty = counts == 0
    reasons = {
        "no_tokens_counted_as_one": int(empty.sum()),
        "column_unusable_counted_by_tokenizer": len(todo) if column is not None else 0,
    }
    return np.where(empty, 1, counts).astype(np.int32), {k: n for k, n in reasons.items() if n}


def finish_annotations(
    corpus: Corpus, annotators: AnnotatorSet, folder: str | Path, results: Sequence[AnnotatedSplit],
    *, overlap: OverlapIndex | None = None,
) -> AnnotationManifest:  # fmt: skip
    """Check that the parts hold exactly the documents of the corpus and write annotations/manifest.json."""
    index, counts = overlap or OverlapIndex(), counts_by_split(corpus)
    done = {r.split: r for r in results}
    if absent := sorted(set(counts) - set(done)):
        raise IntegrityError(f"annotations: split {absent[0]} was not annotated; run the same command again")
    for number, count in counts.items():
        _check_rows(part_path(folder, number), done[number].documents, count.documents)
    ordered = [done[s.index] for s in corpus.splits]
    missing: dict[str, Counter[str]] = {}
    for result in ordered:
        for name, reasons in result.missing.items():
            missing.setdefault(name, Counter()).update(reasons)
    totals = [sum(r.overlap[b] for r in ordered) for b in range(min(len(index.names), BITS))]
    bit_names = [*index.names[: BITS - 1], REST] if len(index.names) > BITS else list(index.names)
    manifest = AnnotationManifest(
        corpus=corpus.digest,
        annotators=annotators.digest,
        criteria=tuple(a.card for a in annotators.criteria),
        domain=annotators.domain.card,
        parts=tuple(_shard(part_path(folder, r.split), r) for r in ordered),
        documents=sum(r.documents for r in ordered),
        tokens=sum(r.tokens for r in ordered),
        missing={k: dict(sorted(v.items())) for k, v in sorted(missing.items())},
        overlap=dict(zip(bit_names, totals, strict=True)),
        overlap_ngrams=dict(zip(index.names, index.ngrams, strict=True)),
        warnings=annotators.warnings,
    )
    write_json(manifest_path(folder), manifest)
    shutil.rmtree(manifest_path(folder).parent / WORK, ignore_errors=True)
    return manifest


def part_path(folder: str | Path, split: int) -> Path:
    """Return where the part of a split lies."""
    return Path(folder) / "annotations" / f"part-{split:05d}.parquet"


def manifest_path(folder: str | Path) -> Path:
    """Return where the manifest of the annotations lies."""
    return Path(folder) / "annotations" / "manifest.json"


def counts_by_split(corpus: Corpus) -> dict[int, SplitCount]:
    """Return the scan's counts of every split by its index."""
    return {c.split: c for c in corpus.counts}


def _shard(path: Path, result: AnnotatedSplit) -> ShardInfo:
    return ShardInfo(
        name=path.name, rows=result.documents, bytes=path.stat().st_size, digest=file_digest(path),
        tokens=result.tokens,
    )  # fmt: skip


def _check_rows(path: Path, got: int, expected: int) -> None:
    if got != expected:
        raise IntegrityError(
            f"{path.name}: {got} documents annotated, expected the {expected} counted in the corpus; "
            "did an input file change? Restore it or start a new run"
        )


def _existing(path: Path, task: AnnotateTask) -> AnnotatedSplit | None:
    """Return the counts of a part that is whole; any other is made again."""
    if not path.is_file() or (task.committed and file_digest(path) != task.committed):
        return None
    try:
        metadata, rows = read_table(path, columns=[]).schema.metadata or {}, table_rows(path)
    except IntegrityError:
        return None  # not a Parquet file: somebody damaged it
    if _META not in metadata:
        return None
    found = from_json(AnnotatedSplit, orjson.loads(metadata[_META]), where=str(path))
    return replace(found, reused=True) if (found.digest, found.documents) == (task.digest, rows) else None


# Workers annotate many splits of one run: what is large is loaded once per process, and the digests in
# the keys make a changed file a different entry.
@lru_cache(maxsize=2)
def _load_corpus(folder: str, digest: str) -> Corpus:
    corpus = read_value(Path(folder) / "corpus" / "manifest.json", Corpus)
    if corpus.digest != digest:
        raise IntegrityError(
            f"{folder}/corpus/manifest.json has digest {corpus.digest}, expected {digest}; "
            "another run wrote there. Run the same command again"
        )
    return corpus


@lru_cache(maxsize=2)
def _load_annotators(folder: str, digest: str) -> AnnotatorSet:
    found = AnnotatorSet.load(folder)
    if found.digest != digest:
        raise IntegrityError(
            f"{folder}/annotators has digest {found.digest}, expected {digest}; run the same command again"
        )
    return found


@lru_cache(maxsize=64)
def _load_hashes(path: str, digest: str) -> Hashes:
    return map_array(path)


@lru_cache(maxsize=2)
def _load_tokenizer(path: str, digest: str) -> Tokenizer:
    return Tokenizer.load(path)
