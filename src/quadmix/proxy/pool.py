"""The token pool: documents as token ids, each followed by end-of-document, memory-mapped.

In: a corpus, the annotation rows that form the pool, a tokenizer. Out: a folder of .npy files and its
manifest (written last). Splits are tokenised by a `mapper` and joined in corpus order, so the bytes do not
depend on the number of workers. All proxies of a run read the same pool; θ only decides who is present.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from quadmix.corpus.read import DocBatch, read_documents
from quadmix.corpus.tokenizer import Tokenizer
from quadmix.errors import InputError, IntegrityError
from quadmix.io.atomic import (
    join_arrays,
    map_array,
    read_value,
    value_digest,
    write_array,
    write_json,
)
from quadmix.rng import doc_keys
from quadmix.types import Annotations, Corpus, Ints, Split

R = TypeVar("R")
T = TypeVar("T")
Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]

WIDE_VOCAB = 65_536  # a larger vocabulary does not fit into two bytes a token
_FILES = ("tokens", "offsets", "rows", "keys", "domain")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolManifest:
    """What the pool folder holds; `source` names the inputs it was made from, `tokenizer` is its digest."""

    documents: int
    tokens: int
    vocab_size: int
    source: str
    tokenizer: str = ""
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenPool:
    """P documents as tokens; document i is tokens[offsets[i]:offsets[i + 1]], end-of-document included.

    tokens: (n,) uint16 or uint32, memory-mapped. offsets: (P + 1,) int64. rows: (P,) int64 annotation rows.
    keys: (P,) uint64 hash of the document id. domain: (P,) int16.
    """

    tokens: NDArray[np.unsignedinteger[Any]]
    offsets: Ints
    rows: Ints
    keys: NDArray[np.uint64]
    domain: NDArray[np.int16]
    manifest: PoolManifest

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Ints:
        """Return (P,) int64, tokens per document with its end-of-document."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _SplitTask:
    corpus: Corpus
    split: Split
    tokenizer_path: str
    keys: NDArray[np.uint64]
    folder: str


def build_pool(
    corpus: Corpus,
    annotations: Annotations,
    tokenizer_path: str,
    folder: str,
    *,
    rows: Ints,
    mapper: Mapper,
) -> TokenPool:
    """Tokenise the annotation rows `rows` (P,) ascending into `folder`; a whole pool of the same
    inputs is reused. `mapper(function, tasks)` returns the results in task order.
    """
    tokenizer = Tokenizer.load(tokenizer_path)
    _check_rows(annotations, rows)
    source = value_digest(
        [corpus.digest, tokenizer.digest, rows, annotations.keys[rows], annotations.domain[rows]]
    )
    manifest = Path(folder, "manifest.json")
    if manifest.exists() and read_value(manifest, PoolManifest).source == source:
        return open_pool(folder)
    manifest.unlink(missing_ok=True)
    tasks = [
        _SplitTask(corpus=corpus, split=s, tokenizer_path=tokenizer_path, keys=keys, folder=folder)
        for s, keys in _by_split(corpus, annotations, rows)
    ]
    mapper(_tokenise_split, tasks)
    parts = [_part(folder, task.split.index) for task in tasks]
    dtype = np.uint16 if tokenizer.vocab_size <= WIDE_VOCAB else np.uint32
    join_arrays(Path(folder, "tokens.npy"), [f"{p}.tokens.npy" for p in parts], dtype)
    lengths = np.concatenate([map_array(f"{p}.lengths.npy") for p in parts])
    write_array(Path(folder, "offsets.npy"), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    write_array(Path(folder, "rows.npy"), rows.astype(np.int64))
    write_array(Path(folder, "keys.npy"), annotations.keys[rows])
    write_array(Path(folder, "domain.npy"), annotations.domain[rows])
    for part in parts:
        Path(f"{part}.tokens.npy").unlink()
        Path(f"{part}.lengths.npy").unlink()
    counts = PoolManifest(
        documents=len(rows), tokens=int(lengths.sum()), vocab_size=tokenizer.vocab_size,
        source=source, tokenizer=tokenizer.digest,
    )  # fmt: skip
    write_json(manifest, counts)
    return open_pool(folder)


def open_pool(folder: str | Path) -> TokenPool:
    """Memory-map a pool; InputError if it is not whole, IntegrityError if the arrays disagree."""
    path = Path(folder)
    if not (path / "manifest.json").exists():
        raise InputError(f"token pool {str(folder)!r} has no manifest.json; run the proxy stage to build it")
    manifest = read_value(path / "manifest.json", PoolManifest)
    tokens, offsets, rows, keys, domain = (map_array(path / f"{name}.npy") for name in _FILES)
    pool = TokenPool(
        tokens=tokens,
        offsets=np.asarray(offsets),
        rows=np.asarray(rows),
        keys=np.asarray(keys),
        domain=np.asarray(domain),
        manifest=manifest,
    )
    sizes = {len(pool.offsets) - 1, len(pool.rows), len(pool.keys), len(pool.domain), manifest.documents}
    if len(sizes) != 1 or pool.offsets[-1] != len(pool.tokens) or len(pool.tokens) != manifest.tokens:
        raise IntegrityError(
            f"token pool {str(folder)!r}: arrays of {sorted(sizes)} documents and {len(pool.tokens)} tokens, "
            f"the manifest says {manifest.documents} and {manifest.tokens}; remove the folder and run again"
        )
    return pool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wanted:
    """The wanted documents of a batch. place: (n,) positions among the wanted. index: (n,) in `batch`."""

    place: Ints
    index: Ints
    batch: DocBatch


def wanted_documents(
    corpus: Corpus, split: Split, keys: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], list[str]]]:
    """Yield, per batch of the split, the positions in `keys` of the wanted documents and their texts.

    As `wanted_batches`.
    """
    for found in wanted_batches(corpus, split, keys):
        yield found.place, [found.batch.text[i] for i in found.index]


