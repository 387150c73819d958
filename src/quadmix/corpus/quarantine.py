"""Rows that are no documents (promise P5): kept with file, row, offset, reason and their first bytes.

In: bad rows of one split. Out: quarantine/part-<split>.parquet, and an error if there are too many.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from quadmix.corpus.read import first_row
from quadmix.errors import QuarantineError
from quadmix.io.atomic import read_table, write_table
from quadmix.io.pieces import BadRow
from quadmix.recipe.sections import CorpusSection
from quadmix.types import Corpus

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("row", pa.int64()),
        ("offset", pa.int64()),
        ("reason", pa.string()),
        ("data", pa.binary()),
    ]
)
_FULL_DATA = 10_000  # so many bad rows of a split keep all their 2,000 bytes, later ones a tenth


def collect(bad: list[BadRow], row: BadRow) -> None:
    """Append a bad row, with less of its data when there are many."""
    bad.append(row if len(bad) < _FULL_DATA else replace(row, data=row.data[:200]))


def bad_table(bad: list[BadRow]) -> pa.Table:
    """Return bad rows in the order of the file."""
    ordered = sorted(bad, key=lambda b: b.row)
    columns = {name: [getattr(b, name) for b in ordered] for name in _SCHEMA.names}
    return pa.table(columns, schema=_SCHEMA)


def quarantine_file(folder: str, split: int) -> Path:
    """Return where the bad rows of a split lie."""
    return Path(folder, "quarantine", f"part-{split:05d}.parquet")


def publish(corpus: Corpus, folder: str, parts: Mapping[int, Path]) -> None:
    """Write the bad rows of all splits with their row in the file; remove parts of an earlier scan."""
    kept: set[Path] = set()
    for split, count in zip(corpus.splits, corpus.counts, strict=True):
        if count.quarantined:
            table = read_table(parts[split.index])
            shifted = pc.call_function("add", [table["row"], pa.scalar(first_row(corpus, split))])
            target = quarantine_file(folder, split.index)
            write_table(target, table.set_column(1, "row", shifted))
            kept.add(target)
    for stale in set(Path(folder, "quarantine").glob("part-*.parquet")) - kept:
        stale.unlink()


def check_limits(corpus: Corpus, section: CorpusSection, folder: str) -> None:
    """Raise QuarantineError if bad rows exceed both the number and the share that the recipe allows."""
    rows = sum(c.rows for c in corpus.counts)
    bad = sum(sum(c.quarantined.values()) for c in corpus.counts)
    if bad <= section.quarantine_rows or bad <= section.quarantine_share * rows:
        return
    first = next(c.split for c in corpus.counts if c.quarantined)
    examples = read_table(quarantine_file(folder, first), ["path", "row", "reason"]).slice(0, 3).to_pylist()
    shown = "; ".join(f"{e['path']}, row {e['row']}: {e['reason']}" for e in examples)
    raise QuarantineError(
        f"{bad:,} of {rows:,} rows are bad, allowed are {section.quarantine_rows:,} or a share of "
        f"{section.quarantine_share:g} ({shown}). All are in {Path(folder, 'quarantine')}; mend the files, "
        "name the columns in corpus.columns, or raise corpus.quarantine_rows"
    )
