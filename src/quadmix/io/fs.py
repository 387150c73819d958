"""Where the user's files are: patterns to paths, paths to bytes and digests, local or on any fsspec store.

In: files, globs, folders, URLs. Out: sorted paths; local ones are absolute, remote ones keep their protocol.
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import fsspec
import xxhash
from fsspec.core import url_to_fs

from quadmix.errors import InputError, MissingExtraError
from quadmix.types import FileInfo

FileFormat = Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet"]

_STEMS = (".jsonl", ".ndjson", ".json")
_FORMATS: dict[str, FileFormat] = {
    **{stem: "jsonl" for stem in _STEMS},
    **{stem + ".gz": "jsonl.gz" for stem in _STEMS},
    **{stem + ".zst": "jsonl.zst" for stem in _STEMS},
    ".parquet": "parquet",
}
_CHUNK = 1 << 20


def expand(paths: Sequence[str]) -> list[str]:
    """Return the files that the paths, globs and folders stand for, sorted, each once.

    Folders are searched recursively for known suffixes; hidden files and a bare `.json` (usually
    metadata) are taken only when named. InputError names a pattern that matches nothing.
    """
    found: set[str] = set()
    for pattern in paths:
        matches = _matches(pattern)
        if not matches:
            raise InputError(
                f"corpus path {pattern!r} matches no file; expected a file, glob or folder with "
                f"{', '.join(sorted(_FORMATS))}. Check the path (it is relative to the recipe)"
            )
        found.update(matches)
    return sorted(found)


def _matches(pattern: str) -> list[str]:
    fs, root = _filesystem(pattern)
    if fs.isfile(root):
        names = [root]
    elif fs.isdir(root):
        names = [n for n in fs.find(root) if _belongs(n[len(root) :])]
    else:
        names = _glob(fs, root)
    local = "file" in _protocols(fs)
    return [name if local else fs.unstrip_protocol(name) for name in names]


def _glob(fs: Any, pattern: str) -> list[str]:
    """Return the files a glob matches; as in a shell, hidden ones only where the pattern says so."""
    magic = re.search(r"[*?\[]", pattern)
    if magic is None:
        return []
    start = pattern.rfind("/", 0, magic.start())
    names = [n for n in fs.glob(pattern) if fs.isfile(n)]
    return [n for n in names if "/." in pattern[start:] or "/." not in n[start:]]


def _belongs(inside: str) -> bool:
    if any(part.startswith(".") for part in inside.split("/")) or inside.lower().endswith(".json"):
        return False
    return any(inside.lower().endswith(suffix) for suffix in _FORMATS)


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        fs, root = url_to_fs(path)
    except ImportError as error:
        raise MissingExtraError(path.split("://")[0] + "fs", "all", f"reading {path!r}") from error
    except ValueError as error:
        raise InputError(f"path {path!r} cannot be opened: {error}; check its protocol") from error
    return fs, cast(str, root)


def file_format(path: str) -> FileFormat:
    """Return the format that a file's suffix declares."""
    lower = path.lower()
    for suffix in sorted(_FORMATS, key=len, reverse=True):
        if lower.endswith(suffix):
            return _FORMATS[suffix]
    raise InputError(f"file {path!r} has no known suffix; expected one of {', '.join(sorted(_FORMATS))}")


def open_input(path: str) -> BinaryIO:
    """Open a file for reading bytes (seekable); InputError names a file that cannot be opened."""
    try:
        if "://" not in path:
            return Path(path).open("rb")
        return cast(BinaryIO, cast(Any, fsspec.open(path, "rb")).open())
    except OSError as error:
        raise InputError(
            f"file {path!r} cannot be read ({error}); check the path and its permissions"
        ) from error


def file_size(path: str) -> int:
    """Return the size of a file in bytes."""
    fs, root = _filesystem(path)
    try:
        return int(fs.size(root))
    except FileNotFoundError as error:
        raise InputError(f"file {path!r} does not exist; check the path in the recipe") from error


def file_info(path: str) -> FileInfo:
    """Return size and xxh3-128 of a file's bytes."""
    hasher, size = xxhash.xxh3_128(), 0
    with open_input(path) as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    return FileInfo(path=path, bytes=size, digest=hasher.hexdigest())


def available_cores() -> int:
    """Return the cores this process may use: its affinity, cut by a container's CPU quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
