"""What the pass over the text of one split counts besides: sources, languages, and which texts are the same.

In: batches as they are read, rows as they are taken. Out: files of the split in `facts-*/` beside the spills,
added up over splits by `sources`, `languages` and `duplicates`: `part-*-sources.npy` with the names in
`-names.arrow`, `part-*-texts.npy`, and `part-*.json`, written last of all. Memory: a few numbers per document
of the split, as the selection's part takes, and its different sources and languages.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from quadmix.corpus.arrow import ArrowDocs
from quadmix.corpus.columns import column_values, lookup, root_of
from quadmix.io.atomic import value_digest, write_array, write_json
from quadmix.io.tables import write_batches
from quadmix.materialise.table import SelectionTable, read_part
from quadmix.rng import doc_keys
from quadmix.types import ColumnMap, Copies, Floats, Ints

COUNTS = ("documents_in", "tokens_in", "documents_out", "unique_tokens", "tokens_out")
SOURCE_ROWS = np.dtype([("hash", "<u8"), *((name, "<i8") for name in COUNTS)])
TEXT_ROWS = np.dtype([("hash", "<u8"), ("tokens", "<i4"), ("copies", "<i4"), ("row", "<i4")])
CUTS = (0.05, 0.1, 0.2, 0.5)  # ranks inside a domain, for which it is counted what a cut would leave
MAX_LANGUAGES = 500  # a column of more values holds something else
MAX_NAME = 200
_NAMES = pa.schema([("name", pa.string())])
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*)")


@dataclass(slots=True, kw_only=True)
class Named:
    """The values of one column so far. place: value -> its number. codes: numbers of the documents read."""

    column: str
    place: dict[str, int] = field(default_factory=dict[str, int])
    codes: list[Ints] = field(default_factory=list[Ints])

    def add(self, names: list[str]) -> None:
        """Append the values of some documents."""
        place = self.place
        self.codes.append(np.array([place.setdefault(n, len(place)) for n in names], dtype=np.int64))


@dataclass(slots=True, kw_only=True, eq=False)
class Gathered:
    """What was met in a split so far. texts: (S,) hashes of the selected texts."""

    columns: ColumnMap
    texts: NDArray[np.uint64]
    sources: Named | None
    languages: Named | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitLanguages:
    """L languages of one split. counts: (L, 5) as in COUNTS. selectable: (L,) tokens. within: (L, C) of them.

    known: (L, N) selectable documents with a score. total: (L, N) sum of their normalised scores. cells:
    (K, 4) language, domain, tokens in, tokens out. too_many: there are more than MAX_LANGUAGES, none is kept.
    """

    names: tuple[str, ...]
    counts: Ints
    selectable: Ints
    within: Ints
    known: Ints
    total: Floats
    cells: Ints
    too_many: bool = False


def facts_folder(work: str | Path, columns: ColumnMap) -> str:
    """Return the folder of what is gathered from these columns, inside the work folder of the dataset."""
    return str(Path(work, f"facts-{value_digest([columns.text, columns.source, columns.language])[:8]}"))


def facts_file(work: str | Path, split: int, suffix: str = ".json") -> Path:
    """Return a file with facts of one split; the one without a suffix of its own says that all are there."""
    return Path(work) / f"part-{split:05d}{suffix}"


def start_gathering(columns: ColumnMap, selected: int) -> Gathered:
    """Return what will be counted in a split with that many selected documents."""
    return Gathered(
        columns=columns,
        texts=np.zeros(selected, dtype=np.uint64),
        sources=None if columns.source is None else Named(column=columns.source),
        languages=None if columns.language is None else Named(column=columns.language),
    )


def see_batch(gathered: Gathered, batch: ArrowDocs) -> None:
    """Note the source and the language of every document of a batch, selected or not."""
    if gathered.sources is not None:
        gathered.sources.add([source_name(v) for v in _values(batch, gathered.sources.column)])
    if gathered.languages is not None:
        gathered.languages.add([plain_name(v) for v in _values(batch, gathered.languages.column)])


def see_rows(gathered: Gathered, rows: pa.RecordBatch, document: Ints, copy_index: Copies) -> None:
    """Hash the texts of output rows, each document once. document: (C,) its place among the selected."""
    first = np.flatnonzero(copy_index == 0)
    if len(first):
        name = gathered.columns.text
        column = rows.select([root_of(rows.schema.names, name)]).take(pa.array(first))
        gathered.texts[document[first]] = doc_keys(normalised(v) for v in column_values(column, name))


def normalised(text: Any) -> str:
    """Return a text (binary in some files) in lower case, with single spaces for white space."""
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return " ".join(plain.split()).lower()


def source_name(value: Any) -> str:
    """Return the source that a value names: of a URL its host, without `www.`, port and user; "" for none."""
    text = plain_name(value)
    match = _URL.match(text)
    return text if match is None else match[1].lower().removeprefix("www.").rstrip(".")[:MAX_NAME]


def plain_name(value: Any) -> str:
    """Return the name that a value of a source or language column says; "" for none."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        return ""
    return str(value).strip() if _URL.match(str(value)) else str(value).strip()[:MAX_NAME]


