"""The socket of a server: opened, closed for a time, and all its connections cut."""

import asyncio

from aiohttp import web

from services.common.clock import Clock


class Listener:
    """The address of one application.

    Args:
        host: Address to listen on.
        port: TCP port; 0 takes a free one, which is then kept.
        clock: Time.
    """

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        self._host = host
        self._port = port
        self._clock = clock
        self._site: web.TCPSite | None = None
        self._runner: web.AppRunner | None = None
        self._refusing: asyncio.Task[None] | None = None

    async def open(self, runner: web.AppRunner) -> int:
        """Listen for an application that is set up, and tell the port.

        Raises:
            OSError: The address cannot be listened on.
        """
        self._runner = runner
        self._site = web.TCPSite(runner, self._host, self._port)
        await self._site.start()
        self._port = int(runner.addresses[0][1])
        return self._port

    def refuse(self, seconds: float, request: web.Request) -> None:
        """Refuse connections for a time and cut all that there are, except the request's."""
        if self._refusing is not None:
            self._refusing.cancel()
        self._refusing = asyncio.ensure_future(self._refuse(seconds, request.transport))

    async def close(self, runner: web.AppRunner) -> None:
        """Cut all connections and stop listening, as the end of a process does."""
        if self._refusing is not None:
            self._refusing.cancel()
        _cut_all(runner)
        await runner.cleanup()

    async def _refuse(self, seconds: float, spared: asyncio.BaseTransport | None) -> None:
        runner = self._runner
        if runner is None:
            return
        if self._site is not None:
            site, self._site = self._site, None
            await site.stop()
        _cut_all(runner, spared)
        await self._clock.sleep(seconds)
        await self.open(runner)


def _cut_all(runner: web.AppRunner, spared: asyncio.BaseTransport | None = None) -> None:
    server = runner.server
    for connection in server.connections if isinstance(server, web.Server) else ():
        if connection.transport is not spared:
            cut(connection.transport)


def cut(transport: asyncio.BaseTransport | None) -> None:
    """Close a connection at once, as the end of its process would."""
    # The transports of uvloop derive from nothing.
    abort = getattr(transport, "abort", None)
    if abort is not None:
        abort()
