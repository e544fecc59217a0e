"""What the HTTP clients share: one session without limits, and failures by name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp

from tests.bench.balancer.drivers.port import Failed

__all__ = ["HttpSession"]

_READ_BUFFER_BYTES = 1 << 20


class HttpSession:
    """An HTTP/1.1 client with as many connections as it needs.

    Args:
        url: Address of the server.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Opens the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(),
            read_bufsize=_READ_BUFFER_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Posts JSON and hands out the response once its status is known to be 200.

        Raises:
            Failed: It could not be sent, has another status, or breaks off.
        """
        if self._session is None:
            raise RuntimeError("the session is not open")
        try:
            async with self._session.post(self.url + path, json=body) as response:
                if response.status != 200:
                    await response.read()
                    raise Failed(f"http_{response.status}")
                yield response
        except aiohttp.ClientConnectorError:
            raise Failed("connection_refused") from None
        except aiohttp.ServerDisconnectedError:
            raise Failed("connection_lost") from None
        except (aiohttp.ClientError, ConnectionError, ValueError):
            raise Failed("stream_broken") from None
