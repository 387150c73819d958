"""Rate files with a trained rater, outside of a run: one row per document, with where it comes from.

In: a card, files of documents. Out: a Parquet table (id, language, units, score, z, calibrated, first, least,
spread, windows, then the columns that are carried along) and, beside it, a JSON file that says which model
gave the numbers. `score` is what a criterion of kind model gives in a run. first, least and spread say how
even a long document is: they are those of the windows in which the model reads it, from which its score is
made; no text is read twice for them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from quadmix import __version__
from quadmix.annotate.models.rated import language_rows, read_rater
from quadmix.annotate.models.rater import ModelAnnotator
from quadmix.errors import InputError
from quadmix.io.atomic import write_json
from quadmix.io.fs import expand, file_info
from quadmix.io.rows import read_records
from quadmix.io.tables import write_groups
from quadmix.raters.compared import Tell, telling
from quadmix.raters.coverage import Coverage, Known, Reader, encoder_reader
from quadmix.raters.excerpts import unit_spans
from quadmix.raters.offsets import Offsets
from quadmix.raters.scored import Reference, WindowRule, code_rows, score_windows, window_rule
from quadmix.types import Floats

_BATCH = 2_048  # documents per row group
_LOOKED_AT = 64  # of a language per row group, to see whether the tokenizer knows its script
_SCHEMA = pa.schema(
    [("id", pa.string()), ("language", pa.string()), ("units", pa.int32())]
    + [(name, pa.float32()) for name in ("score", "z", "calibrated", "first", "least", "spread")]
    + [("windows", pa.int16())]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the user's columns. language: None where `in_language` holds for all, or nobody knows it.
    domain: read by raters whose card names domains.
    carry: columns that stand in the table too, as text."""

    text: str = "text"
    id: str = "id"
    language: str | None = None
    in_language: str | None = None
    domain: str | None = None
    carry: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """What was rated. missing: reason -> documents without a score, which are in the table with none.
    languages: language -> documents; unseen: those that the rater was not trained on. carried: column ->
    documents without a value in it. reference: is there a reference for z? digest: of the model with its
    settings. windows: that a document is read in. scripts: what the encoder's tokenizer does not know of each
    language, over the first 64 documents of it in each 2,048; None for a rater without one. domains: domain
    -> documents, "" where the column is empty, of a rater that reads them; unseen_domains: those that count
    as unknown."""

    card: str
    digest: str
    files: dict[str, str]
    documents: int
    scored: int
    missing: dict[str, int]
    languages: dict[str, int]
    unseen: dict[str, int]
    carried: dict[str, int]
    reference: bool
    windows: WindowRule
    quadmix: str
    scripts: Known | None = None
    domains: dict[str, int] = field(default_factory=dict[str, int])
    unseen_domains: dict[str, int] = field(default_factory=dict[str, int])


