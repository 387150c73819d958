"""Small CSV files whole: header and rows as text with the line each row stands on; and one written.

In: a path, plain, `.gz` or `.zst`, local or on any fsspec store. Out: `CsvTable`. Nothing is guessed: a file
that is no UTF-8, a row with another number of cells, a column name twice or none are errors with their place.
"""

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from quadmix.errors import InputError
from quadmix.io.atomic import write_text
from quadmix.io.fs import open_input
from quadmix.io.readers import _zst_blocks  # pyright: ignore[reportPrivateUsage]  # detects cut files

MAX_BYTES = 256_000_000
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvTable:
    """header: distinct names. rows: cells as text, stripped, as many as the header each. lines: where each
    row begins in the file, the header being on line 1."""

    path: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


def read_csv(path: str, *, max_bytes: int = MAX_BYTES) -> CsvTable:
    """Read a CSV file with a header; empty lines are skipped.

    Raises InputError for a file that cannot be read, is larger than `max_bytes`, is not UTF-8 or not CSV.
    """
    text = _text(path, max_bytes)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    header: tuple[str, ...] = ()
    line = 1
    try:
        for cells in reader:
            row = tuple(cell.strip() for cell in cells)
            if any(row):
                if not header:
                    header = _checked_header(path, row)
                else:
                    _check_width(path, line, row, header)
                    rows.append(row)
                    lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path}, line {line}: no valid CSV ({error}); check the quotes around it"
        ) from error
    if not rows:
        raise InputError(
            f"{path} has {'a header but no rows' if header else 'no rows'}; expected a header and rows"
        )
    return CsvTable(path=path, header=header, rows=tuple(rows), lines=tuple(lines))


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    """Write a CSV file atomically; numbers with all their digits."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([c if isinstance(c, str) else repr(float(c)) for c in row] for row in rows)
    write_text(path, out.getvalue())


def _text(path: str, max_bytes: int) -> str:
    """Return the whole file, decompressed; a byte order mark is dropped."""
    held: list[bytes] = []
    size = 0
    with open_input(path) as file:
        try:
            for block in _blocks(file, path):
                held.append(block)
                size += len(block)
                if size > max_bytes:
                    raise InputError(
                        f"{path} is larger than {max_bytes:,} bytes, expected one row per run; is it the "
                        "right file?"
                    )
        except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError, OSError) as error:
            raise InputError(f"{path} is truncated or corrupt ({error}); write or fetch it again") from error
    try:
        return b"".join(held).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}); save it as "
            "UTF-8 CSV"
        ) from error


def _blocks(file: BinaryIO, path: str) -> Iterator[bytes]:
    if path.lower().endswith(".zst"):
        return _zst_blocks(file)
    source = gzip.GzipFile(fileobj=file) if path.lower().endswith(".gz") else file
    return itertools.takewhile(bool, iter(lambda: source.read(_BLOCK), None))


def _checked_header(path: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) == 1 and (found := [c for c in (";", "\t") if c in names[0]]):
        raise InputError(f"{path} has columns divided by {found[0]!r}, expected commas; save it with commas")
    if "" in names:
        raise InputError(
            f"{path}: column {names.index('') + 1} has no name; expected a name for every column. If it is "
            "the row number that pandas writes, write the file with index=False"
        )
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise InputError(
            f"{path} has {names.count(twice[0])} columns named {twice[0]!r}; expected distinct names"
        )
    return names


def _check_width(path: str, line: int, row: tuple[str, ...], header: tuple[str, ...]) -> None:
    if len(row) != len(header):
        raise InputError(
            f"{path}, line {line}: {len(row)} cells, expected {len(header)} as in the header; numbers with a "
            "decimal comma need a point"
        )
