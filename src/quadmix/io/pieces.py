"""What every reader hands on: batches of rows, rows for quarantine, and errors that name the file.

In: what the decoders of a format raise. Out: InputError (promise P5: a cut or corrupt stream fails its file).
"""

import gzip
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import zstandard

from quadmix.errors import InputError

MAX_BAD_BYTES = 2000
BLOCK = 1 << 20
BATCH_BYTES = 1 << 25  # long rows make short batches


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row for quarantine. row: ordinal in its split. offset: byte of its first character in the
    (uncompressed) stream, None for Parquet and Arrow. data: the row's first bytes."""

    path: str
    split: int
    row: int
    offset: int | None
    reason: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBatch:
    """Parsed objects with their ordinals in the split, their offsets and their raw lines (of WARC: the
    first bytes of the text)."""

    rows: list[int] = field(default_factory=list[int])
    offsets: list[int] = field(default_factory=list[int])
    lines: list[bytes] = field(default_factory=list[bytes])
    values: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, row: int, offset: int, line: bytes, value: dict[str, Any]) -> None:
        """Append one row."""
        self.rows.append(row)
        self.offsets.append(offset)
        self.lines.append(line)
        self.values.append(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowBatch:
    """Rows of a Parquet or Arrow file; `first` is the ordinal of the first one in the split."""

    first: int
    table: pa.RecordBatch


Bad = Callable[[BadRow], None]


def corrupt(path: str, why: object) -> InputError:
    """Return the error for a file that cannot be read to its end."""
    return InputError(
        f"file {path!r} is truncated or corrupt ({why}); fetch it again or take it out of corpus.paths"
    )


@contextmanager
def reading(path: str) -> Generator[None]:
    """Turn what decompressors raise into an InputError that names the file."""
    try:
        yield
    except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError, pa.ArrowException, OSError) as error:
        raise corrupt(path, error) from error


def check_names(path: str, names: list[str]) -> None:
    """Raise InputError if two columns have one name."""
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"file {path!r} has two columns named {twice!r}; expected distinct names")
