"""Small labelled files (targets, quality labels, domain labels) read whole, row by row, as plain values."""

import gzip
import io
from collections.abc import Iterator
from typing import Any, cast

import fsspec
import orjson
import pyarrow.parquet as pq
import zstandard

from quadmix.errors import InputError

MAX_BYTES = 2_000_000_000  # such a file is held in memory; a pool belongs under `corpus`


def read_records(path: str) -> list[dict[str, Any]]:
    """Return all rows of a JSONL (.gz, .zst) or Parquet file; every row must be sound.

    Unlike the corpus, a bad row here is an error with its line number: these files steer the search.
    """
    if path.endswith(".parquet"):
        with _open(path) as file:
            return pq.read_table(file).to_pylist()
    return list(_json_lines(path))


def _open(path: str) -> Any:
    try:
        file = cast(Any, fsspec.open(path, "rb")).open()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"file {path!r} does not exist; check the path in the recipe") from error
    if (size := getattr(file, "size", None)) and size > MAX_BYTES:
        raise InputError(
            f"file {path!r} has {size:,} bytes; expected at most {MAX_BYTES:,} for a labelled set"
        )
    return file


def _json_lines(path: str) -> Iterator[dict[str, Any]]:
    with _open(path) as file:
        try:
            data = _decompress(path, file.read())
        except (zstandard.ZstdError, EOFError, OSError) as error:
            raise InputError(f"file {path!r} is truncated or corrupt: {error}; fetch it again") from error
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number}: not valid JSON ({error}); mend or remove the line"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: got {type(row).__name__}, expected an object")
        yield row


def _decompress(path: str, data: bytes) -> bytes:
    if path.endswith(".zst"):
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
            out = reader.read()
        if data and not _frame_complete(data):
            raise EOFError("the last zstd frame ends early")
        return out
    return gzip.decompress(data) if path.endswith(".gz") else data


def _frame_complete(data: bytes) -> bool:
    """zstandard's stream reader ends silently on a cut frame; a decompressobj knows if it saw the end."""
    rest = data
    while rest:
        frame = zstandard.ZstdDecompressor().decompressobj()
        frame.decompress(rest)
        if not frame.eof:
            return False
        rest = frame.unused_data
    return True
