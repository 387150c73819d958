"""Files that are whole or absent (promise P2), and the small JSON files of a run folder.

`replacing(path)` yields a temporary name in the same folder; on success the bytes are flushed to disk
and moved over `path`, on an exception nothing is left. On object stores the temporary is a local
file that is uploaded in one request.
"""

import os
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import DTypeLike, NDArray

from quadmix.codec import from_json, to_json
from quadmix.errors import InputError

T = TypeVar("T")


@contextmanager
def replacing(path: str | Path) -> Generator[Path]:
    """Yield a temporary path beside `path`; commit it by flush, fsync and rename when the block ends well."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}-{target.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a small file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a small UTF-8 file atomically."""
    write_bytes(path, text.encode())


def read_text(path: str | Path) -> str:
    """Read a small UTF-8 file of the run folder; undecodable bytes become U+FFFD."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


def write_json(path: str | Path, value: Any) -> None:
    """Write a dataclass or plain value as indented JSON, atomically; NaN becomes null."""
    write_bytes(path, orjson.dumps(to_json(value), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def read_json(path: str | Path) -> Any:
    """Read a JSON file of the run folder; InputError names the file when it does not parse."""
    try:
        return orjson.loads(Path(path).read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); remove it and run the same command again"
        ) from error


def read_value(path: str | Path, cls: type[T]) -> T:
    """Read a JSON file back as the dataclass `cls`."""
    return from_json(cls, read_json(path), where=str(path))


def append_event(path: str | Path, event: dict[str, Any]) -> None:
    """Append one line to events.jsonl (a log, not state: it may end in a torn line after a kill)."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as out:
        out.write(orjson.dumps(to_json(event)) + b"\n")


def write_table(path: str | Path, table: pa.Table, *, row_group_size: int = 65_536) -> None:
    """Write a Parquet file atomically (zstd), re-opened and counted before it is committed."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=row_group_size)
        rows = pq.ParquetFile(temporary).metadata.num_rows
        if rows != table.num_rows:
            raise InputError(f"{path}: wrote {table.num_rows} rows but {rows} came back; is the disk sound?")


def read_table(path: str | Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file of the run folder whole."""
    return pq.ParquetFile(Path(path)).read(columns=columns)


def table_columns(path: str | Path) -> list[str]:
    """Return the column names of a Parquet file of the run folder without reading its rows."""
    return list(pq.ParquetFile(Path(path)).schema_arrow.names)


def write_array(path: str | Path, array: NDArray[Any]) -> None:
    """Write a numpy array (.npy, no pickle) atomically."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def map_array(path: str | Path) -> NDArray[Any]:
    """Memory-map a .npy file read-only."""
    return np.load(Path(path), mmap_mode="r", allow_pickle=False)


def file_digest(path: str | Path) -> str:
    """Return the xxh3-128 of a local file's bytes, as hex."""
    hasher = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()


def value_digest(value: Any) -> str:
    """Return the xxh3-128 of a value's canonical JSON, as hex."""
    return xxhash.xxh3_128_hexdigest(orjson.dumps(to_json(value), option=orjson.OPT_SORT_KEYS))


def join_arrays(path: str | Path, parts: Sequence[str | Path], dtype: DTypeLike) -> None:
    """Write the one-dimensional .npy `parts` one after another as a single .npy of `dtype`, atomically.

    One part is in memory at a time, so the whole may be larger than memory.
    """
    length = sum(len(map_array(part)) for part in parts)
    with replacing(path) as temporary, temporary.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
        np.lib.format.write_array_header_2_0(file, {**header, "shape": (length,)})
        for part in parts:
            file.write(np.asarray(map_array(part), dtype=dtype).tobytes())
