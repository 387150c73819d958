"""Finished files out to a store: one upload each, checked, and tried again when the store is busy.

In: local files and addresses. Out: objects that a reader sees whole or not at all (promise P2): an upload of
one request, or of parts that the store joins at the end. What arrived is compared with what was sent, by the
store's own checksum where it is one of ours, else by reading it back.
"""

import base64
import errno
import hashlib
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import xxhash

from quadmix.errors import IdentityError, IntegrityError
from quadmix.io.atomic import replacing
from quadmix.io.door import explained, is_transient, open_door
from quadmix.urls import redact, scheme

T = TypeVar("T")

TRIES = 5
_WAIT = 0.5  # seconds before the second try, doubled each time, half of it by chance
_CHUNK = 1 << 20
_PART = 16 << 20  # bytes of one part of a large upload; two parts are in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One object of a store. bytes: its size. digest: xxh3-128 of what was sent. etag: the store's own mark
    of this content, "" if it gives none. proof: how the content was checked (etag, md5, read)."""

    url: str
    bytes: int
    digest: str
    etag: str
    proof: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sums:
    """Size and checksums of a local file; `joined` is what S3 calls a file uploaded in our parts."""

    bytes: int
    digest: str
    md5: str
    joined: str


class _NotYet(Exception):
    """What was uploaded is not there, or differs: worth another try."""


def publish(local: str | Path, url: str, *, replace: bool = False) -> Stored:
    """Upload a finished local file; on return it is whole in the store and its content has been checked.

    An object of the same content that is there already is left as it is. One of other content is an
    IdentityError, unless `replace`; where the store can, it is asked to create only, so that of two writers
    one is refused. StoreError if it refuses or still does not answer after `TRIES` tries; IntegrityError if
    what arrived differs each time (the object is then removed).
    """
    path, sums = Path(local), _sums(local)
    ours = False  # a wrong object that we made ourselves may be replaced

    def once() -> Stored:
        nonlocal ours
        fs, root = open_door(url)
        there = _info(fs, root)
        if there is not None and (proof := _proof(fs, root, there, sums)):
            return _stored(url, there, sums, proof)
        if there is not None and not (replace or ours):
            raise _other_content(url, there, sums)
        try:
            _put(fs, path, root, scheme(url), create=not (replace or ours))
        except FileExistsError as error:
            there = _info(fs, root)
            if there is None:
                raise _NotYet("another writer's object came and went") from error
            if proof := _proof(fs, root, there, sums):
                return _stored(url, there, sums, proof)
            raise _other_content(url, there, sums) from error
        ours, there = True, _info(fs, root)
        if there is None:
            raise _NotYet("the store does not show it")
        if proof := _proof(fs, root, there, sums):
            return _stored(url, there, sums, proof)
        raise _NotYet(f"the store holds {there.get('size')} bytes of other content")

    try:
        return _retried(once, url, "publishing to")
    except _NotYet as error:
        remove(url)
        raise IntegrityError(
            f"{redact(url)} differs from {path} ({sums.bytes:,} bytes) after {TRIES} uploads: {error}; "
            "it was removed. Check the store and the network, then give the same command again"
        ) from error


def stored_info(url: str) -> Stored | None:
    """Return what lies at an address now, without reading it (digest and proof are ""); None if nothing."""

    def once() -> Stored | None:
        fs, root = open_door(url)
        there = _info(fs, root)
        return None if there is None else _stored(url, there, None, "")

    return _retried(once, url, "looking for")


def read_bytes(url: str) -> bytes | None:
    """Return the bytes of a small object; None if there is none."""

    def once() -> bytes | None:
        fs, root = open_door(url)
        try:
            return cast(bytes, fs.cat_file(root))
        except FileNotFoundError:
            return None

    return _retried(once, url, "reading")


def remote_digest(url: str) -> str | None:
    """Return the xxh3-128 of an object's bytes, read now; None if there is none."""

    def once() -> str | None:
        fs, root = open_door(url)
        return None if _info(fs, root) is None else _read_digest(fs, root)

    return _retried(once, url, "reading")


def listing(prefix: str) -> dict[str, int]:
    """Return the objects under a folder, by name relative to it, with their sizes; {} if there are none."""

    def once() -> dict[str, int]:
        fs, root = open_door(prefix.rstrip("/"))
        try:
            found = cast(dict[str, dict[str, Any]], fs.find(root, detail=True))
        except FileNotFoundError:
            return {}
        start = root.rstrip("/") + "/"
        return {
            n.removeprefix(start): int(i["size"]) for n, i in sorted(found.items()) if n.startswith(start)
        }

    return _retried(once, prefix, "listing")


