"""A line to a real Redis on which requests and replies get lost, or take their time.

A `conftest.py` offers the fixtures:

    from tests.kit.redis_lines import redis_line
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.kit.redis import RedisServer

__all__ = ["RedisLine", "redis_line"]

_CHUNK_BYTES = 1 << 16


class RedisLine:
    """Passes everything on to a server, and its replies back, unless told otherwise.

    Args:
        port: Where the server listens.

    Attributes:
        url: Where the line begins.
        loses_requests: Whether nothing gets to the server.
        loses_replies: Whether nothing gets back.
        delay_seconds: How long each reply takes on its way back.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = ""
        self.loses_requests = False
        self.loses_replies = False
        self.delay_seconds = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection until both ends have closed it."""
        back, there = await asyncio.open_connection("127.0.0.1", self._port)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass_requests(reader, there))
            group.create_task(self._pass_replies(back, writer))

    async def _pass_requests(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(_CHUNK_BYTES):
            if not self.loses_requests:
                target.write(data)
        target.close()

    async def _pass_replies(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(_CHUNK_BYTES):
            await asyncio.sleep(self.delay_seconds)
            if not self.loses_replies:
                target.write(data)
        target.close()


@pytest.fixture
async def redis_line(redis_server: RedisServer) -> AsyncIterator[RedisLine]:
    """A line to the running server, emptied."""
    line = RedisLine(redis_server.port)
    listener = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    line.url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield line