def wanted_batches(
    corpus: Corpus, split: Split, keys: NDArray[np.uint64], *, columns: Sequence[str] = ()
) -> Iterator[Wanted]:
    """Yield the batches of the split that hold wanted documents, with these of the user's columns.

    keys: (n,) uint64 document keys in corpus order. IntegrityError if one of them is not in the split.
    """
    order = np.argsort(keys, kind="stable")
    found = 0
    for batch in read_documents(corpus, split, columns=columns) if len(keys) else ():
        here = doc_keys(batch.doc_id)
        place = np.minimum(np.searchsorted(keys, here, sorter=order), len(keys) - 1)
        index = np.flatnonzero(keys[order[place]] == here)
        if len(index):
            found += len(index)
            yield Wanted(place=order[place[index]], index=index, batch=batch)
    if found != len(keys):
        raise IntegrityError(
            f"{split.path} (split {split.index}): found {found} of {len(keys)} annotated documents; "
            "the file changed since it was annotated, run the annotate stage again"
        )


def _tokenise_split(task: _SplitTask) -> int:
    tokenizer = Tokenizer.load(task.tokenizer_path)
    dtype = np.uint16 if tokenizer.vocab_size <= WIDE_VOCAB else np.uint32
    end = tokenizer.end_of_document
    chunks, lengths = [np.empty(0, dtype)], np.zeros(len(task.keys), dtype=np.int64)
    for position, texts in wanted_documents(task.corpus, task.split, task.keys):
        if (np.diff(position) <= 0).any():
            raise IntegrityError(f"{task.split.path}: documents come in another order than annotated")
        encoded = tokenizer.encode(texts)
        lengths[position] = [len(ids) + 1 for ids in encoded]
        chunks.append(np.concatenate([np.array([*ids, end], dtype) for ids in encoded]))
    part = _part(task.folder, task.split.index)
    write_array(f"{part}.tokens.npy", np.concatenate(chunks))
    write_array(f"{part}.lengths.npy", lengths)
    return int(lengths.sum())


def _part(folder: str, index: int) -> str:
    return str(Path(folder, f"part-{index:05d}"))


def _by_split(
    corpus: Corpus, annotations: Annotations, rows: Ints
) -> Iterator[tuple[Split, NDArray[np.uint64]]]:
    where, keys = annotations.split[rows], annotations.keys[rows]
    for split in corpus.splits:
        if (mine := where == split.index).any():
            yield split, keys[mine]


def _check_rows(annotations: Annotations, rows: Ints) -> None:
    if not len(rows):
        raise InputError("the token pool would hold no document; lower `evaluate.holdout` or add documents")
    if (np.diff(rows) <= 0).any() or (np.diff(annotations.split[rows]) < 0).any():
        raise InputError("pool rows must be ascending and annotations in corpus order")
    if annotations.held_out[rows].any():
        raise InputError("pool rows hold documents reserved for evaluation; drop the held-out rows first")
