"""The user's documents for a rater: read, sorted into originals and translations, with the columns that
raters read.

In: the section `texts`. Out: `Documents`. Rows that cannot be used are counted by language and reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quadmix.errors import InputError
from quadmix.io.fs import expand
from quadmix.io.rows import read_records
from quadmix.raters.decontaminate import Benchmark, drop_benchmarks
from quadmix.raters.parallel import ParallelColumns, Step, read_parallel
from quadmix.raters.related import Related, related_sources
from quadmix.raters.table import Texts
from quadmix.recipe.rating import TextsSection
from quadmix.rng import doc_keys, keyed_uniform


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Documents:
    """texts: whole documents. records: source -> the user's row of the document in the source language, with
    the columns asked for. domains: source -> domain, where a column says it. files: that were read. rows: in
    them. dropped: language -> reason -> rows. benchmarks: that the texts were held against. groups: source ->
    the group that is split as one, `related` counts those of several sources."""

    texts: Texts
    records: dict[str, dict[str, Any]]
    domains: dict[str, str]
    columns: tuple[str, ...]
    files: tuple[str, ...]
    rows: int
    dropped: dict[str, dict[str, int]]
    benchmarks: tuple[Benchmark, ...]
    steps: tuple[Step, ...]
    groups: dict[str, str]
    related: Related


def read_texts_section(section: TextsSection, source: str, wanted: Sequence[str], *, seed: int) -> Documents:
    """Read the documents. source: the language that raters read. wanted: columns for raters, dotted names by
    their first part.

    Raises InputError for files without the columns, a language out of step with `source`, and where no
    document is in that language, or each stands in a benchmark.
    """
    files = tuple(expand(section.paths))
    language = section.language or ""
    columns = ParallelColumns(id=section.same or section.id, language=language, text=section.text)
    original = source if section.same else None
    corpus = read_parallel(files, original=original, columns=columns, everywhere=section.in_language)
    texts = corpus.texts
    if source not in texts.language:
        raise InputError(
            f"{', '.join(section.paths)}: no document is in the language {source!r} (transfer.source), found "
            f"{', '.join(sorted(set(texts.language)))}; name the code that the files use"
        )
    dropped, benchmarks = corpus.dropped, ()
    if section.decontaminate:
        cleaned = drop_benchmarks(texts, section.decontaminate)
        texts, benchmarks = cleaned.texts, cleaned.benchmarks
        dropped = {
            code: dropped.get(code, {}) | cleaned.dropped.get(code, {})
            for code in sorted({*dropped, *cleaned.dropped})
        }
        if source not in texts.language:
            raise InputError(
                f"texts.decontaminate: each of the {corpus.texts.language.count(source):,} documents in "
                f"{source!r} shares a run of words with a benchmark; expected other documents than these"
            )
    if section.limit is not None:
        texts = texts.take(_drawn(texts, section.limit, seed))
    roots = {name.partition(".")[0] for name in wanted}
    named = {section.domain} if section.domain else set[str]()
    records, known = _records(files, section, source, roots | named)
    if section.domain and section.domain not in known:
        raise InputError(
            f"texts.domain: the rows have no column {section.domain!r}, only {', '.join(known)}; name one"
        )
    groups, related = related_sources(texts)
    domains = _domains(records, section.domain) if section.domain else {}
    return Documents(
        texts=texts, records=records if roots else {}, domains=domains, columns=known, files=files,
        rows=corpus.rows, dropped=dropped, benchmarks=benchmarks, steps=corpus.steps,
        groups=groups, related=related,
    )  # fmt: skip


def _domains(records: dict[str, dict[str, Any]], column: str) -> dict[str, str]:
    """Return source -> domain, without the documents whose column is empty."""
    values = {source: row.get(column) for source, row in records.items()}
    named = {s: str(v).strip() for s, v in values.items() if v is not None and v == v}
    return {source: name for source, name in named.items() if name}


def _drawn(texts: Texts, limit: int, seed: int) -> list[int]:
    """Return the rows of at most `limit` sources per language, by a hash of the source: translations of one
    document are drawn together."""
    luck = keyed_uniform(seed, doc_keys(texts.source), "texts-limit")
    kept: list[int] = []
    codes = np.array(texts.language, dtype=object)
    for code in sorted(set(texts.language)):
        rows = np.flatnonzero(codes == code)
        kept += rows[np.argsort(luck[rows], kind="stable")[:limit]].tolist()
    return sorted(kept)


def _records(
    files: Sequence[str], section: TextsSection, source: str, roots: set[str]
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    if not roots:
        return {}, ()
    found: dict[str, dict[str, Any]] = {}
    known: dict[str, None] = {}
    for path in files:
        for row in read_records(path):
            known |= dict.fromkeys(row)
            code = section.in_language or row.get(section.language or "")
            if code == source or section.same is None:
                key = str(row.get(section.same or section.id))
                found.setdefault(key, {name: row.get(name) for name in roots})
    return found, tuple(known)