def score_files(
    rater: ModelAnnotator,
    paths: Sequence[str],
    out: Path,
    columns: Columns,
    *,
    reference: Reference | None = None,
    offsets: Offsets | None = None,
    tell: Tell | None = None,
) -> Scoring:
    """Write the scores of all documents to `out` and OUT.json beside it.

    offsets: taken off a language's scores in column `calibrated`, empty for languages without one.

    Raises InputError for a file without the columns, a row without a text or an id, a carried column whose
    name the table has or whose values are no text, and where the rater reads the language or the domain and
    no column says it.
    """
    _check_domain(rater, columns)
    if rater.asked.placed.card.reads_language and not (columns.language or columns.in_language):
        raise InputError(
            f"rater {rater.card.name!r} reads the language of a text; name its column with --language, or "
            "the language of all documents with --in-language"
        )
    _check_names(columns.carry)
    files = expand(paths)
    missing, languages, domains, seen = Counter[str](), Counter[str](), Counter[str](), [0, 0]
    carried = dict.fromkeys(columns.carry, 0)
    known_domains = rater.asked.placed.card.reads_domains
    progress, scale = telling(tell, "score"), _Scale(reference=reference, offsets=offsets)
    scripts = _Scripts(reader=encoder_reader(rater.asked.placed))

    def batches() -> Iterator[pa.RecordBatch]:
        for path in files:
            rows = read_records(path)
            _check_carried(path, rows, columns.carry)
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                ids, texts, codes = _read(path, batch, start, columns)
                placed = _domains(path, batch, start, columns)
                domains.update(name or "" for name in placed if columns.domain)
                made = _scored(rater, ids, texts, code_rows(codes, placed), scale, missing)
                for name in carried:
                    values = _texts_of(path, batch, start, name)
                    carried[name] += values.null_count
                    made = made.append_column(name, values)
                languages.update(code or "" for code in codes)
                scripts.add(texts, codes)
                seen[0] += len(ids)
                seen[1] += len(ids) - made["score"].null_count
                if progress is not None:
                    progress(start + len(ids), len(rows))
                yield made

    schema = pa.schema([*_SCHEMA, *(pa.field(name, pa.string()) for name in carried)])
    write_groups(out, schema, (pa.Table.from_batches([batch]) for batch in batches()))
    scoring = Scoring(
        card=rater.asked.placed.card.name, digest=rater.card.digest,
        files={path: file_info(path).digest for path in files}, documents=seen[0], scored=seen[1],
        missing=dict(sorted(missing.items())), languages=dict(sorted(languages.items())),
        unseen=_unseen(rater, languages), domains=dict(sorted(domains.items())),
        unseen_domains={d: n for d, n in sorted(domains.items()) if d not in known_domains}, carried=carried,
        reference=reference is not None, windows=window_rule(rater.asked.placed), quadmix=__version__,
        scripts=scripts.known(),
    )  # fmt: skip
    write_json(out.with_name(f"{out.name}.json"), scoring)
    return scoring


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scripts:
    """Counts what the tokenizer does not know of each language, on some documents of every row group."""

    reader: Reader | None
    found: dict[str, Coverage] = field(default_factory=dict[str, Coverage])

    def add(self, texts: Sequence[str], codes: Sequence[str | None]) -> None:
        if self.reader is None:
            return
        some: dict[str, list[str]] = {}
        for text, code in zip(texts, codes, strict=True):
            mine = some.setdefault(code or "", [])
            if len(mine) < _LOOKED_AT:
                mine.append(text)
        for code, mine in some.items():
            self.found[code] = self.found.get(code, Coverage()) + self.reader.read(mine)

    def known(self) -> Known | None:
        return Known(kind=self.reader.kind, languages=self.found) if self.reader else None


def _unseen(rater: ModelAnnotator, languages: Counter[str]) -> dict[str, int]:
    """Return the languages that are not among those that a rater says it was trained on: in its own file, or,
    as a fine-tuned encoder, in its card; {} for a card that says any."""
    placed = rater.asked.placed
    card, own = placed.card, placed.card.family == "rater"
    trained = read_rater(placed.folder)[0].languages if own else card.trained_languages or card.languages
    if not own and "*" in trained:
        return {}
    said = sorted(code for code in languages if code)
    known = language_rows(said, trained)
    return {code: languages[code] for code, row in zip(said, known.tolist(), strict=True) if not row}


def _read(
    path: str, rows: Sequence[dict[str, Any]], start: int, columns: Columns
) -> tuple[list[str], list[str], list[str | None]]:
    ids, texts, codes = list[str](), list[str](), list[str | None]()
    for number, row in enumerate(rows, start):
        for name in (columns.id, columns.text, *((columns.language,) if columns.language else ())):
            if name not in row:
                raise InputError(
                    f"{path}, row {number}: there is no column {name!r}, found {', '.join(row)}; name it "
                    "with --text, --id or --language"
                )
        text = row[columns.text]
        if not isinstance(text, str):
            raise InputError(f"{path}, row {number}: column {columns.text!r} holds {text!r}, expected text")
        ids.append(str(row[columns.id]))
        texts.append(text)
        code = row[columns.language] if columns.language else columns.in_language
        codes.append(None if code is None else str(code))
    return ids, texts, codes


