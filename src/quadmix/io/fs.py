"""Where the user's files are: patterns to paths, paths to bytes and digests, local or on any fsspec store.

In: files, globs, folders, URLs. Out: sorted paths; local ones are absolute, remote ones keep their protocol.
"""

import math
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import xxhash

from quadmix.errors import InputError
from quadmix.io.door import check_address, explained, open_door, open_remote
from quadmix.io.formats import SUFFIXES, check_named, members
from quadmix.types import FileInfo
from quadmix.urls import WEB, is_remote, redact, scheme

_CHUNK = 1 << 20
_digests: dict[tuple[str, int, str], str] = {}  # of remote files read by this process: by address, size, etag


def expand(paths: Sequence[str]) -> list[str]:
    """Return the files that the paths, globs and folders stand for, sorted, each once.

    Folders are searched recursively for known suffixes; hidden files and a bare `.json` (usually
    metadata) are taken only when named, and of a folder that `datasets.save_to_disk` wrote the files that
    its state.json lists. InputError names a pattern that matches nothing.
    """
    found: set[str] = set()
    for pattern in paths:
        matches = _matches(pattern)
        if not matches:
            raise InputError(
                f"corpus path {pattern!r} matches no file; expected a file, glob or folder with "
                f"{', '.join(SUFFIXES)}. Check the path (it is relative to the recipe)"
            )
        found.update(matches)
    return sorted(found)


def _matches(pattern: str) -> list[str]:
    fs, root = open_door(pattern)
    if not is_remote(pattern):
        kind = "file" if fs.isfile(root) else "directory" if fs.isdir(root) else None
        return [_address(pattern, fs, n) for n in _members(fs, root, kind)]
    with explained(pattern, "looking for"):
        return [_address(pattern, fs, n) for n in _members(fs, root, _remote_kind(fs, root))]


def _members(fs: Any, root: str, kind: str | None) -> list[str]:
    peek = partial(_peek, fs)
    if kind == "file":
        return check_named([root], peek)
    if kind == "directory":
        return members(root, fs.find(root), peek)
    return check_named(_glob(fs, root), peek)


def _remote_kind(fs: Any, root: str) -> str | None:
    """Return what lies there; an error that is not plain absence (no permission) is raised, not swallowed."""
    try:
        return cast(str, fs.info(root)["type"])
    except FileNotFoundError:
        return None


def _address(pattern: str, fs: Any, name: str) -> str:
    """Return a found file as an address that opens it again: with the user's scheme, and Azure's account."""
    kind = scheme(pattern)
    if kind == "file" or kind in WEB:
        return name
    if not is_remote(pattern):
        return cast(str, fs.unstrip_protocol(name))
    place = pattern.partition("://")[2].partition("/")[0]
    return f"{kind}://{place}/{name.partition('/')[2]}" if "@" in place else f"{kind}://{name}"


def _glob(fs: Any, pattern: str) -> list[str]:
    """Return the files a glob matches; as in a shell, hidden ones only where the pattern says so."""
    magic = re.search(r"[*?\[]", pattern)
    if magic is None:
        return []
    start = pattern.rfind("/", 0, magic.start())
    found = cast(dict[str, dict[str, Any]], fs.glob(pattern, detail=True))
    names = [name for name, info in found.items() if info["type"] == "file"]
    return [n for n in names if "/." in pattern[start:] or "/." not in n[start:]]


def _peek(fs: Any, name: str) -> bytes | None:
    return fs.cat_file(name) if fs.isfile(name) else None


def open_input(path: str) -> BinaryIO:
    """Open a file for reading bytes (seekable); InputError names a file that cannot be opened."""
    if is_remote(path):
        return cast(BinaryIO, open_remote(path))
    check_address(path)
    try:
        if "://" not in path:
            return Path(path).open("rb")
        fs, root = open_door(path)
        return cast(BinaryIO, fs.open(root, "rb"))
    except OSError as error:
        raise InputError(
            f"file {path!r} cannot be read ({error}); check the path and its permissions"
        ) from error


def file_size(path: str) -> int:
    """Return the size of a file in bytes."""
    fs, root = open_door(path)
    try:
        if not is_remote(path):
            return int(fs.size(root))
        with explained(path):
            return int(fs.info(root)["size"])
    except FileNotFoundError as error:
        raise InputError(f"file {path!r} does not exist; check the path in the recipe") from error
    except TypeError as error:
        raise InputError(f"file {redact(path)!r}: its server does not tell its size; copy it here") from error


def file_info(path: str) -> FileInfo:
    """Return size and xxh3-128 of a file's bytes.

    A remote file that this process has read before, of the same size and etag, is not read again.
    """
    stamp = _stamp(path) if is_remote(path) else None
    if stamp in _digests:
        return FileInfo(path=path, bytes=stamp[1], digest=_digests[stamp])
    hasher, size = xxhash.xxh3_128(), 0
    with open_input(path) as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    if stamp is not None and stamp[1] == size:
        _digests[stamp] = hasher.hexdigest()
    return FileInfo(path=path, bytes=size, digest=hasher.hexdigest())


def _stamp(path: str) -> tuple[str, int, str] | None:
    fs, root = open_door(path)
    with explained(path):
        info = fs.info(root)
    etag = next((str(info[k]) for k in ("ETag", "etag", "blob_id") if info.get(k)), "")
    return (path, int(info["size"]), etag) if etag and info.get("size") is not None else None


def available_cores() -> int:
    """Return the cores this process may use: its affinity, cut by a container's CPU quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))