def _values(batch: ArrowDocs, name: str) -> list[Any]:
    """Return a column of a batch as it is in the file; None where the file does not have it."""
    if isinstance(batch.content, list):
        return [lookup(row, name) for row in batch.content]
    if root_of(batch.content.schema.names, name) not in batch.content.schema.names:
        return [None] * batch.content.num_rows
    return column_values(batch.content, name)


def write_gathered(gathered: Gathered, run_folder: str, work: str, split: int, rows: Ints) -> None:
    """Write what was met in a split. rows: (S,) the places of the selected documents in it."""
    table = read_part(run_folder, split)
    _write_texts(gathered.texts, table, rows, facts_file(work, split, "-texts.npy"))
    if gathered.sources is not None:
        _write_sources(gathered.sources, table, work, split)
    write_json(facts_file(work, split), _count_languages(gathered.languages, table))


def _write_texts(hashes: NDArray[np.uint64], table: SelectionTable, rows: Ints, path: Path) -> None:
    out = np.zeros(len(rows), dtype=TEXT_ROWS)
    out["hash"], out["row"] = hashes, rows
    out["tokens"], out["copies"] = table.tokens[rows], table.copies[rows]
    write_array(path, out[np.argsort(hashes, kind="stable")])


def _write_sources(named: Named, table: SelectionTable, work: str, split: int) -> None:
    names = list(named.place)
    out = np.zeros(len(names), dtype=SOURCE_ROWS)
    out["hash"] = doc_keys(names)
    counts = _counts(_codes(named), table, len(names))
    for column, name in enumerate(COUNTS):
        out[name] = counts[:, column]
    order = np.argsort(out["hash"], kind="stable")
    write_array(facts_file(work, split, "-sources.npy"), out[order])
    batch = pa.RecordBatch.from_arrays([pa.array(names, pa.string()).take(pa.array(order))], schema=_NAMES)
    write_batches(facts_file(work, split, "-names.arrow"), _NAMES, [batch])


def _codes(named: Named) -> Ints:
    return np.concatenate([np.empty(0, dtype=np.int64), *named.codes])


def _counts(codes: Ints, table: SelectionTable, size: int) -> Ints:
    """Return (size, 5) as in COUNTS. Sums of one split are far below 2^53, so they are exact."""
    tokens, copies = table.tokens.astype(np.float64), table.copies.astype(np.float64)
    taken = (copies > 0).astype(np.float64)
    weights = (np.ones(len(tokens)), tokens, taken, tokens * taken, tokens * copies)
    return np.stack([np.bincount(codes, w, size) for w in weights], axis=1).astype(np.int64)


def _count_languages(named: Named | None, table: SelectionTable) -> SplitLanguages:
    criteria = len(table.info.criteria)
    if named is None or len(named.place) > MAX_LANGUAGES:
        none = np.empty((0, 5), dtype=np.int64)
        return SplitLanguages(
            names=(), counts=none, selectable=none[:, 0], within=none[:, : len(CUTS)],
            known=np.empty((0, criteria), dtype=np.int64), total=np.empty((0, criteria)),
            cells=none[:, :4], too_many=named is not None,
        )  # fmt: skip
    codes, size = _codes(named), len(named.place)
    tokens, rank = table.tokens.astype(np.float64), (table.ranks.low + table.ranks.high) / 2
    known = ~np.isnan(table.norms) & table.selectable[:, None]
    scores = np.where(known, table.norms, 0.0).astype(np.float64)
    within = [np.bincount(codes, tokens * (rank <= cut), size) for cut in CUTS]  # NaN is in no cut
    return SplitLanguages(
        names=tuple(named.place),
        counts=_counts(codes, table, size),
        selectable=np.bincount(codes, tokens * table.selectable, size).astype(np.int64),
        within=np.stack(within, axis=1).astype(np.int64),
        known=np.stack([np.bincount(codes, k, size) for k in known.T], axis=1).astype(np.int64),
        total=np.stack([np.bincount(codes, s, size) for s in scores.T], axis=1).astype(np.float64),
        cells=_cells(codes, table),
    )


def _cells(codes: Ints, table: SelectionTable) -> Ints:
    domains = len(table.info.domains)
    pair, place = np.unique(codes * domains + table.domain, return_inverse=True)
    tokens = table.tokens.astype(np.float64)
    sums = [np.bincount(place, w, len(pair)) for w in (tokens, tokens * table.copies)]
    return np.stack([pair // domains, pair % domains, *sums], axis=1).astype(np.int64)