def _check_domain(rater: ModelAnnotator, columns: Columns) -> None:
    known = rater.asked.placed.card.reads_domains
    if known and not columns.domain:
        raise InputError(
            f"rater {rater.card.name!r} reads the domain of a text ({', '.join(known)}); name its column "
            "with --domain; where it is empty, or says another one, the domain counts as unknown"
        )
    if columns.domain and not known:
        raise InputError(f"rater {rater.card.name!r} reads no domain; leave --domain out")


def _domains(path: str, rows: Sequence[dict[str, Any]], start: int, columns: Columns) -> list[str | None]:
    """Return the domain of each row, None where it has none; InputError for a file without the column."""
    if columns.domain is None:
        return [None] * len(rows)
    if rows and not any(columns.domain in row for row in rows):
        raise InputError(f"{path} has no column {columns.domain!r} (--domain); found {', '.join(rows[0])}")
    values = _texts_of(path, rows, start, columns.domain, "--domain").to_pylist()
    return [value.strip() or None if value else None for value in values]


def _check_names(carry: Sequence[str]) -> None:
    if taken := sorted(set(carry) & set(_SCHEMA.names)):
        raise InputError(
            f"--carry {taken[0]}: the table of scores has a column of that name; rename yours in the files, "
            "or leave it out"
        )


def _check_carried(path: str, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    for name in names:
        if rows and not any(name in row for row in rows):
            raise InputError(
                f"--carry {name}: {path} has no such column; its first row has {', '.join(rows[0])}"
            )


def _texts_of(
    path: str, rows: Sequence[dict[str, Any]], start: int, name: str, option: str = "--carry"
) -> pa.Array:
    """Return a column as text, null where a row has no value."""
    out: list[str | None] = []
    for number, row in enumerate(rows, start):
        value = row.get(name)
        if not isinstance(value, str | int | float | None):
            raise InputError(
                f"{path}, row {number}: column {name!r} holds {type(value).__name__}, expected text or a "
                f"number; {option} takes nothing nested"
            )
        out.append(None if value is None or value != value else str(value))
    return pa.array(out, pa.string())


def _scored(
    rater: ModelAnnotator,
    ids: Sequence[str],
    texts: Sequence[str],
    told: pa.RecordBatch,
    scale: "_Scale",
    missing: Counter[str],
) -> pa.RecordBatch:
    codes: list[str | None] = told["language"].to_pylist()
    found = score_windows(rater, texts, told)
    missing.update(found.missing)
    score, calibrated = found.score, found.score - scale.offset(codes)
    every = (score, scale.z(score), calibrated, found.first, found.least, found.spread)
    numbers, count = [_column(v) for v in every], pa.array(found.windows, pa.int16())
    units = pa.array([len(unit_spans(text)) for text in texts], pa.int32())
    arrays = [pa.array(ids, pa.string()), pa.array(codes, pa.string()), units, *numbers, count]
    return pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    reference: Reference | None
    offsets: Offsets | None

    def z(self, score: Floats) -> Floats:
        known = self.reference
        return np.full(len(score), np.nan) if known is None else (score - known.mean) / known.sd

    def offset(self, codes: Sequence[str | None]) -> Floats:
        """Return the offset of each document's language, NaN where it has none."""
        known = self.offsets.languages if self.offsets else ()
        values = np.array([np.nan, *(o.value for o in known)])
        return values[language_rows([c or "" for c in codes], [o.language for o in known])]


def _column(values: Floats) -> pa.Array:
    return pa.array(values.astype(np.float32), pa.float32(), from_pandas=True)
