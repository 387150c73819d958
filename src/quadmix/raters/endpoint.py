"""A client of servers that speak OpenAI's chat completions.

In: an `Endpoint` and the JSON body of a request. Out: a `Completion`, or an error with a remedy. Addresses
pass the project's door (io.door: offline, allow_http, private hosts). Redirects are not followed, so that the
key goes to no other host; it is read from the environment for each request and stands in no value, file or
message. Proxies of the environment are not used.
"""

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from quadmix.errors import InputError, StoreError
from quadmix.io.door import check_address
from quadmix.io.web import check_host
from quadmix.rng import keyed_uniform
from quadmix.urls import WEB, forbidden_host, redact, scheme

NOT_JSON, NO_CHOICES = "not_json", "no_choices"
_LARGEST = 1 << 24  # bytes of an answer; what is longer is cut, and then no JSON
_TRANSIENT = (408, 425, 429)
_REMEDIES = {
    400: "check the settings of the judge (per_request: 1 for servers without `n`; length_field; extra)",
    401: "check the key in the environment variable {key}",
    403: "check the key in the environment variable {key}, and what it may use",
    404: "check the address (it ends before /chat/completions) and the name of the model",
    429: "the account's quota is used up; raise it, the same command goes on",
}


class RefusedError(StoreError):
    """The server refused one request for good; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server and a model on it.

    address: http(s) URL before `/chat/completions`, e.g. http://127.0.0.1:8000/v1. model: the name asked for.
    aliases: other names by which the server may call that model. key_variable: environment variable that
    holds the API key, "" = none is sent. timeout: seconds until a request counts as lost, > 0. attempts: how
    often a request is sent at most, >= 1. backoff, longest_wait: seconds before the second attempt (doubled
    for each further one) and at most before any, >= 0.
    """

    address: str
    model: str
    aliases: tuple[str, ...] = ()
    key_variable: str = ""
    timeout: float = 120.0
    attempts: int = 6
    backoff: float = 1.0
    longest_wait: float = 120.0

    def __post_init__(self) -> None:
        if scheme(self.address) not in WEB:
            raise InputError(f"endpoint {redact(self.address)!r}: expected an http:// or https:// address")
        if (
            not self.model
            or self.timeout <= 0
            or self.attempts < 1
            or min(self.backoff, self.longest_wait) < 0
        ):
            raise InputError(
                f"endpoint {redact(self.address)!r}: expected the name of a model, timeout > 0, "
                f"attempts >= 1 and waits >= 0, got model {self.model!r}, timeout {self.timeout}, attempts "
                f"{self.attempts}, backoff {self.backoff}, longest_wait {self.longest_wait}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What came back. texts: one per choice, None where a choice holds no text. reason: "" or why it is no
    completion (NOT_JSON, NO_CHOICES). tokens_in, tokens_out: the server's count, None if it gave none."""

    texts: tuple[str | None, ...] = ()
    reason: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What is told about each time that a request is sent.

    before: called before it leaves; what it raises is raised. failed(reason, billed): called when it brought
    no answer; billed says that the server may have done the work (a timeout, a broken connection). stop: once
    set, waits end and nothing is sent again.
    """

    before: Callable[[], None]
    failed: Callable[[str, bool], None]
    stop: threading.Event


def complete(endpoint: Endpoint, body: dict[str, Any], attempts: Attempts | None = None) -> Completion:
    """Send one chat completion; transient failures (timeouts, 408, 425, 429, 5xx) are tried again.

    An answer that is no completion is returned with its reason. Raises RefusedError for any other status,
    StoreError if the address may not be used or no attempt succeeded, InputError if another model answered.
    """
    data = _ask(endpoint, "POST", "/chat/completions", orjson.dumps(body), attempts)
    found = _object(data)
    if found is None:
        return Completion(reason=NOT_JSON)
    usage = found.get("usage")
    counts = cast(dict[str, Any], usage) if isinstance(usage, dict) else {}
    tokens_in, tokens_out = _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))
    choices = found.get("choices")
    if not isinstance(choices, list) or not choices:
        return Completion(reason=NO_CHOICES, tokens_in=tokens_in, tokens_out=tokens_out)
    name = found.get("model")
    if name not in (endpoint.model, *endpoint.aliases):
        text = (
            f"endpoint {endpoint.address!r} was asked for model {endpoint.model!r} and {name!r} answered; "
            "ask for that one, or list it under `aliases` if it is the same model"
        )
        raise InputError(_clean(text, endpoint))
    texts = tuple(_content(c) for c in cast(list[Any], choices))
    return Completion(texts=texts, tokens_in=tokens_in, tokens_out=tokens_out)


def list_models(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the models that the server names; InputError if it names none, else errors as `complete`."""
    found = _object(_ask(endpoint, "GET", "/models", b"", None)) or {}
    rows = found.get("data")
    if not isinstance(rows, list):
        raise InputError(f"endpoint {redact(endpoint.address)!r}: /models gave no list; check the address")
    names = [cast(dict[str, Any], r).get("id") for r in cast(list[Any], rows) if isinstance(r, dict)]
    return tuple(n for n in names if isinstance(n, str))


def _ask(endpoint: Endpoint, method: str, path: str, body: bytes, attempts: Attempts | None) -> bytes:
    told = attempts or Attempts(
        before=lambda: None, failed=lambda _reason, _billed: None, stop=threading.Event()
    )
    headers = _headers(endpoint)
    check_address(endpoint.address)
    failure = _Failure("stopped")
    for attempt in range(endpoint.attempts):
        if told.stop.is_set():
            break
        told.before()
        found = _attempt(endpoint, method, path, body, headers)
        if isinstance(found, bytes):
            return found
        failure = found
        told.failed(failure.reason, failure.billed)
        if failure.error:
            raise failure.error
        if failure.wait > endpoint.longest_wait:
            break
        if attempt + 1 < endpoint.attempts:
            told.stop.wait(max(failure.wait, _pause(endpoint, body, attempt)))
    asks = f" and asks to wait {failure.wait:.0f} s" if failure.wait else ""
    text = (
        f"endpoint {endpoint.address!r} gave no answer, last: {failure.reason}{asks} (attempts "
        f"{endpoint.attempts}, timeout {endpoint.timeout:g} s, longest_wait "
        f"{endpoint.longest_wait:g} s); the same command goes on"
    )
    raise StoreError(_clean(text, endpoint))


@dataclass(frozen=True, slots=True)
class _Failure:
    """reason, billed: as in `Attempts`. wait: seconds that the server asks for. error: if no use to go on."""

    reason: str
    billed: bool = False
    wait: float = 0.0
    error: StoreError | None = None


def _attempt(
    endpoint: Endpoint, method: str, path: str, body: bytes, headers: dict[str, str]
) -> bytes | _Failure:
    try:
        status, wait, data = _exchange(endpoint, method, path, body, headers)
    except StoreError as error:  # the door refuses the host, or it has no address
        return _Failure("address", error=None if _passing(error.__cause__) else error)
    except ssl.SSLCertVerificationError as error:
        text = f"endpoint {endpoint.address!r}: its certificate is not trusted ({error.verify_message})"
        return _Failure("certificate", error=StoreError(_clean(text, endpoint)))
    except (OSError, HTTPException) as error:
        name = "timeout" if isinstance(error, TimeoutError) else type(error).__name__
        return _Failure(name, billed=not isinstance(error, ConnectionRefusedError))
    if status == 200:
        return data
    if not (status in _TRANSIENT or status >= 500) or b"insufficient_quota" in data:
        return _Failure(f"status {status}", error=_refused(endpoint, status, data))
    return _Failure(f"status {status}", wait=wait)


def _passing(cause: BaseException | None) -> bool:
    """Is it a name service that did not answer just now?"""
    return isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN


def _pause(endpoint: Endpoint, body: bytes, attempt: int) -> float:
    """Return the seconds before the next attempt; requests that failed together come back apart."""
    u = float(keyed_uniform(attempt, [body.decode()], "backoff")[0])
    return min(endpoint.longest_wait, endpoint.backoff * 2.0**attempt * (0.5 + u))


def _exchange(
    endpoint: Endpoint, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, float, bytes]:
    """Send one request over a connection of its own; return the status, the wait asked for and the bytes."""
    parts = urlsplit(endpoint.address)
    host, secure = parts.hostname or "", parts.scheme == "https"
    check_host(endpoint.address)
    deadline = time.monotonic() + endpoint.timeout
    plain = socket.create_connection((host, parts.port or (443 if secure else 80)), endpoint.timeout)
    try:
        _check_peer(endpoint, str(plain.getpeername()[0]), secure=secure, key="Authorization" in headers)
        context = ssl.create_default_context() if secure else None
        sock = context.wrap_socket(plain, server_hostname=host) if context else plain
    except BaseException:
        plain.close()
        raise
    kind = HTTPSConnection if secure else HTTPConnection
    connection = kind(host, parts.port, timeout=endpoint.timeout)
    connection.sock = sock  # to the address that was looked at: the name may lead elsewhere the next time
    target = parts.path.rstrip("/") + path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, target, body or None, headers)
        response = connection.getresponse()
        data = bytearray()
        while len(data) <= _LARGEST and (piece := response.read1(1 << 16)):
            data += piece
            if time.monotonic() > deadline:  # the socket's own limit is per read
                raise TimeoutError
        if response.length and len(data) <= _LARGEST:
            raise ConnectionError("the answer was cut")
        return response.status, _seconds(response.getheader("Retry-After")), bytes(data)
    finally:
        connection.close()
        sock.close()


