"""Connections to PostgreSQL: opened when first needed, bounded in time, with one kind of error."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import Context
from typing import Any, TypeAlias, cast

import asyncpg
import numpy as np
from asyncpg.pool import PoolConnectionProxy
from opentelemetry.trace import Tracer
from pgvector import HalfVector

from services.common.metrics import Metrics
from services.common.pools import PoolGauge
from services.rag.adapters.postgres_migrations import apply_migrations, load_migrations
from services.rag.adapters.postgres_role import ensure_role
from services.rag.adapters.postgres_session import Confinement, SessionConnection
from services.rag.adapters.postgres_tracing import traced_connection
from services.rag.core.documents import Vector
from services.rag.core.errors import StoreUnavailable

__all__ = ["DEFAULT_ROLE", "Connection", "PostgresPool"]

DEFAULT_ROLE = "pannier_rag"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
"""A connection, of the pool or not."""

# How long a caller waits for a free connection before the store counts as overloaded.
_ACQUIRE_SECONDS = 5.0
# The server ends a statement at its own limit; this is for a server that no longer answers.
_CLIENT_GRACE_SECONDS = 1.0
# The server ends at once what is cancelled; of a connection on which it does not, another takes
# the place, or statements that nobody waits for would keep the pool from all others.
_ENDING_SECONDS = 2.0

_FIND_VECTOR_SCHEMA = """
SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
WHERE extname = 'vector'
"""

# A server that goes away says so before it hangs up; a connection used in between ends in an
# internal error of the client.
_CONNECTION_LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
_UNAVAILABLE = (
    *_CONNECTION_LOST,
    TimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
)


class PostgresPool:
    """A pool of connections to a migrated database.

    It opens when first used, so that a service may start before its database and finds it later.

    Args:
        dsn: `postgresql://user:password@host:port/database`.
        size: Most connections.
        statement_seconds: Longest time of one statement.
        connect_seconds: Longest time to open a connection.
        role: Role that transactions of a tenant run under, bound by row-level security; made where
            it does not exist. Empty: they run as the login role and without this second wall.
        tracer: Makes spans of statements; None for none.
        metrics: Shows how full the pool is and how long is waited for it; None for nowhere.
    """

    def __init__(
        self,
        dsn: str,
        *,
        size: int = 16,
        statement_seconds: float = 30.0,
        connect_seconds: float = 2.0,
        role: str = DEFAULT_ROLE,
        tracer: Tracer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._dsn = dsn
        self._role = role
        self._confinement = Confinement(role)
        self._size = size
        self._statement_seconds = statement_seconds
        self._connect_seconds = connect_seconds
        self._tracer = tracer
        self._gauge = PoolGauge(metrics, "postgres", size) if metrics is not None else None
        if self._gauge is not None:
            self._gauge.watch(self._state)
        self._in_use_count = 0
        self._ending: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        """Migrates the database and connect; does nothing if that is done already.

        Raises:
            StoreUnavailable: The database cannot be reached.
            StoreSchemaTooNew: A newer release has migrated it.
            StoreRoleUnusable: The confined role cannot be made or taken on.
        """
        async with self.connection():
            pass

    async def close(self) -> None:
        """Ends all connections, waiting for statements under way no longer than their limit."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), self._statement_seconds)
            except TimeoutError:
                pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lends a connection; each statement on it commits by itself.

        Raises:
            StoreUnavailable: The database cannot be reached, or fails or stalls in the block.
        """
        async with self._session(None) as connection:
            yield connection

    @asynccontextmanager
    async def reading_once(self, tenant_id: str) -> AsyncIterator[Connection]:
        """Lends a connection for one statement that reads the rows of one tenant alone.

        Needs no round trip but the statement's own where the connection was last used so.

        Raises:
            StoreUnavailable: As for `connection`.
        """
        async with self._session(tenant_id) as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lends a connection inside a transaction that commits when the block ends well.

        Raises:
            StoreUnavailable: As for `connection`; nothing was changed.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def reading(self, tenant_id: str) -> AsyncIterator[Connection]:
        """Lends a connection inside a transaction that reads the rows of one tenant alone.

        All its statements see the same state.

        Raises:
            StoreUnavailable: As for `connection`.
        """
        # One round trip; `Connection.transaction` would need another one for itself.
        confined = self._confinement.of_transaction(tenant_id)
        begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {confined}"
        with translated_errors():
            pool, connection = await self._take()
            try:
                # Who is cancelled meanwhile may have a transaction all the same.
                await connection.execute(begin)
                yield connection
            except _CONNECTION_LOST:
                await _lose(pool, connection)
                raise
            finally:
                # What was read is there: nobody need wait for the end of it, or can cut it short.
                self._start_ending(pool, connection, "ROLLBACK")

    @asynccontextmanager
    async def writing(self, tenant_id: str) -> AsyncIterator[Connection]:
        """Lends a connection inside a transaction that reads and writes the rows of one tenant.

        It commits when the block ends well. Row-level security does not allow COPY.

        Raises:
            StoreUnavailable: As for `connection`; nothing was changed.
        """
        # One round trip, and one before it where the session is confined to reading.
        begin = f"BEGIN; {self._confinement.of_transaction(tenant_id)}"
        async with self._session(None, end="ROLLBACK") as connection:
            await connection.execute(begin)
            yield connection
            await connection.execute("COMMIT")

    @asynccontextmanager
    async def system(self) -> AsyncIterator[Connection]:
        """Lends a connection inside a transaction over all tenants, for the service's own work.

        Raises:
            StoreUnavailable: As for `connection`; nothing was changed.
        """
        async with self.transaction() as connection:
            yield connection

    @asynccontextmanager
    async def administering(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """Opens a connection of its own, without limits of time, for long work on the schema.

        Raises:
            StoreUnavailable: The database cannot be reached, or fails in the block.
        """
        await self.open()
        with translated_errors():
            connection = await _dial(self._dsn, timeout=self._connect_seconds)
            try:
                yield connection
            finally:
                # A statement under way is cancelled first.
                await connection.close(timeout=self._connect_seconds)

    @asynccontextmanager
    async def _session(
        self, tenant_id: str | None, *, end: str = "SELECT"
    ) -> AsyncIterator[Connection]:
        """Lends a connection whose session is confined to a tenant; None for to none.

        Args:
            tenant_id: The tenant.
            end: Statement that ends what may be under way where the block fails.
        """
        with translated_errors():
            pool, connection = await self._take()
            try:
                session = cast("SessionConnection", connection)
                await session.confine(self._confinement, tenant_id)
                yield connection
            except BaseException as error:
                # A statement that was prepared and then not executed, because it was cancelled just
                # then, keeps the server in a transaction that the client knows nothing of. Any
                # other statement ends it, but for an empty one, of which asyncpg knows nothing.
                self._start_ending(pool, connection, end)
                if isinstance(error, _CONNECTION_LOST):
                    await _lose(pool, connection)
                raise
            await self._give_back(pool, connection)

    async def _take(self) -> tuple[asyncpg.Pool, "PoolConnectionProxy[asyncpg.Record]"]:
        pool = await self._opened()
        with self._gauge.waiting() if self._gauge is not None else nullcontext():
            connection = await pool.acquire(timeout=_ACQUIRE_SECONDS)
        self._in_use_count += 1
        return pool, connection

    async def _give_back(
        self, pool: asyncpg.Pool, connection: "PoolConnectionProxy[asyncpg.Record]"
    ) -> None:
        self._in_use_count -= 1
        await pool.release(connection)

    def _start_ending(
        self, pool: asyncpg.Pool, connection: "PoolConnectionProxy[asyncpg.Record]", end: str
    ) -> None:
        ending = self._end(pool, connection, end)
        task = asyncio.create_task(ending, context=Context())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(
        self, pool: asyncpg.Pool, connection: "PoolConnectionProxy[asyncpg.Record]", end: str
    ) -> None:
        """Ends whatever was under way on a connection, and gives it back."""
        try:
            if not connection.is_closed():
                await connection.execute(end, timeout=_ENDING_SECONDS)
        except TimeoutError:
            # Before the lost ones, of which it is one by its class alone: others may be in order.
            _drop(connection)
        except _CONNECTION_LOST:
            await _lose(pool, connection)
        except asyncpg.PostgresError:
            _drop(connection)
        finally:
            await self._give_back(pool, connection)

    def _state(self) -> tuple[int, int]:
        """Returns how many connections are in use and how many are idle; for any thread."""
        pool, in_use_count = self._pool, self._in_use_count
        try:
            size = pool.get_size() if pool is not None else 0
        except AttributeError:
            # One has gone while it was looked at.
            size = in_use_count
        return in_use_count, max(0, size - in_use_count)

    async def _opened(self) -> asyncpg.Pool:
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await self._connect()
        return self._pool

    async def _connect(self) -> asyncpg.Pool:
        connection = await _dial(self._dsn, timeout=self._connect_seconds)
        try:
            await apply_migrations(connection, load_migrations())
            if self._role:
                await ensure_role(connection, self._role)
            schema = await connection.fetchval(_FIND_VECTOR_SCHEMA)
        finally:
            await connection.close()

        async def prepare(new: Connection) -> None:
            await new.set_type_codec(
                "halfvec", schema=schema, encoder=_encode, decoder=_decode, format="binary"
            )

        return await asyncpg.create_pool(
            self._dsn,
            # With a minimum the pool would keep trying, and log, while the database is away.
            min_size=0,
            max_size=self._size,
            connect=_dial,
            connection_class=(
                traced_connection(self._tracer, self._dsn)
                if self._tracer is not None
                else SessionConnection
            ),
            timeout=self._connect_seconds,
            command_timeout=self._statement_seconds + _CLIENT_GRACE_SECONDS,
            server_settings={
                "application_name": "pannier-rag",
                "statement_timeout": str(round(self._statement_seconds * 1000)),
                # Searches group and sort up to some hundred thousand rows; compiling them costs
                # more than it saves.
                "work_mem": "64MB",
                "jit": "off",
            },
            init=prepare,
            reset=_reset,
        )


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns every way in which the database can be out of reach into `StoreUnavailable`."""
    try:
        yield
    except _UNAVAILABLE as error:
        raise StoreUnavailable(_describe(error)) from error


