"""Files that are whole or absent (promise P2), and the small JSON files of a run folder.

`replacing(path)` yields a temporary name in the same folder; on success the bytes are flushed to disk
and moved over `path`, on an exception nothing is left. On object stores the temporary is a local
file that is uploaded in one request.
"""

import errno
import os
import shutil
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import DTypeLike, NDArray

from quadmix.codec import from_json, to_json
from quadmix.errors import InputError, IntegrityError

T = TypeVar("T")


@contextmanager
def replacing(path: str | Path, *, durable: bool = True) -> Generator[Path]:
    """Yield a temporary path beside `path`; commit it by flush, fsync and rename when the block ends well.

    durable: False leaves out the fsync, for files that no later process trusts.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}-{target.name}")
    try:
        with naming(target):
            yield temporary
            if durable:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, target)
            if durable:
                _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: str | Path) -> Generator[None]:
    """Give an OSError the name of the file where it has none: what reads and writes does not know it."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def sweep(folder: str | Path, name: str = "*") -> None:
    """Remove what killed writers left in a folder: temporary files of `replacing`, for the files `name`."""
    for stale in Path(folder).glob(f".tmp-{'?' * 32}-{name}"):
        stale.unlink(missing_ok=True)


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


def copy_file(source: str | Path, path: str | Path) -> None:
    """Copy a local file atomically."""
    with replacing(path) as temporary:
        shutil.copyfile(source, temporary)


def read_text(path: str | Path) -> str:
    """Read a small UTF-8 file of the run folder; undecodable bytes become U+FFFD."""
    with naming(path):
        return Path(path).read_text(encoding="utf-8", errors="replace")


def write_json(path: str | Path, value: Any) -> None:
    """Write a dataclass or plain value as indented JSON, atomically; NaN becomes null."""
    write_bytes(path, orjson.dumps(to_json(value), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def read_json(path: str | Path) -> Any:
    """Read a JSON file of the run folder; InputError names the file when it does not parse."""
    try:
        with naming(path):
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


def write_table(
    path: str | Path,
    table: pa.Table,
    *,
    row_group_size: int = 65_536,
    dictionary: Sequence[str] | None = None,
) -> None:
    """Write a Parquet file atomically (zstd), re-opened and counted before it is committed.

    dictionary: columns of few distinct values; None tries all columns, which takes time where most differ.
    """
    coded = True if dictionary is None else list(dictionary)
    with replacing(path) as temporary:
        pq.write_table(
            table, temporary, compression="zstd", row_group_size=row_group_size,
            use_dictionary=coded,  # pyright: ignore[reportArgumentType]  (its stub knows bool alone)
        )  # fmt: skip
        rows = pq.ParquetFile(temporary).metadata.num_rows
        if rows != table.num_rows:
            raise InputError(f"{path}: wrote {table.num_rows} rows but {rows} came back; is the disk sound?")


def read_table(path: str | Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file of the run folder whole; IntegrityError names one that is damaged."""
    with _open_table(path) as file:
        return file.read(columns=columns)


def table_columns(path: str | Path) -> list[str]:
    """Return the column names of a Parquet file of the run folder without reading its rows."""
    with _open_table(path) as file:
        return list(file.schema_arrow.names)


def table_rows(path: str | Path) -> int:
    """Return the number of rows of a Parquet file of the run folder without reading them."""
    with _open_table(path) as file:
        return int(file.metadata.num_rows)


@contextmanager
def _open_table(path: str | Path) -> Generator[pq.ParquetFile]:
    with naming(path):
        try:
            with pq.ParquetFile(Path(path)) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # missing, or the disk
                raise
            raise IntegrityError(
                f"{path} is cut or damaged ({error}); remove its folder and run the same command again"
            ) from error


def write_array(path: str | Path, array: NDArray[Any], *, durable: bool = True) -> None:
    """Write a numpy array (.npy, no pickle) atomically; durable: see `replacing`."""
    with replacing(path, durable=durable) as temporary, temporary.open("wb") as file:
        # numpy writes to a file past Python, and then cannot say that the disk is full
        plain = SimpleNamespace(write=file.write)
        np.save(plain, array, allow_pickle=False)  # pyright: ignore[reportArgumentType, reportCallIssue]


def map_array(path: str | Path) -> NDArray[Any]:
    """Memory-map a .npy file read-only."""
    with naming(path):
        return np.load(Path(path), mmap_mode="r", allow_pickle=False)


def file_digest(path: str | Path) -> str:
    """Return the xxh3-128 of a local file's bytes, as hex."""
    hasher = xxhash.xxh3_128()
    with naming(path), Path(path).open("rb") as file:
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
