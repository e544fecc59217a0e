"""The shared store in Redis or Valkey, with core commands only: MGET, SET with PX, PING.

Commands are never cancelled: the client library at times swallows a cancellation and waits for one
more of its own time-outs (of 100 callers of a frozen server the slowest then took 240 ms instead of
140, measured). A caller that stops waiting leaves its command to end by those time-outs.
"""

import asyncio
import os
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.cache.ports import StoreFailure, StoreTimeout, Write
from services.common.tracing import mark_failed

__all__ = ["RedisStore"]

T = TypeVar("T")

_DEFAULT_PORT = 6379


class RedisStore:
    """Values in the logical databases of one Redis server.

    Args:
        url: The server, without a database.
        databases: Numbers of the databases that will be used.
        timeout_seconds: Longest time for sending a command, and for each reply.
        connect_timeout_seconds: Longest time for making a connection.
        connection_limit: Most connections to each database.
        tracer: Makes one client span per command.
    """

    def __init__(
        self,
        url: str,
        *,
        databases: Sequence[int],
        timeout_seconds: float,
        connect_timeout_seconds: float,
        connection_limit: int,
        tracer: trace.Tracer,
    ) -> None:
        self._tracer = tracer
        self._server = _server_attributes(url)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._clients = {
            database: Redis.from_pool(
                BlockingConnectionPool.from_url(
                    url,
                    db=database,
                    max_connections=connection_limit,
                    timeout=timeout_seconds,
                    socket_timeout=timeout_seconds,
                    socket_connect_timeout=connect_timeout_seconds,
                    # The library's own default waits for a frozen server for a minute (measured).
                    retry=Retry(NoBackoff(), 0),
                    # RESP2 and no introduction: a new connection costs at most one round trip.
                    protocol=2,
                    driver_info=None,
                )
            )
            for database in dict.fromkeys(databases)
        }

    async def read(
        self, database: int, keys: Sequence[bytes], *, timeout_seconds: float
    ) -> list[bytes | None]:
        """Reads values with one MGET; see `SharedStore.read`."""
        with self._span("MGET", database, len(keys)):
            # The library's type allows for clients that decode; ours does not.
            command = cast("Awaitable[list[bytes | None]]", self._clients[database].mget(keys))
            return await self._ask(command, timeout_seconds)

    async def write(
        self, database: int, writes: Sequence[Write], *, timeout_seconds: float
    ) -> list[bool]:
        """Writes values with pipelined SETs; see `SharedStore.write`."""
        with self._span("SET", database, len(writes)):
            replies = await self._ask(self._set_all(database, writes), timeout_seconds)
            return [reply is True for reply in replies]

    async def check(self, *, timeout_seconds: float) -> None:
        """Pings every database; see `SharedStore.check`."""
        for client in self._clients.values():
            await self._ask(client.ping(), timeout_seconds)

    async def close(self) -> None:
        """Waits for commands under way, which is short, and ends all connections."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        for client in self._clients.values():
            await client.aclose(close_connection_pool=True)

    async def _set_all(self, database: int, writes: Sequence[Write]) -> list[Any]:
        async with self._clients[database].pipeline(transaction=False) as pipeline:
            for write in writes:
                pipeline.execute_command("SET", write.key, write.data, "PX", write.ttl_ms)
            # A server out of memory refuses some and takes others.
            return await pipeline.execute(raise_on_error=False)

    async def _ask(self, command: Awaitable[T], timeout_seconds: float) -> T:
        task = asyncio.ensure_future(command)
        self._under_way.add(task)
        task.add_done_callback(self._end)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.shield(task)
        except (TimeoutError, RedisTimeoutError) as error:
            raise StoreTimeout("no answer in time") from error
        except Exception as error:
            # Not the library's errors only: a connection that breaks at the wrong moment shows as
            # a RuntimeError of the event loop.
            raise StoreFailure(_cause(error)) from error

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # The caller has seen it, or has stopped waiting for it.
            task.exception()

    @contextmanager
    def _span(self, operation: str, database: int, batch_size: int) -> Iterator[None]:
        attributes: dict[str, str | int] = {
            "db.system.name": "redis",
            "db.operation.name": operation,
            "db.namespace": str(database),
            **self._server,
        }
        if batch_size > 1:
            attributes["db.operation.batch.size"] = batch_size
        span = self._tracer.start_span(operation, kind=SpanKind.CLIENT, attributes=attributes)
        try:
            yield
        except BaseException as error:
            mark_failed(span, error)
            raise
        finally:
            span.end()


def _server_attributes(url: str) -> dict[str, str | int]:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return {"server.address": parts.path}
    return {
        "server.address": parts.hostname or "localhost",
        "server.port": parts.port or _DEFAULT_PORT,
    }


def _cause(error: Exception) -> str:
    """Says what happened without address or secret, which the library's own texts may hold."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return "authentication failed"
    if isinstance(error, BusyLoadingError):
        return "server is loading its data"
    if isinstance(error, RedisConnectionError | OSError):
        number = getattr(error.__context__, "errno", None) or getattr(error, "errno", None)
        return os.strerror(number).lower() if isinstance(number, int) else "connection lost"
    return f"refused: {type(error).__name__}"
