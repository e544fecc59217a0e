"""One Redis server: its connections to one database, and how commands get there and back.

The client library's connections are used, not its clients: those hide behind a command how often it
is tried, on which connection and for how long.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import (
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from services.cache.adapters.redis_pools import PoolBook, PoolUsage
from services.cache.adapters.redis_tasks import all_of, heed_cancellation
from services.cache.core.store_address import Endpoint

__all__ = ["Command", "ConnectionOptions", "Node", "RawConnection", "Reply"]

Command = Sequence[bytes | str | int]
"""Name and arguments."""

Reply = Any
"""Bytes, an integer, None, a list of these, or the ResponseError that the server answered with."""


class RawConnection(Protocol):
    """What is used of the client library's connections, which have few types of their own."""

    @property
    def is_connected(self) -> bool:
        """Whether it is open."""
        ...

    async def connect(self) -> None:
        """Connects, logs in and selects the database."""
        ...

    def pack_commands(self, commands: Iterable[Command]) -> list[bytes]:
        """Puts commands into the protocol's form."""
        ...

    async def send_packed_command(self, command: list[bytes]) -> None:
        """Sends what `pack_commands` returned."""
        ...

    def read_response(self, *, timeout: float, disconnect_on_error: bool) -> Awaitable[Reply]:
        """Reads one reply; raises it where it is an error."""
        ...

    async def disconnect(self, *, nowait: bool) -> None:
        """Closes the connection; it can be used again after `connect`."""
        ...


class _Pool(Protocol):
    async def get_connection(self) -> RawConnection: ...
    async def release(self, connection: RawConnection) -> None: ...
    def make_connection(self) -> RawConnection: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOptions:
    """How connections are made.

    Attributes:
        timeout_seconds: Longest time for an exchange of commands and replies.
        connect_timeout_seconds: Longest time for making a connection.
        connection_limit: Most connections for commands, to each server and database.
        stream_connection_limit: Most connections that wait for streams, as many again.
        username: Who to log in as; None for the server's default user.
        password: None where the server wants none.
        tls: Whether connections are encrypted.
        command_pools: Keeps book of the connections for commands.
        stream_pools: Keeps book of the connections that wait for streams.
    """

    timeout_seconds: float
    connect_timeout_seconds: float
    connection_limit: int
    stream_connection_limit: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    command_pools: PoolBook = field(default_factory=PoolBook, repr=False)
    stream_pools: PoolBook = field(default_factory=PoolBook, repr=False)


