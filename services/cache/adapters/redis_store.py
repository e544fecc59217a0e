"""The shared store in Redis or Valkey: one server, a master behind Sentinels, or a cluster.

Core commands of Redis 6.2 only. Commands are never cancelled: the client library at times swallows
a cancellation and waits for one more of its own time-outs (of 100 callers of a frozen server the
slowest then took 240 ms instead of 140, measured). A caller that stops waiting leaves its command
to end by those time-outs; only those that wait for streams, which may take long, are cancelled, and
not waited for.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from opentelemetry import trace

from services.cache.adapters.redis_cluster import ClusterRoutes
from services.cache.adapters.redis_commands import RedisCommands
from services.cache.adapters.redis_errors import failure_of
from services.cache.adapters.redis_listener import listen
from services.cache.adapters.redis_node import ConnectionOptions
from services.cache.adapters.redis_pools import PoolBook
from services.cache.adapters.redis_routes import Routes, SingleRoutes
from services.cache.adapters.redis_sentinel import SentinelRoutes
from services.cache.adapters.redis_spans import RedisSpans
from services.cache.adapters.redis_tasks import OwnTasks
from services.cache.core.store_address import StoreAddress, Topology, parse_store_url
from services.cache.ports import Notice, Script, StreamEntry, Write

__all__ = ["RedisStore"]

T = TypeVar("T")


class RedisStore:
    """Values, scripts, hashes, streams and notices in Redis.

    Args:
        url: Where it is; see `services.cache.core.store_address`.
        databases: Numbers of the databases that will be used; a cluster has one, whatever they are.
        timeout_seconds: Longest time for an exchange of commands and replies.
        connect_timeout_seconds: Longest time for making a connection.
        connection_limit: Most connections for commands, to each server and database.
        stream_connection_limit: Most connections that wait for streams, as many again.
        sentinel_password: Password of the Sentinels; empty where they want none.
        tracer: Makes one client span per operation that is part of a trace.
        command_pools: Keeps book of the connections for commands.
        stream_pools: Keeps book of the connections that wait for streams.
    """

    def __init__(
        self,
        url: str,
        *,
        databases: Sequence[int],
        timeout_seconds: float,
        connect_timeout_seconds: float,
        connection_limit: int,
        stream_connection_limit: int = 32,
        sentinel_password: str = "",
        tracer: trace.Tracer,
        command_pools: PoolBook | None = None,
        stream_pools: PoolBook | None = None,
    ) -> None:
        address = parse_store_url(url)
        options = ConnectionOptions(
            timeout_seconds=timeout_seconds,
            connect_timeout_seconds=connect_timeout_seconds,
            connection_limit=connection_limit,
            stream_connection_limit=stream_connection_limit,
            username=address.username,
            password=address.password,
            tls=address.tls,
            command_pools=command_pools or PoolBook(),
            stream_pools=stream_pools or PoolBook(),
        )
        self._timeout_seconds = timeout_seconds
        self._connect_timeout_seconds = connect_timeout_seconds
        self._routes = _routes(
            address,
            databases=tuple(dict.fromkeys(databases)),
            options=options,
            sentinel_password=sentinel_password,
        )
        self._commands = RedisCommands(self._routes)
        self._under_way = OwnTasks()
        self._spans = RedisSpans(tracer, address)

    async def read(
        self, database: int, keys: Sequence[bytes], *, timeout_seconds: float
    ) -> list[bytes | None]:
        """Reads values with MGET, in a cluster with pipelined GETs; see `SharedStore.read`."""
        with self._spans.around("GET" if self._routes.sharded else "MGET", database, len(keys)):
            return await self._ask(self._commands.read(database, keys), timeout_seconds)

    async def write(
        self, database: int, writes: Sequence[Write], *, timeout_seconds: float
    ) -> list[bool]:
        """Writes values with pipelined SETs; see `SharedStore.write`."""
        with self._spans.around("SET", database, len(writes)):
            return await self._ask(self._commands.write(database, writes), timeout_seconds)

    async def run(
        self,
        database: int,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | int],
        *,
        timeout_seconds: float,
    ) -> object:
        """Runs a script with EVALSHA or EVAL; see `SharedStore.run`."""
        with self._spans.around("EVALSHA", database, procedure=script.name):
            return await self._ask(
                self._commands.run(database, script, keys, arguments), timeout_seconds
            )

    async def read_map(
        self, database: int, key: bytes, *, timeout_seconds: float
    ) -> dict[bytes, bytes]:
        """Reads a hash with HSCAN; see `SharedStore.read_map`."""
        loop = asyncio.get_running_loop()
        with self._spans.around("HSCAN", database):
            limit = asyncio.timeout(timeout_seconds)
            work = self._commands.read_map(
                database, key, on_page=lambda: limit.reschedule(loop.time() + timeout_seconds)
            )
            return await self._bounded(self._under_way.start(work), limit)

    async def read_stream(
        self, database: int, key: bytes, after_id: bytes, *, wait_seconds: float, limit: int
    ) -> list[StreamEntry]:
        """Reads a stream with XREAD; see `SharedStore.read_stream`."""
        with self._spans.around("XREAD", database):
            work = self._commands.read_stream(
                database, key, after_id, wait_seconds=wait_seconds, limit=limit
            )
            task = self._under_way.start(work)
            try:
                bound = asyncio.timeout(wait_seconds + self._timeout_seconds)
                return await self._bounded(task, bound)
            finally:
                task.cancel()

    def listen(
        self, channels: Sequence[bytes]
    ) -> AbstractAsyncContextManager[AsyncIterator[Notice]]:
        """Subscribes with SUBSCRIBE; see `SharedStore.listen`."""
        limit_seconds = self._connect_timeout_seconds + self._timeout_seconds
        return listen(self._routes, channels, timeout_seconds=limit_seconds)

    async def check(self, *, timeout_seconds: float) -> None:
        """Reads a key of every server and database; see `SharedStore.check`."""
        await self._ask(self._commands.check(), timeout_seconds)

    async def close(self) -> None:
        """Waits for commands under way, which is short, and ends all connections."""
        await self._under_way.finish()
        await self._routes.close()

    async def _ask(self, work: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
        return await self._bounded(self._under_way.start(work), asyncio.timeout(timeout_seconds))

    async def _bounded(self, task: asyncio.Task[T], limit: asyncio.Timeout) -> T:
        try:
            async with limit:
                return await asyncio.shield(task)
        except Exception as error:
            raise failure_of(error) from error


def _routes(
    address: StoreAddress,
    *,
    databases: Sequence[int],
    options: ConnectionOptions,
    sentinel_password: str,
) -> Routes:
    if address.topology is Topology.CLUSTER:
        return ClusterRoutes(address.endpoints, options=options)
    if address.topology is Topology.SENTINEL:
        return SentinelRoutes(
            address.endpoints,
            address.service,
            databases=databases,
            options=options,
            sentinel_password=sentinel_password,
        )
    place = address.path or address.endpoints[0]
    return SingleRoutes(place, databases=databases, options=options)
