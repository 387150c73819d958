"""The importance weights of DSIR for all documents of a corpus: two passes over its text, piece by piece.

In: a corpus, its annotations, the target texts. Out: one log weight per row of the annotations. The first
pass counts the pool's n-grams, the second weighs every document; each piece commits a part of its own, so
that the same command after a kill does the rest. Counts are whole numbers and a document's weight depends on
its text and the two sums alone: neither order, pieces nor workers change a bit of the result.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quadmix.corpus.targets import TargetText
from quadmix.errors import IntegrityError
from quadmix.evaluate.dsir import NgramSettings, bucket_counts, hash_ngrams, log_ratio, log_weights
from quadmix.io.atomic import (
    file_digest,
    map_array,
    read_value,
    sweep,
    value_digest,
    write_array,
    write_json,
)
from quadmix.proxy.pool import Mapper, wanted_documents
from quadmix.types import Annotations, Corpus, Floats, Ints, Split

BATCH_CHARACTERS = 2_000_000  # hashed at a time: a distinct n-gram is hashed once per batch
_WEIGHTS, _MANIFEST = "weights.npy", "manifest.json"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceManifest:
    """What a folder of weights holds. source: digest of the inputs. weights: digest of weights.npy.

    short: documents without a weight, below `settings.min_words`. pool_ngrams, target_ngrams: counted.
    """

    documents: int
    short: int
    pool_ngrams: int
    target_ngrams: int
    settings: NgramSettings
    source: str
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Piece:
    """One split's part of a pass, written to `file`. rows: (n,) int64 in the annotations. keys: (n,) uint64.
    ratio: of `log_ratio`, None in the first pass."""

    corpus: Corpus
    split: Split
    rows: Ints
    keys: NDArray[np.uint64]
    settings: NgramSettings
    file: str
    ratio: Floats | None = None


def importance_weights(
    corpus: Corpus,
    table: Annotations,
    targets: Sequence[TargetText],
    folder: str | Path,
    *,
    mapper: Mapper,
    settings: NgramSettings | None = None,
) -> Floats:
    """Return (D,) float64 log importance weights, larger = more like the targets, in the rows of `table`.

    NaN for documents of fewer than `settings.min_words` words. The pool is what `table` holds, the target all
    texts of `targets` together, so a longer target counts for more. The weights stand in
    `folder`/weights.npy and are reused for the same corpus, rows, targets and settings, made anew for others.
    InputError if pool or targets hold no word, IntegrityError if a file changed since it was annotated.
    """
    path, settings = Path(folder), settings or NgramSettings()
    texts = [text for target in targets for text in target.texts()]
    rows = [hashlib.sha256(a.tobytes()).hexdigest() for a in (table.keys, table.split)]
    source = value_digest([_VERSION, corpus.digest, rows, texts, settings])
    if _whole(path, source):
        return np.array(map_array(path / _WEIGHTS))
    work = _clear(path, source)
    pieces = _pieces(corpus, table, settings, work)
    raw = np.zeros(settings.buckets, np.int64)
    for part in _parts(_count_piece, pieces, mapper):
        raw += part
    target = _counts(enumerate(texts), settings)
    ratio = log_ratio(target, raw)
    weighing = [replace(p, file=f"{work}/weights-{p.split.index:05d}.npy", ratio=ratio) for p in pieces]
    weights = np.full(len(table), np.nan)
    for piece, part in zip(pieces, _parts(_weigh_piece, weighing, mapper), strict=True):
        weights[piece.rows] = part
    write_array(path / _WEIGHTS, weights)
    found = ImportanceManifest(
        documents=len(weights), short=int(np.isnan(weights).sum()), pool_ngrams=int(raw.sum()),
        target_ngrams=int(target.sum()), settings=settings, source=source,
        weights=file_digest(path / _WEIGHTS),
    )  # fmt: skip
    write_json(path / _MANIFEST, found)
    shutil.rmtree(work)
    return weights


def _whole(folder: Path, source: str) -> bool:
    """Return whether the folder holds the weights of these inputs, undamaged."""
    if not (folder / _MANIFEST).is_file() or not (folder / _WEIGHTS).is_file():
        return False
    manifest = read_value(folder / _MANIFEST, ImportanceManifest)
    return manifest.source == source and manifest.weights == file_digest(folder / _WEIGHTS)


def _clear(folder: Path, source: str) -> Path:
    """Return the folder of the parts for these inputs; remove those for others, and the old manifest."""
    (folder / _MANIFEST).unlink(missing_ok=True)
    work = folder / f"parts-{source[:16]}"
    for other in folder.glob("parts-*"):
        if other != work:
            shutil.rmtree(other)
    sweep(folder)
    sweep(work)
    return work


def _pieces(corpus: Corpus, table: Annotations, settings: NgramSettings, work: Path) -> list[_Piece]:
    """Return one piece per split with rows in `table`."""
    return [
        _Piece(
            corpus=corpus, split=split, rows=rows, keys=table.keys[rows], settings=settings,
            file=f"{work}/counts-{split.index:05d}.npy",
        )
        for split, rows in split_rows(corpus, table)
    ]  # fmt: skip


def split_rows(corpus: Corpus, table: Annotations) -> list[tuple[Split, Ints]]:
    """Return the splits with rows in `table`, and these; IntegrityError if a row's split is unknown."""
    order = np.argsort(table.split, kind="stable")
    place = table.split[order]
    found: list[tuple[Split, Ints]] = []
    for split in corpus.splits:
        rows = order[np.searchsorted(place, split.index) : np.searchsorted(place, split.index, "right")]
        if len(rows):
            found.append((split, rows))
    known = sum(len(rows) for _, rows in found)
    if known != len(table):
        raise IntegrityError(
            f"the annotations have {len(table)} rows, {known} of them in splits of the corpus; expected all: "
            "run the annotate stage again"
        )
    return found


