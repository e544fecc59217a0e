"""Servers of bare sockets, for what no server of good manners does."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

__all__ = ["Connection", "SocketServer", "running_socket_server", "unanswering_address"]


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    head: str
    body: bytes


class Connection:
    """A connection from the server's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> Request:
        """Reads a whole request, the length of whose body is given."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
        length = int(fields.get("content-length", "0"))
        return Request(head, await self._reader.readexactly(length))

    async def send(self, data: bytes) -> None:
        """Sends a part of a reply."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """Ends the connection in order."""
        self._writer.close()

    def reset(self) -> None:
        """Ends the connection as a crash of the machine would."""
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self._writer.transport.abort()


Script = Callable[[Connection], Awaitable[None]]


class SocketServer:
    """Runs a script for each request that arrives; one that does nothing leaves it unanswered.

    Attributes:
        url: Where it listens.
        connection_count: Connections so far.
        requests: Requests so far.
        ended: Set when a client has ended a connection.
    """

    def __init__(self, script: Script) -> None:
        self.url = ""
        self.connection_count = 0
        self.requests: list[Request] = []
        self.ended = asyncio.Event()
        self._script = script

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        self.connection_count += 1
        connection = Connection(reader, writer)
        try:
            while not writer.is_closing():
                self.requests.append(await connection.receive())
                await self._script(connection)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.set()
        finally:
            connection.close()


@asynccontextmanager
async def running_socket_server(script: Script) -> AsyncIterator[SocketServer]:
    """Runs a server; what goes wrong in its script comes out here."""
    server = SocketServer(script)
    tasks: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(group.create_task(server.serve(reader, writer)))

        listener = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=512)
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield server
        finally:
            listener.close()
            for task in tasks:
                task.cancel()


@contextmanager
def unanswering_address() -> Iterator[str]:
    """Yields the URL of a server that neither accepts nor refuses a connection."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # Nobody accepts: when these have filled its queue, others get no answer.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
