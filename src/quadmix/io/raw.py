"""Raw arrays in files: numbers one after the other, little-endian, no header or a header of the caller's.

They are written by appending, so that nothing larger than one call's array is in memory, and read by mapping.
Not atomic by itself: the caller writes into a folder of `io.folders.new_folder`.
"""

import gzip
import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

_CHUNK = 1 << 20


class RawWriter:
    """Appends arrays as raw little-endian numbers of one dtype; `count` numbers so far."""

    def __init__(self, file: BinaryIO, dtype: DTypeLike) -> None:
        self._file = file
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.count = 0

    def append(self, values: NDArray[Any]) -> None:
        """Append `values`, (n,) numbers that the dtype can hold."""
        self._file.write(values.astype(self.dtype).tobytes())
        self.count += len(values)


@contextmanager
def raw_writer(path: str | Path, dtype: DTypeLike, *, header: bytes = b"") -> Generator[RawWriter]:
    """Open a new raw file that begins with `header`."""
    with Path(path).open("xb") as file:
        file.write(header)
        yield RawWriter(file, dtype)


def map_raw(path: str | Path, dtype: DTypeLike, *, offset: int = 0, count: int | None = None) -> NDArray[Any]:
    """Map `count` numbers (None: all to the end) from byte `offset` on, read-only."""
    kind = np.dtype(dtype).newbyteorder("<")
    size = (Path(path).stat().st_size - offset) // kind.itemsize if count is None else count
    return np.memmap(path, mode="r", dtype=kind, offset=offset, shape=(size,)) if size else np.empty(0, kind)


def read_head(path: str | Path, size: int) -> bytes:
    """Return the first `size` bytes of a file."""
    with Path(path).open("rb") as file:
        return file.read(size)


def read_chunks(path: str | Path, dtype: DTypeLike) -> Iterator[NDArray[Any]]:
    """Yield a raw file without header, some numbers at a time."""
    with Path(path).open("rb") as file:
        while block := file.read(_CHUNK):
            yield np.frombuffer(block, np.dtype(dtype).newbyteorder("<"))


@contextmanager
def gzip_writer(path: str | Path) -> Generator[TextIO]:
    """Open a new gzip text file (UTF-8); the same text gives the same bytes."""
    with (
        Path(path).open("xb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        yield text


@contextmanager
def gzip_reader(path: str | Path) -> Generator[TextIO]:
    """Open a gzip text file (UTF-8)."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        yield text
