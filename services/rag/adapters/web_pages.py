"""Fetches pages of the web over aiohttp, from public hosts only.

The address is judged as it is written, every address that its name resolves to is judged, and the
socket is opened to one of those very addresses: the last check stands where the socket is made, so
that no second look at the name can lead elsewhere. Redirects are followed by hand and judged anew.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from opentelemetry.trace import NoOpTracer, Tracer
from yarl import URL

from services.rag.adapters.http_spans import request_span, shown
from services.rag.core.web_page import MEDIA_TYPES
from services.rag.core.web_rules import WebRules, is_public
from services.rag.web_port import FetchedPage, PageOutcome, PageRefused

__all__ = ["USER_AGENT", "HttpPages", "Resolve", "resolve_by_system"]

USER_AGENT = "pannier-rag/1.0 (reads pages to answer a user's question)"

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a name; raises `OSError` where it has none."""

_MOST_REDIRECTS = 5
_LONGEST_URL = 2_048
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONNECTIONS = 32
_CONNECTIONS_PER_HOST = 4
_PIECE_BYTES = 64 * 1024
_MOST_HEADER_BYTES = 16 * 1024


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """Resolves a name as the system does."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class HttpPages:
    """Fetches pages.

    Must be made within a running event loop. Sends no cookies, asks no proxy and takes nothing from
    the environment.

    Args:
        rules: What may be fetched.
        limit_bytes: Largest page.
        resolve: Resolves names.
        tracer: Makes a span for each request.
    """

    def __init__(
        self,
        rules: WebRules,
        *,
        limit_bytes: int,
        resolve: Resolve = resolve_by_system,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer or NoOpTracer()
        self._rules = rules
        self._limit_bytes = limit_bytes
        self._public = _session(_Resolver(resolve, only_public=True), _open_public_socket)
        self._private = _session(_Resolver(resolve, only_public=False), None)

    async def close(self) -> None:
        """Closes all connections."""
        await self._public.close()
        await self._private.close()

    async def fetch(self, url: str) -> FetchedPage:
        """Returns a page.

        Args:
            url: Its address, from anywhere.

        Raises:
            PageRefused: It must not or cannot be fetched.
        """
        target = _parsed(url)
        for _ in range(_MOST_REDIRECTS + 1):
            found = await self._ask(target)
            if isinstance(found, FetchedPage):
                return found
            target = found
        raise PageRefused(PageOutcome.REFUSED, f"more than {_MOST_REDIRECTS} redirects")

    async def _ask(self, url: URL) -> FetchedPage | URL:
        """Returns the page, or where it is to be looked for instead."""
        host = (url.host or "").lower()
        problem = self._rules.problem(
            scheme=url.scheme,
            host=host,
            port=url.port,
            has_credentials=url.user is not None or url.password is not None,
        )
        if problem is not None:
            raise PageRefused(PageOutcome.REFUSED, problem)
        is_private = self._rules.is_private_host(host, url.port)
        session = self._private if is_private else self._public
        try:
            with request_span(self._tracer, url, shown(url)) as request:
                async with session.get(url, allow_redirects=False) as reply:
                    request.note_status(reply.status)
                    if reply.status in _REDIRECTS:
                        return _redirected(url, reply)
                    return await self._read(url, reply)
        except _NotPublic as error:
            raise PageRefused(PageOutcome.REFUSED, str(error)) from None
        except TimeoutError:
            raise PageRefused(PageOutcome.TIMED_OUT, "it took too long") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and isinstance(
                error.os_error, _NotPublic
            ):
                raise PageRefused(PageOutcome.REFUSED, str(error.os_error)) from None
            raise PageRefused(PageOutcome.UNREACHABLE, type(error).__name__) from error

    async def _read(self, url: URL, reply: aiohttp.ClientResponse) -> FetchedPage:
        if reply.status != 200:
            raise PageRefused(PageOutcome.STATUS, f"the server answered {reply.status}")
        media_type = reply.content_type.lower()
        if media_type not in MEDIA_TYPES or "Content-Type" not in reply.headers:
            raise PageRefused(PageOutcome.UNSUPPORTED, f"{media_type} is not read")
        # Asked for as it is: what unpacks may be any size.
        if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise PageRefused(PageOutcome.UNSUPPORTED, "it is packed")
        if (reply.content_length or 0) > self._limit_bytes:
            raise PageRefused(PageOutcome.TOO_LARGE, f"it has {reply.content_length} bytes")
        body = bytearray()
        async for piece in reply.content.iter_chunked(_PIECE_BYTES):
            body += piece
            if len(body) > self._limit_bytes:
                raise PageRefused(
                    PageOutcome.TOO_LARGE, f"it has more than {self._limit_bytes} bytes"
                )
        return FetchedPage(
            url=str(url.with_fragment(None)),
            content=bytes(body),
            media_type=media_type,
            charset=reply.charset or "",
        )


class _NotPublic(OSError):
    """A name stands for a host that must not be asked."""


class _Resolver(AbstractResolver):
    def __init__(self, resolve: Resolve, *, only_public: bool) -> None:
        self._resolve = resolve
        self._only_public = only_public

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - any will do
    ) -> list[ResolveResult]:
        """Returns the addresses of a name, all or none of them."""
        addresses = await self._resolve(host, port)
        if not addresses:
            raise OSError(f"{host} has no address")
        # One address that is not public is reason enough: the next connection might take it.
        if self._only_public and not all(map(is_public, addresses)):
            raise _NotPublic(f"{host} has an address that is not public")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Has nothing to close."""


def _open_public_socket(info: tuple[Any, ...]) -> socket.socket:
    """Opens the socket for one address, which is the one that will be connected to."""
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise _NotPublic(f"{address[0]} is not public")
    return socket.socket(family=family, type=kind, proto=protocol)


def _session(
    resolver: AbstractResolver, open_socket: Callable[[tuple[Any, ...]], socket.socket] | None
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver,
            use_dns_cache=False,
            # A connection that is used again would be one that was not checked again.
            force_close=True,
            limit=_CONNECTIONS,
            limit_per_host=_CONNECTIONS_PER_HOST,
            socket_factory=open_socket,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": USER_AGENT,
            "Accept": "text/html, application/xhtml+xml, text/plain;q=0.9, application/pdf;q=0.8",
            "Accept-Encoding": "identity",
        },
        auto_decompress=False,
        trust_env=False,
        # Callers cancel what takes too long.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        max_line_size=_MOST_HEADER_BYTES,
        max_field_size=_MOST_HEADER_BYTES,
    )


def _parsed(url: str) -> URL:
    if len(url) > _LONGEST_URL:
        raise PageRefused(PageOutcome.REFUSED, "its address is too long")
    try:
        parsed = URL(url)
        # Both are worked out when they are asked for.
        _ = parsed.host, parsed.port
    except ValueError:
        raise PageRefused(PageOutcome.REFUSED, "its address cannot be read") from None
    if not parsed.absolute:
        raise PageRefused(PageOutcome.REFUSED, "its address is not complete")
    return parsed


def _redirected(url: URL, reply: aiohttp.ClientResponse) -> URL:
    location = reply.headers.get("Location", "")
    if not location:
        raise PageRefused(PageOutcome.STATUS, f"the server answered {reply.status} to nowhere")
    try:
        joined = str(url.join(URL(location)))
    except ValueError:
        raise PageRefused(PageOutcome.REFUSED, "a redirect's address cannot be read") from None
    return _parsed(joined)