def _parts(
    function: Callable[[_Piece], int], pieces: Sequence[_Piece], mapper: Mapper
) -> Iterator[NDArray[Any]]:
    """Run the pieces whose part is not there yet, then yield the parts of all, in order."""
    mapper(function, [piece for piece in pieces if not Path(piece.file).exists()])
    for piece in pieces:
        yield map_array(piece.file)


def _count_piece(piece: _Piece) -> int:
    """Write the counts per bucket of one piece; return its documents."""
    write_array(piece.file, _counts(_documents(piece), piece.settings))
    return len(piece.keys)


def _weigh_piece(piece: _Piece) -> int:
    """Write the log weights of one piece; return its documents."""
    assert piece.ratio is not None
    weights = np.full(len(piece.keys), np.nan)
    for places, texts in _batches(_documents(piece)):
        weights[places] = log_weights(hash_ngrams(texts, piece.settings), piece.ratio, piece.settings)
    write_array(piece.file, weights)
    return len(piece.keys)


def _counts(documents: Iterable[tuple[int, str]], settings: NgramSettings) -> Ints:
    total = np.zeros(settings.buckets, np.int64)
    for _, texts in _batches(documents):
        total += bucket_counts(hash_ngrams(texts, settings), settings)
    return total


def _documents(piece: _Piece) -> Iterator[tuple[int, str]]:
    """Yield the place of every document in `piece.keys`, and its text."""
    for places, texts in wanted_documents(piece.corpus, piece.split, piece.keys):
        yield from zip(places.tolist(), texts, strict=True)


def _batches(documents: Iterable[tuple[int, str]]) -> Iterator[tuple[list[int], list[str]]]:
    """Yield places and texts, `BATCH_CHARACTERS` or just above at a time; the last batch may be smaller."""
    places, texts, size = list[int](), list[str](), 0
    for place, text in documents:
        places.append(place)
        texts.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield places, texts
            places, texts, size = [], [], 0
    if texts:
        yield places, texts