def remove(url: str) -> None:
    """Remove an object; one that is not there is no error."""

    def once() -> None:
        fs, root = open_door(url)
        try:
            fs.rm_file(root)
        except FileNotFoundError:
            return

    _retried(once, url, "removing")


def _retried(action: Callable[[], T], url: str, doing: str) -> T:
    """Do it, again after a pause where the error may pass; the last error is explained."""
    for attempt in range(TRIES):
        try:
            return action()
        except Exception as error:
            if attempt + 1 == TRIES or not (isinstance(error, _NotYet) or is_transient(error)):
                if isinstance(error, _NotYet):
                    raise
                with explained(url, doing):
                    raise
            time.sleep(_WAIT * 2**attempt * (0.5 + random.random() / 2))
    raise AssertionError("unreachable")


def _sums(local: str | Path) -> _Sums:
    whole, md5, parts, size = xxhash.xxh3_128(), hashlib.md5(usedforsecurity=False), list[bytes](), 0
    part = hashlib.md5(usedforsecurity=False)
    with Path(local).open("rb") as file:
        while chunk := file.read(_CHUNK):
            whole.update(chunk)
            md5.update(chunk)
            part.update(chunk)
            size += len(chunk)
            if size % _PART == 0:
                parts.append(part.digest())
                part = hashlib.md5(usedforsecurity=False)
    if size % _PART:
        parts.append(part.digest())
    joined = f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
    return _Sums(bytes=size, digest=whole.hexdigest(), md5=md5.hexdigest(), joined=joined)


def _info(fs: Any, root: str) -> dict[str, Any] | None:
    try:
        info = cast(dict[str, Any], fs.info(root))
    except FileNotFoundError:
        return None
    return info if info["type"] == "file" else None


def _etag(info: dict[str, Any]) -> str:
    value = next((info[k] for k in ("ETag", "etag", "blob_id", "md5Hash") if info.get(k)), "")
    return str(value).strip('"')


def _md5(info: dict[str, Any]) -> str | None:
    """Return the MD5 that Google and Azure keep of an object, as hex."""
    held: Any = info.get("md5Hash") or (info.get("content_settings") or {}).get("content_md5")
    if not held:
        return None
    return (base64.b64decode(held) if isinstance(held, str) else bytes(held)).hex()


def _proof(fs: Any, root: str, info: dict[str, Any], sums: _Sums) -> str:
    """Return how the object was found to have the same content, or "" if it has not."""
    if info.get("size") != sums.bytes:
        return ""
    if _etag(info) in (sums.md5, sums.joined):
        return "etag"
    if _md5(info) == sums.md5:
        return "md5"
    # an etag of another kind (encrypted buckets, other part sizes) proves nothing either way
    return "read" if _read_digest(fs, root) == sums.digest else ""


def _read_digest(fs: Any, root: str) -> str:
    hasher = xxhash.xxh3_128()
    with fs.open(root, "rb", block_size=_PART) as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _put(fs: Any, path: Path, root: str, kind: str, *, create: bool) -> None:
    if kind == "file":
        with replacing(root) as temporary:
            shutil.copyfile(path, temporary)
        return
    options: dict[str, Any] = {"chunksize": _PART, "max_concurrency": 2} if kind == "s3" else {}
    try:
        fs.put_file(str(path), root, mode="create" if create else "overwrite", **options)
    except NotImplementedError:
        fs.put_file(str(path), root, **options)
    except OSError as error:
        if not create or error.errno != errno.ENOSYS:  # a store that knows no conditional writes
            raise
        fs.put_file(str(path), root, mode="overwrite", **options)


def _stored(url: str, info: dict[str, Any], sums: _Sums | None, proof: str) -> Stored:
    digest = sums.digest if sums else ""
    return Stored(url=url, bytes=int(info["size"]), digest=digest, etag=_etag(info), proof=proof)


def _other_content(url: str, info: dict[str, Any], sums: _Sums) -> IdentityError:
    return IdentityError(
        f"{redact(url)} is there already with other content ({info.get('size'):,} bytes, mark "
        f"{_etag(info) or 'none'}; expected {sums.bytes:,} bytes, digest {sums.digest[:12]}). Name another "
        "place in materialise.out, or remove what lies there"
    )
