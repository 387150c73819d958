"""The one door to every file system: what may be opened, how, and errors that name the address.

In: a path or URL. Out: its fsspec file system and the path there, or a StoreError before any connection is
made. Keys are never taken from an address or a recipe: the library of the store finds them in the environment
or its credential chain (for S3 as botocore does, AWS_ENDPOINT_URL included).
"""

import io
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

from fsspec.core import url_to_fs

from quadmix.errors import InputError, MissingExtraError, QuadmixError, StoreError
from quadmix.urls import WEB, is_remote, redact, refusal, scheme

OFFLINE = "QUADMIX_OFFLINE"
ALLOW_HTTP = "QUADMIX_ALLOW_HTTP"
AllowHttp = bool | Literal["private"]
_HUB = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_PACKAGES = {
    "s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs"), "az": ("adlfs", "az"),
    "abfs": ("adlfs", "az"), "abfss": ("adlfs", "az"), "hf": ("huggingface_hub", "hf"),
    "http": ("aiohttp", "http"), "https": ("aiohttp", "http"),
}  # fmt: skip
_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
_TRANSIENT_NAMES = (
    "SlowDown", "Throttl", "RequestTimeout", "InternalError", "ServiceUnavailable", "Timeout",
    "ConnectionClosed", "EndpointConnection", "ClientPayload", "ServerDisconnected", "IncompleteRead",
    "ResponseParser", "ConnectionReset", "HTTPClientError", "ClientOSError",
)  # fmt: skip
_COLUMNAR = (".parquet", ".arrow", ".feather", ".ipc")


@contextmanager
def network(*, offline: bool = False, allow_http: AllowHttp = False) -> Generator[None]:
    """Set what may use the network inside the block, for this process and the workers it starts.

    offline: every remote address is refused, and so are downloads of models. allow_http: http(s) addresses
    of public hosts are allowed, with "private" those of local and private ones too. What the environment
    (QUADMIX_OFFLINE, QUADMIX_ALLOW_HTTP) says already stays.
    """
    wanted: dict[str, str] = dict.fromkeys((OFFLINE, *_HUB), "1") if offline or is_offline() else {}
    if allow_http:
        wanted[ALLOW_HTTP] = "private" if allow_http == "private" else "1"
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def network_environment() -> dict[str, str]:
    """Return the variables that carry these settings to workers on other machines."""
    return {n: os.environ[n] for n in (OFFLINE, ALLOW_HTTP, *_HUB) if n in os.environ}


def is_offline() -> bool:
    """Is every remote address to be refused?"""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no")


def allowed_http() -> AllowHttp:
    """Are http(s) addresses allowed, and those of private hosts?"""
    value = os.environ.get(ALLOW_HTTP, "").lower()
    return "private" if value == "private" else value not in ("", "0", "false", "no")


def check_address(url: str) -> None:
    """Raise StoreError unless this address may be opened now; nothing is connected to."""
    if reason := refusal(url, allow_http=bool(allowed_http())):
        raise StoreError(reason)
    if is_remote(url) and is_offline():
        raise StoreError(
            f"address {redact(url)!r} would use the network, which is switched off (--offline, run.offline "
            f"or {OFFLINE}); copy the files to this machine, or run without it"
        )


def open_door(url: str) -> tuple[Any, str]:
    """Return the file system of an address and its path there; its listings are fresh.

    Raises StoreError for an address that may not be opened, MissingExtraError without the store's library.
    """
    check_address(url)
    options: dict[str, Any] = {}
    if scheme(url) in WEB:
        from quadmix.io.web import check_host, guarded_client

        check_host(url)
        options = {"get_client": guarded_client}
    try:
        fs, root = url_to_fs(
            url if is_remote(url) or "://" in url else "file://" + os.path.abspath(url), **options
        )
    except ImportError as error:
        raise MissingExtraError(*_PACKAGES[scheme(url)], f"opening {redact(url)!r}") from error
    except ValueError as error:
        raise InputError(f"path {redact(url)!r} cannot be opened: {redact(str(error))}") from error
    if is_remote(url):
        fs.invalidate_cache()  # fsspec keeps instances and their listings: another process may have written
    return fs, cast(str, root)


@contextmanager
def explained(url: str, doing: str = "reading") -> Generator[None]:
    """Turn whatever a store's library raises into a StoreError that names the address and the remedy.

    The libraries have no common base class of errors, so all exceptions are caught; ours pass.
    """
    try:
        yield
    except QuadmixError:
        raise
    except Exception as error:
        for inner in _chain(error):
            if isinstance(inner, QuadmixError):  # a guard of ours, wrapped by the library on its way
                raise inner from None
        raise StoreError(f"{doing} {redact(url)!r} failed: {_what(error)}; {_remedy(url, error)}") from error


def is_transient(error: BaseException) -> bool:
    """Is it worth trying again: a timeout, a lost connection, too many requests, a server's own fault?"""
    for inner in _chain(error):
        status = _status(inner)
        if status is not None:
            return status in _TRANSIENT_STATUS
        if isinstance(inner, FileNotFoundError | PermissionError | FileExistsError):
            return False
        if isinstance(inner, TimeoutError | ConnectionError):
            return True
        if any(name in type(inner).__name__ for name in _TRANSIENT_NAMES):
            return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the causes first: a library's own error knows the status that its translation has lost."""
    found: list[BaseException] = []
    node: BaseException | None = error
    while node is not None and node not in found:
        found.append(node)
        node = node.__cause__ or node.__context__
    yield from reversed(found)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error of botocore, gcsfs, azure, huggingface_hub or aiohttp carries."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        meta = cast(dict[str, Any], response).get("ResponseMetadata") or {}
        return meta.get("HTTPStatusCode")
    for holder, name in (
        (error, "status_code"),
        (error, "status"),
        (error, "code"),
        (response, "status_code"),
    ):
        value = getattr(holder, name, None)
        if isinstance(value, int) and 100 <= value < 600:
            return value
    return None


def _what(error: BaseException) -> str:
    text = redact(str(error)).strip().splitlines()
    return f"{text[0][:300]} ({type(error).__name__})" if text else type(error).__name__


def _remedy(url: str, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "check the bucket and the path"
    refused = isinstance(error, PermissionError) or any(_status(e) in (401, 403) for e in _chain(error))
    if refused or "redential" in type(error).__name__:
        return (
            "check the permissions, and that credentials are where the store's library looks for them "
            "(environment, profile or instance role; docs/object-stores.md)"
        )
    if is_transient(error):
        return "the store did not answer in time or the connection broke; the same command goes on"
    return "check the address, the network and the store's own status"


class RemoteFile(io.BufferedIOBase):
    """A file of a store, read-only, whose errors name its address."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._file = url, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        with explained(self._url):
            return self._file.read(-1 if size is None else size)

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def open_remote(url: str) -> RemoteFile:
    """Open a file of a store for reading; StoreError says why it cannot be.

    Columnar files are read by exact ranges, so little is read ahead; others from front to end, in
    large pieces.
    """
    fs, root = open_door(url)
    ahead = 1 << 20 if url.lower().endswith(_COLUMNAR) else 1 << 24
    with explained(url):
        return RemoteFile(url, fs.open(root, "rb", block_size=ahead))
