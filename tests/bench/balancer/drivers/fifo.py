"""A queue in the client: whoever has waited longest gets the first slot that is free.

The strongest rule that knows neither models nor speeds. It costs no hop, which flatters it.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from tests.bench.balancer.drivers.ollama import OllamaClient
from tests.bench.balancer.drivers.port import Progress
from tests.bench.balancer.traces import Request

__all__ = ["CentralFifo"]


class CentralFifo:
    """Sends each request to the host whose slot has been free for longest; else it waits in line.

    Args:
        slots: The host of each slot; a host that can do several things at a time has several.
    """

    def __init__(self, slots: Sequence[str]) -> None:
        clients = {url: OllamaClient(url) for url in slots}
        self._clients = tuple(clients.values())
        self._free: asyncio.Queue[OllamaClient] = asyncio.Queue()
        for url in slots:
            self._free.put_nowait(clients[url])
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Opens the sessions."""
        for client in self._clients:
            await self._opened.enter_async_context(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes them."""
        await self._opened.aclose()

    async def chat(self, request: Request, system: str, user: str, progress: Progress) -> None:
        """Has a conversation answered."""
        async with self._slot() as client:
            await client.chat(request, system, user, progress)

    async def embed(self, request: Request, texts: list[str], progress: Progress) -> None:
        """Has texts turned into vectors."""
        async with self._slot() as client:
            await client.embed(request, texts, progress)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[OllamaClient]:
        client = await self._free.get()
        try:
            yield client
        finally:
            self._free.put_nowait(client)
