"""What an address of a file may look like, decided from its text alone: schemes, secrets, private hosts.

In: a path or URL as the user wrote it. Out: why it is refused, or None. Nothing is opened or resolved here,
so the recipe can be checked with it before anything is written.
"""

import ipaddress
import os
import re
from urllib.parse import urlsplit

LOCAL = ("file", "memory")
STORES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "hf")
WEB = ("http", "https")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CHAIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*::")
_NAMES = r"key|secret|token|passw|pwd|sig(?![a-z])|signature|credential|sas(?![a-z])|auth(?![a-z])"
_QUERY = re.compile(rf"([?&;#][^=&;#/]*?(?:{_NAMES})[^=&;#/]*=)([^&;#\s'\"]*)", re.IGNORECASE)
_USERINFO = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)([^/@\s'\"]+)@")
# user:key with a slash in the key has no @ before the first slash; host:8080 is a port
_PAIR = re.compile(
    r"(\b[A-Za-z][A-Za-z0-9+.-]*://)(?!\[)[^/:\s'\"]*:(?!:|\d+(?:[/\s'\"]|$))\S*?(?=['\"\s]|$)"
)
_BRACKETS = re.compile(r"\[[0-9A-Fa-f:.%]*\]")  # an IPv6 host
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ACCOUNT = ("az", "abfs", "abfss")  # container@account is how these name a place; no secret
_SECRET = re.compile(r"SECRET|TOKEN|PASSW|PRIVATE|ACCOUNT_KEY|STORAGE_KEY|SAS|CONNECTION_STRING|API_KEY")
_LEAST = 8  # shorter values of such variables are words, not secrets


def scheme(path: str) -> str:
    """Return the scheme of an address, "file" for a plain path."""
    found = _SCHEME.match(path)
    return found.group(1) if found else "file"


def is_remote(path: str) -> bool:
    """Would opening this use the network?"""
    return scheme(path) not in LOCAL


def refusal(url: str, *, allow_http: bool = False) -> str | None:
    """Return why an address is refused whatever the network settings are, or None.

    Refused are keys inside the address, chained addresses (`simplecache::`) and unknown schemes; http(s)
    counts as unknown unless allowed. The reason holds no part of the address that may be a secret.
    """
    shown = repr(redact(url))
    if holds_secret(url):
        return (
            f"address {shown} holds a user name, key or token; expected an address without. Keys come from "
            "the environment or the credential chain of the store's library (docs/object-stores.md), and "
            "this one is best replaced now: it may be in your shell's history"
        )
    allowed = [*STORES, *LOCAL[:1], *(WEB if allow_http else ())]
    bare = _BRACKETS.sub("", url)
    if _CHAIN.match(bare) or ("::" in bare and "://" in bare):
        return f"address {shown} chains file systems; expected one of {_list(allowed)}, and nothing around it"
    if scheme(url) in (*allowed, *LOCAL):
        return None
    more = "" if allow_http or scheme(url) not in WEB else "; for http(s), set run.allow_http to true"
    known = f"{_list(allowed)} or a plain path{more}"
    return f"address {shown} has the scheme {scheme(url)!r}; expected one of {known}"


def forbidden_host(address: str, *, allow_private: bool) -> str | None:
    """Return why a numeric address (v4 or v6) may not be connected to, or None.

    Link-local ones (the metadata services of clouds live there) never; loopback, private, reserved and
    unspecified ones unless `allow_private`.
    """
    number = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(number, ipaddress.IPv6Address):
        inner = ipaddress.ip_address(int(number) & 0xFFFFFFFF) if number in _NAT64 else None
        number = number.ipv4_mapped or number.sixtofour or inner or number
    if number.is_link_local or str(number) in ("fd00:ec2::254", "100.100.100.200"):
        return f"{number} is a link-local or metadata address"
    if not number.is_global and not allow_private:
        return f"{number} is a private or local address (run.allow_http: private allows those)"
    return None


def redact(text: str) -> str:
    """Return the text without what must not be shown: keys inside addresses, and every value that a
    variable of the environment with SECRET, TOKEN, PASSWORD or the like in its name holds."""
    text = _QUERY.sub(r"\1***", _PAIR.sub(r"\1***", text))
    text = _USERINFO.sub(lambda m: m.group() if _is_account(m) else f"{m.group(1)}***@", text)
    for name, value in os.environ.items():
        if len(value) >= _LEAST and _SECRET.search(name.upper()) and value in text:
            text = text.replace(value, "***")
    return text


def _is_account(found: re.Match[str]) -> bool:
    return found.group(1)[:-3] in _ACCOUNT and ":" not in found.group(2)


def holds_secret(url: str) -> bool:
    """Does an address hold a user name, key or token (as user:key@ or in its query)?"""
    if not _SCHEME.search(url):
        return False
    userinfo = any(not _is_account(m) for m in _USERINFO.finditer(url))
    return userinfo or _PAIR.search(url) is not None or _QUERY.search(url) is not None


def _list(schemes: list[str]) -> str:
    return ", ".join(f"{s}://" for s in schemes)


def host(url: str) -> str:
    """Return the host of a web address; ValueError if it has none."""
    name = urlsplit(url).hostname
    if not name:
        raise ValueError("it names no host")
    return name