def _check_peer(endpoint: Endpoint, address: str, *, secure: bool, key: bool) -> None:
    check_host(f"http://[{address}]" if ":" in address else f"http://{address}")
    if key and not secure and forbidden_host(address, allow_private=False) is None:
        raise StoreError(
            f"endpoint {redact(endpoint.address)!r}: a key is not sent over http:// to a public host, where "
            "anybody on the way reads it; expected https://, or an empty key_variable"
        )


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
    if not endpoint.key_variable:
        return headers
    key = _key(endpoint)
    if not key or not (key.isascii() and key.isprintable()):
        raise InputError(
            f"endpoint {redact(endpoint.address)!r}: environment variable {endpoint.key_variable} "
            "holds no API key (it is empty, or not printable ASCII); set it, or leave "
            "key_variable empty for a server without"
        )
    return {**headers, "Authorization": f"Bearer {key}"}


def _key(endpoint: Endpoint) -> str:
    return os.environ.get(endpoint.key_variable, "").strip() if endpoint.key_variable else ""


def _clean(text: str, endpoint: Endpoint) -> str:
    key = _key(endpoint)
    return redact(text.replace(key, "***") if key else text)


def _refused(endpoint: Endpoint, status: int, data: bytes) -> RefusedError:
    """The server's words are shown unless they are about the key, of which some servers repeat a part."""
    words = "" if status in (401, 403) else f": {data[:300].decode('utf-8', 'replace').strip()}"
    remedy = _REMEDIES.get(status, "check the address and the settings of the judge")
    remedy = remedy.format(key=endpoint.key_variable or "that key_variable names (it is empty)")
    return RefusedError(
        _clean(f"endpoint {endpoint.address!r} refuses with status {status}{words}; {remedy}", endpoint),
        status,
    )


def _seconds(header: str | None) -> float:
    """Return the wait that a Retry-After header asks for in seconds, 0 where it asks for none."""
    text = (header or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time()) if text else 0.0
    except ValueError:
        return 0.0


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return cast(dict[str, Any], found) if isinstance(found, dict) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _content(choice: Any) -> str | None:
    message = cast(dict[str, Any], choice).get("message") if isinstance(choice, dict) else None
    text = cast(dict[str, Any], message).get("content") if isinstance(message, dict) else None
    return text if isinstance(text, str) else None
