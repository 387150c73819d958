"""What a run folder says about itself beside its results: the log, bad rows, and facts about documents.

In: events.jsonl, quarantine/, dataset/sources.json, languages.json, duplicates.json. Out: `Records`. What is
not there (an earlier version, a stage that has not run) is None or empty.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from quadmix.io.atomic import read_table, read_text, read_value
from quadmix.report.passes import History, read_history
from quadmix.types.facts import DuplicateFacts, LanguageFacts, SourceFacts

T = TypeVar("T")
SOURCES, LANGUAGES, DUPLICATES = "dataset/sources.json", "dataset/languages.json", "dataset/duplicates.json"
EVENTS = "events.jsonl"
QUARANTINE = "quarantine/"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRows:
    """Rows of one file that are in quarantine for one reason. file: its name without folders."""

    file: str
    reason: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """All that was found."""

    sources: SourceFacts | None = None
    languages: LanguageFacts | None = None
    duplicates: DuplicateFacts | None = None
    history: History = field(default_factory=History)
    bad_rows: tuple[BadRows, ...] = ()


def load_records(folder: Path) -> Records:
    """Read the records of a run folder; InputError names a file of facts that is broken."""
    return Records(
        sources=_value(folder / SOURCES, SourceFacts),
        languages=_value(folder / LANGUAGES, LanguageFacts),
        duplicates=_value(folder / DUPLICATES, DuplicateFacts),
        history=read_history(_lines(folder / EVENTS)),
        bad_rows=_bad_rows(folder / QUARANTINE),
    )


def _value(path: Path, cls: type[T]) -> T | None:
    return read_value(path, cls) if path.is_file() else None


def _lines(path: Path) -> Iterator[Any]:
    """Yield the lines of the log as values, None for one that was torn by a kill."""
    for line in read_text(path).splitlines() if path.is_file() else ():
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            yield None


def _bad_rows(folder: Path) -> tuple[BadRows, ...]:
    """Count the rows in quarantine by file and reason, most first; their content is not read."""
    counted: Counter[tuple[str, str]] = Counter()
    for path in sorted(folder.glob("part-*.parquet")):
        table = read_table(path, ["path", "reason"])
        names = [str(p).rsplit("/", 1)[-1] for p in table["path"].to_pylist()]
        counted.update(zip(names, map(str, table["reason"].to_pylist()), strict=True))
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return tuple(BadRows(file=file, reason=reason, rows=rows) for (file, reason), rows in ordered)