async def _dial(*args: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    """Connects; a server that turns the connection down is as good as none."""
    try:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(*args, **options)
    except asyncpg.PostgresError as error:
        raise StoreUnavailable(_describe(error, "connection rejected")) from error
    return connection


def _drop(connection: Connection) -> None:
    """Gives up a connection."""
    # The pool may know already, and not lend it any more.
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _lose(pool: asyncpg.Pool, connection: Connection) -> None:
    """Gives up a connection that is lost; the idle ones are likely to be lost too."""
    _drop(connection)
    # The pool may have been closed meanwhile.
    with suppress(asyncpg.InterfaceError):
        await pool.expire_connections()


async def _reset(_connection: Connection) -> None:
    """Does nothing: asyncpg has ended transactions itself, and a session knows its only state."""


def _encode(vector: "Vector | HalfVector") -> bytes:
    # Within a list of vectors, arrays would pass for further dimensions of the list.
    half = vector if isinstance(vector, HalfVector) else HalfVector(vector)
    binary: bytes = half.to_binary()
    return binary


def _decode(binary: bytes) -> Vector:
    return np.asarray(HalfVector.from_binary(binary).to_numpy(), dtype=np.float32)


def _describe(error: BaseException, otherwise: str = "connection lost or not possible") -> str:
    if isinstance(error, (TimeoutError, asyncpg.QueryCanceledError)):
        return "timed out"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, asyncpg.TooManyConnectionsError):
        return "too many connections"
    if isinstance(error, asyncpg.TransactionRollbackError):
        return "conflict with another transaction"
    if isinstance(error, asyncpg.CannotConnectNowError):
        return "starting up or shutting down"
    return otherwise
