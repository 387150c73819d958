"""Values about the input: the frozen corpus and the table of annotations.

Scores are **smaller = better** everywhere inside the tool. Shape letters: D documents, N criteria, M domains.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.errors import ScoreError
from quadmix.types.arrays import Floats

FileFormat = Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow", "warc", "warc.gz"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A piece of one input file that one worker reads: a byte range, row groups, or the whole file.

    `start` and `stop` are bytes for jsonl (a split owns the lines that *begin* inside it), row groups for
    parquet, record batches for arrow in the file layout. Compressed lines, Arrow streams and WARC are one
    split (`stop` None).
    """

    index: int
    path: str
    format: FileFormat
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMap:
    """Which of the user's columns play which part; `id` None means ids are made from path and row.

    source, language: whose values are only counted, see `types.facts`; a source may be a URL.
    """

    text: str
    id: str | None = None
    tokens: str | None = None
    source: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """One input file as it was when the run began."""

    path: str
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCount:
    """What reading one split gave: rows in = documents + quarantined[reason]."""

    split: int
    rows: int
    documents: int
    text_bytes: int
    quarantined: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The frozen input: files with digests, splits in order, the column map, counts per split.

    schema: the Arrow schema of the user's columns, united over all splits (IPC message, base64).
    max_row_bytes: longer rows are in quarantine. warnings: what uniting the columns could not keep as it was.
    """

    files: tuple[FileInfo, ...]
    splits: tuple[Split, ...]
    columns: ColumnMap
    counts: tuple[SplitCount, ...]
    schema: str
    digest: str
    max_row_bytes: int = 64_000_000
    warnings: tuple[str, ...] = ()

    @property
    def documents(self) -> int:
        return sum(c.documents for c in self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionInfo:
    """A criterion as the tables carry it. `declared` is the direction as delivered by its source;
    inside the tool every score is smaller = better (scores of `higher` criteria were negated)."""

    name: str
    declared: Literal["higher", "lower"]
    kind: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotations:
    """The compact table of numbers on which the method works; it holds no text.

    doc_id: (D,) Arrow strings. keys: (D,) uint64 hash of doc_id. tokens: (D,) int32, > 0.
    domain: (D,) int16 in 0..M-1. scores: (D, N) float32, smaller = better, NaN = missing.
    held_out: (D,) bool, True for documents reserved for evaluation (never selected or trained on).
    split: (D,) int32 index of the corpus split of the document; rows keep the corpus order.
    """

    doc_id: pa.ChunkedArray
    keys: NDArray[np.uint64]
    tokens: NDArray[np.int32]
    domain: NDArray[np.int16]
    scores: NDArray[np.float32]
    held_out: NDArray[np.bool_]
    split: NDArray[np.int32]
    criteria: tuple[CriterionInfo, ...]
    domains: tuple[str, ...]

    def __post_init__(self) -> None:
        d = len(self.tokens)
        for name in ("doc_id", "keys", "domain", "held_out", "split"):
            if len(getattr(self, name)) != d:
                raise ScoreError(f"annotations.{name} has {len(getattr(self, name))} rows, expected {d}")
        if self.scores.shape != (d, len(self.criteria)):
            raise ScoreError(
                f"annotations.scores has shape {self.scores.shape}, expected ({d}, {len(self.criteria)})"
            )
        if d and not (int(self.domain.min()) >= 0 and int(self.domain.max()) < len(self.domains)):
            raise ScoreError(
                f"annotations.domain spans {self.domain.min()}..{self.domain.max()}, "
                f"expected 0..{len(self.domains) - 1}"
            )
        if d and int(self.tokens.min()) <= 0:
            row = int(self.tokens.argmin())
            raise ScoreError(f"annotations.tokens[{row}] is {self.tokens[row]}, expected > 0")
        if np.isinf(self.scores).any():
            row, col = np.argwhere(np.isinf(self.scores))[0]
            raise ScoreError(
                f"score {self.criteria[col].name!r} of row {row} is infinite; scores are finite or missing"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Annotations":
        """Return the table restricted to `rows` (a mask or ascending indices)."""
        index = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return dataclasses.replace(
            self,
            doc_id=self.doc_id.take(pa.array(index)),
            keys=self.keys[index],
            tokens=self.tokens[index],
            domain=self.domain[index],
            scores=self.scores[index],
            held_out=self.held_out[index],
            split=self.split[index],
        )

    def domain_tokens(self) -> Floats:
        """Return (M,) float64, tokens per domain."""
        return np.bincount(self.domain, weights=self.tokens, minlength=len(self.domains)).astype(np.float64)
