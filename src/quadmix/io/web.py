"""Web addresses that the recipe allows: never metadata services, private hosts only if asked for.

In: an http(s) address. Out: a client session for fsspec that looks at every address it would connect to,
after the name was resolved and at every redirect, so that neither leads inside.
"""

import ipaddress
import socket
from typing import Any, cast

from quadmix.errors import StoreError
from quadmix.io.door import allowed_http
from quadmix.urls import forbidden_host, host, redact


def check_host(url: str) -> None:
    """Raise StoreError if the host of an address may not be connected to, or its name is not known."""
    try:
        name = host(url)
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (ValueError, OSError) as error:
        raise StoreError(f"address {redact(url)!r}: its host is not known ({error}); check it") from error
    for entry in found:
        _check(str(entry[4][0]), url)


def _check(address: str, url: str) -> None:
    if reason := forbidden_host(address, allow_private=allowed_http() == "private"):
        raise StoreError(f"address {redact(url)!r} is refused: {reason}; use a public host, or copy the file")


async def guarded_client(**options: Any) -> Any:
    """Return an aiohttp session that checks the hosts of redirects and every resolved address."""
    import aiohttp
    from aiohttp.abc import AbstractResolver
    from aiohttp.resolver import ThreadedResolver

    class Guarded(AbstractResolver):
        def __init__(self) -> None:
            self._inner = ThreadedResolver()

        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            found = await self._inner.resolve(host, port, family)
            for entry in found:
                _check(entry["host"], f"http://{host}")
            return found

        async def close(self) -> None:
            await self._inner.close()

    async def redirected(_session: Any, _context: Any, step: Any) -> None:
        target = cast(str | None, step.response.headers.get("Location"))
        if target is None:
            return
        url = step.url.join(type(step.url)(target))
        if url.host and _is_number(url.host):  # a name is looked at when it is resolved
            _check(url.host, str(url))

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(redirected)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=Guarded()), trace_configs=[trace], **options
    )


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