class Node:
    """A server, as one of its databases.

    Args:
        place: Host and port, or the path of a socket.
        database: Number of the database.
        options: How connections are made.
    """

    def __init__(self, place: Endpoint | str, *, database: int, options: ConnectionOptions) -> None:
        self.place = place
        self._timeout_seconds = options.timeout_seconds
        self._commands = _Connections(
            place, database, options, limit=options.connection_limit, book=options.command_pools
        )
        self._streams = _Connections(
            place,
            database,
            options,
            limit=options.stream_connection_limit,
            book=options.stream_pools,
        )
        self._stream_slots = asyncio.Semaphore(options.stream_connection_limit)

    async def exchange(self, commands: Sequence[Command], *, asking: bool = False) -> list[Reply]:
        """Sends commands in one go and collects the replies.

        Args:
            commands: At least one.
            asking: Whether the keys are on their way to this server and asked for here already.

        Returns:
            One reply per command, in order; a refused command's is the error.

        Raises:
            Exception: What the library makes of a server that is away, too slow or refuses to be
                talked to; see `failure_of`.
        """
        if asking:
            asked = [each for command in commands for each in (("ASKING",), command)]
            return (await self.exchange(asked))[1::2]
        connection = await self._commands.acquire()
        try:
            return await _exchange(connection, commands, self._timeout_seconds)
        finally:
            await self._commands.release(connection)

    async def wait_for(self, make_command: Callable[[float], Command], *, ends_at: float) -> Reply:
        """Sends a command whose reply may take long, on a connection that nobody else waits for.

        Where all such connections are taken until then, it asks once without waiting.

        Args:
            make_command: Is told how long the server may wait, 0 for not at all.
            ends_at: Until when to wait, seconds on the loop's clock.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(ends_at):
                await self._stream_slots.acquire()
        except TimeoutError:
            return (await self.exchange([make_command(0.0)]))[0]
        try:
            connection = await self._streams.acquire()
            try:
                left_seconds = max(0.0, ends_at - loop.time())
                limit_seconds = left_seconds + self._timeout_seconds
                return (await _exchange(connection, [make_command(left_seconds)], limit_seconds))[0]
            finally:
                await self._streams.release(connection)
        finally:
            self._stream_slots.release()

    def make_connection(self) -> RawConnection:
        """Returns a connection that belongs to no pool, not yet connected."""
        return self._commands.make()

    async def close(self) -> None:
        """Ends all connections, those in use included.

        Whoever got hold of the server before may still talk to it; nothing of that stays open.
        """
        await all_of([self._commands.close(), self._streams.close()])


class _Connections:
    """Connections to one server and database for one purpose."""

    def __init__(
        self,
        place: Endpoint | str,
        database: int,
        options: ConnectionOptions,
        *,
        limit: int,
        book: PoolBook,
    ) -> None:
        self._pool = _pool(place, database, options, limit=limit)
        self._limit = limit
        self._book = book
        self._in_use_count = 0
        self._released: set[RawConnection] = set()
        self._is_closed = False
        book.add(self)

    async def acquire(self) -> RawConnection:
        """Takes a connection, once there is one free; opens it where needed."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            connection = await self._pool.get_connection()
        finally:
            self._book.observe_wait(loop.time() - started)
        self._in_use_count += 1
        self._released.discard(connection)
        return connection

    async def release(self, connection: RawConnection) -> None:
        """Gives a connection back."""
        self._in_use_count -= 1
        self._released.add(connection)
        if self._is_closed:
            await connection.disconnect(nowait=True)
        await self._pool.release(connection)

    def make(self) -> RawConnection:
        """Returns a connection that belongs to no pool, not yet connected."""
        return self._pool.make_connection()

    async def close(self) -> None:
        """Ends all connections."""
        self._is_closed = True
        self._book.remove(self)
        await self._pool.aclose()

    @property
    def usage(self) -> PoolUsage:
        """How full the pool is; may be asked from any thread."""
        # What has lost its connection stays in the pool, to be opened anew.
        idle = sum(each.is_connected for each in tuple(self._released))
        return PoolUsage(self._in_use_count, idle, self._limit)


async def _exchange(
    connection: RawConnection, commands: Sequence[Command], limit_seconds: float
) -> list[Reply]:
    try:
        async with asyncio.timeout(limit_seconds):
            await connection.send_packed_command(connection.pack_commands(commands))
            heed_cancellation()
            return [await _reply(connection) for _ in commands]
    except BaseException:
        # Replies that still come would be taken for those to the next commands.
        await connection.disconnect(nowait=True)
        raise


async def _reply(connection: RawConnection) -> Reply:
    try:
        # The library tells a reply of nil from one that is late by neither value nor error.
        return await connection.read_response(timeout=math.inf, disconnect_on_error=False)
    except ResponseError as error:
        return error


def _pool(place: Endpoint | str, database: int, options: ConnectionOptions, *, limit: int) -> _Pool:
    pool = BlockingConnectionPool(
        max_connections=limit,
        timeout=options.timeout_seconds,
        db=database,
        username=options.username,
        password=options.password,
        socket_timeout=options.timeout_seconds,
        socket_connect_timeout=options.connect_timeout_seconds,
        # The library's own default waits for a frozen server for a minute (measured).
        retry=Retry(NoBackoff(), 0),
        # RESP2 and no introduction: a new connection costs at most one round trip.
        protocol=2,
        driver_info=None,
        **_socket(place, tls=options.tls),
    )
    return cast("_Pool", pool)


def _socket(place: Endpoint | str, *, tls: bool) -> dict[str, Any]:
    if isinstance(place, str):
        return {"connection_class": UnixDomainSocketConnection, "path": place}
    host, port = place
    return {"connection_class": SSLConnection if tls else Connection, "host": host, "port": port}
