import asyncio
import gc
import itertools
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.core.errors import StoreUnavailable
from tests.kit.rag_documents import MODEL, document, indexed_chunks, opened_store, unit_vector

SLEEP = "SELECT pg_sleep(30)"
SOCKET = ".s.PGSQL.5432"


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[PostgresDocumentStore]:
    async with opened_store(database_dsn) as store:
        yield store


async def connection_count(dsn: str, state: str) -> int:
    connection = await asyncpg.connect(dsn)
    count: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'pannier-rag' AND state = $1",
        state,
    )
    await connection.close()
    return count


async def until_busy(dsn: str, count: int) -> None:
    while await connection_count(dsn, "active") < count:
        await asyncio.sleep(0.005)


@pytest.fixture
async def pool(database_dsn: str) -> PostgresPool:
    return PostgresPool(database_dsn, size=2, statement_seconds=5.0, connect_seconds=2.0)


@pytest.mark.parametrize("kind", ["connection", "reading", "reading_once", "writing"])
async def test_a_cancelled_statement_ends_on_the_server_and_leaves_the_pool_usable(
    pool: PostgresPool, database_dsn: str, kind: str
) -> None:
    lend = {
        "connection": pool.connection,
        "reading": lambda: pool.reading("acme"),
        "reading_once": lambda: pool.reading_once("acme"),
        "writing": lambda: pool.writing("acme"),
    }[kind]

    async def sleep() -> None:
        async with lend() as connection:
            await connection.execute(SLEEP)

    for _ in range(3):
        tasks = [asyncio.create_task(sleep()) for _ in range(2)]
        await until_busy(database_dsn, 2)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
    async with asyncio.timeout(2), pool.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    # What ends it is no matter of whoever has left; the statement itself would take longer.
    async with asyncio.timeout(5):
        while await connection_count(database_dsn, "active"):
            await asyncio.sleep(0.005)
    await pool.close()


async def test_a_connection_that_was_read_with_is_lent_again_as_it_was(database_dsn: str) -> None:
    pool = PostgresPool(database_dsn, size=1)
    async with pool.connection() as connection:
        user = await connection.fetchval("SELECT current_user")
    for tenant in ("acme", "other"):
        for lend in (pool.reading, pool.reading_once):
            async with lend(tenant) as connection:
                assert await connection.fetchval("SELECT current_setting('app.tenant')") == tenant
                assert await connection.fetchval("SELECT current_user") != user
            async with pool.connection() as connection:
                assert not connection.is_in_transaction()
                assert await connection.fetchval("SELECT current_user") == user
                assert not await connection.fetchval("SELECT current_setting('app.tenant', true)")
                await connection.execute("CREATE TABLE rag.kept (); DROP TABLE rag.kept")
    await pool.close()


@pytest.mark.parametrize("order", list(itertools.permutations(("once", "reading", "writing"))))
async def test_a_connection_is_confined_to_whoever_borrows_it(
    database_dsn: str, order: tuple[str, ...]
) -> None:
    pool = PostgresPool(database_dsn, size=1)
    lend = {"once": pool.reading_once, "reading": pool.reading, "writing": pool.writing}
    facts = "SELECT current_user || '/' || current_setting('app.tenant')"
    for kind in (*order, *order):
        for tenant in ("acme", "acme", "other"):
            async with lend[kind](tenant) as connection:
                assert await connection.fetchval(facts) == f"pannier_rag/{tenant}"
    await pool.close()


async def test_a_database_that_only_reads_counts_as_away_for_writers(database_dsn: str) -> None:
    pool = PostgresPool(database_dsn, size=1)
    async with pool.connection() as connection:
        await connection.execute("SET default_transaction_read_only = on")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            async with pool.writing("acme") as connection:
                await connection.execute("DELETE FROM rag.collection")
    async with pool.reading_once("acme") as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await pool.close()


async def test_what_fails_at_the_end_of_a_transaction_leaves_nothing_and_is_told(
    database_dsn: str,
) -> None:
    pool = PostgresPool(database_dsn, size=1)
    async with pool.connection() as connection:
        await connection.execute(
            "CREATE TABLE rag.late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);"
            "GRANT ALL ON rag.late TO pannier_rag"
        )
    with pytest.raises(asyncpg.UniqueViolationError):
        async with pool.writing("acme") as connection:
            await connection.execute("INSERT INTO rag.late VALUES (1), (1)")
    async with pool.writing("acme") as connection:
        assert await connection.fetchval("SELECT count(*) FROM rag.late") == 0
    async with pool.connection() as connection:
        await connection.execute("DROP TABLE rag.late")
    await pool.close()


async def test_who_reads_once_is_confined_also_after_another_was_interrupted(
    pool: PostgresPool, database_dsn: str
) -> None:
    facts = "SELECT current_user || '/' || current_setting('app.tenant')"

    async def begin_and_break_off() -> None:
        async with pool.reading_once("acme") as connection:
            await connection.execute(f"BEGIN; {SLEEP}")

    for tenant in ("acme", "other"):
        tasks = [asyncio.create_task(begin_and_break_off()) for _ in range(2)]
        await until_busy(database_dsn, 2)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        async with pool.reading_once(tenant) as first, pool.reading_once(tenant) as second:
            for connection in (first, second):
                assert await connection.fetchval(facts) == f"pannier_rag/{tenant}"
                assert not connection.is_in_transaction()
    await pool.close()


@pytest.mark.parametrize("kind", ["connection", "reading", "reading_once", "writing"])
async def test_who_leaves_between_two_steps_of_a_statement_leaves_no_transaction_behind(
    database_dsn: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = PostgresPool(database_dsn, size=1)
    prepare = asyncpg.Connection._get_statement

    async def prepare_and_leave(self: asyncpg.Connection, *args: Any, **options: Any) -> None:
        await prepare(self, *args, **options)
        raise asyncio.CancelledError

    async def lent(kind: str, text: str = "SELECT $1::int") -> list[int]:
        lend = pool.connection if kind == "connection" else partial(getattr(pool, kind), "acme")
        async with lend() as connection:
            return [await connection.fetchval(text, 1)]

    await lent(kind)
    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.Connection, "_get_statement", prepare_and_leave)
        with pytest.raises(asyncio.CancelledError):
            await lent(kind, "SELECT $1::int + 0")
    other = await asyncpg.connect(database_dsn)
    async with asyncio.timeout(5):
        while await other.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'pannier-rag' AND datname = current_database()"
            " AND xact_start IS NOT NULL"
        ):
            await asyncio.sleep(0.005)
    await other.close()
    for after in ("reading", "writing", "reading_once", "connection"):
        assert await lent(after) == [1]
    await pool.close()
    gc.collect()
    assert not caplog.records


async def test_a_connection_that_reads_for_one_tenant_is_asked_for_nothing_else(
    database_dsn: str,
) -> None:
    pool = PostgresPool(database_dsn, size=1)
    asked: list[str] = []
    async with pool.reading_once("acme") as connection:
        connection.add_query_logger(lambda record: asked.append(record.query))
    for _ in range(2):
        async with pool.reading_once("acme") as connection:
            await connection.fetchval("SELECT 1")
    assert asked == ["SELECT 1"] * 2
    await pool.close()


async def test_what_was_read_stands_although_its_connection_is_lost_then(database_dsn: str) -> None:
    pool = PostgresPool(database_dsn, size=1)
    admin = await asyncpg.connect(database_dsn)
    async with pool.reading("acme") as connection:
        lost = await connection.fetchval("SELECT pg_backend_pid()")
        await admin.execute("SELECT pg_terminate_backend($1, 5000)", lost)
    async with pool.reading("acme") as connection:
        assert await connection.fetchval("SELECT pg_backend_pid()") != lost
    await admin.close()
    await pool.close()


@pytest.mark.parametrize("kind", ["connection", "reading", "reading_once", "writing"])
async def test_a_connection_that_is_lost_while_it_is_lent_is_not_counted_as_used_any_more(
    database_dsn: str, kind: str
) -> None:
    pool = PostgresPool(database_dsn, size=1)
    admin = await asyncpg.connect(database_dsn)
    lend = pool.connection if kind == "connection" else partial(getattr(pool, kind), "acme")

    async def borrow_one_that_is_lost() -> None:
        async with lend() as connection:
            lost = await connection.fetchval("SELECT pg_backend_pid()")
            await admin.execute("SELECT pg_terminate_backend($1, 5000)", lost)
            await connection.fetchval("SELECT 1")

    with pytest.raises(StoreUnavailable):
        await borrow_one_that_is_lost()
    async with lend() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await pool.close()
    assert pool._state() == (0, 0)
    await admin.close()


async def test_a_cancelled_put_is_done_wholly_or_not_at_all(store: PostgresDocumentStore) -> None:
    chunks = indexed_chunks([({f"t{n}": 1}, unit_vector(1, n)) for n in range(400)])
    await store.put_document(document("first"), chunks, embedding_model=MODEL)
    undone = 0
    for delay_seconds in (0.0, 0.001, 0.002, 0.005, 0.01, 0.02):
        task = asyncio.create_task(
            store.put_document(document("second"), chunks, embedding_model=MODEL)
        )
        await asyncio.sleep(delay_seconds)
        task.cancel()
        await asyncio.wait([task])
        found = await store.find_document("acme", "manuals", "second")
        stats = await store.get_collection("acme", "manuals")
        hits = await store.search_keyword("acme", "manuals", terms=["t7"], limit=9)
        assert (stats.chunk_count, len(hits.hits)) == ((800, 2) if found else (400, 1))
        if found:
            await store.delete_document("acme", "manuals", "second")
        else:
            undone += 1
    assert undone
    await store.put_document(document("second"), chunks, embedding_model=MODEL)


async def test_a_statement_beyond_its_limit_is_a_store_that_is_unavailable(
    database_dsn: str,
) -> None:
    pool = PostgresPool(database_dsn, size=1, statement_seconds=0.2, connect_seconds=2.0)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="timed out") as caught:
        async with pool.connection() as connection:
            await connection.execute(SLEEP)
    assert time.monotonic() - started < 1.5
    assert caught.value.retry_delay_seconds
    async with pool.connection() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await pool.close()


async def test_a_refused_connection_is_told_at_once(unused_tcp_port: int) -> None:
    pool = PostgresPool(f"postgresql://postgres@127.0.0.1:{unused_tcp_port}/none")
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="connection refused"):
        await pool.open()
    with pytest.raises(StoreUnavailable):
        await PostgresDocumentStore(pool).get_collection("acme", "manuals")
    assert time.monotonic() - started < 1
    await pool.close()


async def test_a_database_that_turns_connections_down_is_a_store_that_is_unavailable(
    database_dsn: str,
) -> None:
    name = database_dsn.partition("?")[0].rpartition("/")[2]
    for dsn in (
        database_dsn.replace(f"/{name}?", "/no_such_database?"),
        database_dsn.replace("postgres:", "no_such_role:"),
    ):
        pool = PostgresPool(dsn)
        with pytest.raises(StoreUnavailable, match="connection rejected"):
            await pool.open()
        await pool.close()


async def test_a_missing_socket_is_a_store_that_is_unavailable(tmp_path: Path) -> None:
    pool = PostgresPool(f"postgresql://postgres@/none?host={tmp_path}")
    with pytest.raises(StoreUnavailable):
        await pool.open()
    await pool.close()


async def test_a_server_that_never_answers_is_given_up() -> None:
    hung_up = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        hung_up.set()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = PostgresPool(
        f"postgresql://postgres@127.0.0.1:{port}/none?sslmode=disable", connect_seconds=0.3
    )
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="timed out"):
        await pool.open()
    assert time.monotonic() - started < 2
    await hung_up.wait()
    server.close()
    await server.wait_closed()


class Line:
    """Connects a socket with that of the server, until a connection falls silent."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._pieces: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        self._writers += [writer, far_writer]
        self._pieces += [
            asyncio.create_task(self._carry(reader, far_writer)),
            asyncio.create_task(self._carry(far_reader, writer)),
        ]

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    def silence(self) -> None:
        """Carries nothing any more on the connections there are, and ends none."""
        for piece in self._pieces:
            piece.cancel()

    async def close(self) -> None:
        """Ends all connections."""
        self.silence()
        await asyncio.gather(*self._pieces, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()


async def test_a_cancelled_statement_on_a_silent_line_does_not_keep_its_connection(
    database_dsn: str, tmp_path: Path
) -> None:
    address, _, folder = database_dsn.partition("host=")
    line = Line(Path(folder) / SOCKET)
    server = await asyncio.start_unix_server(line.serve, tmp_path / SOCKET)
    pool = PostgresPool(f"{address}host={tmp_path}", size=1)

    async def sleep() -> None:
        async with pool.reading_once("acme") as connection:
            await connection.execute(SLEEP)

    task = asyncio.create_task(sleep())
    await until_busy(database_dsn, 1)
    line.silence()
    task.cancel()
    await asyncio.wait([task])
    async with pool.reading_once("acme") as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await pool.close()
    assert pool._state() == (0, 0)
    server.close()
    await server.wait_closed()
    await line.close()


async def test_of_many_lost_connections_one_call_is_told_and_the_next_gets_a_new_one(
    pool: PostgresPool, database_dsn: str
) -> None:
    async with pool.connection(), pool.connection():
        pass  # Now two are open and idle.
    other = await asyncpg.connect(database_dsn)
    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'pannier-rag' AND datname = current_database()"
    )
    while await connection_count(database_dsn, "idle"):
        await asyncio.sleep(0.005)
    outcomes = []
    for _ in range(3):
        try:
            async with pool.connection() as connection:
                outcomes.append(await connection.fetchval("SELECT 1"))
        except StoreUnavailable:
            outcomes.append(None)
    assert outcomes[1:] == [1, 1]
    await other.close()
    await pool.close()


async def test_a_store_that_was_away_at_the_start_is_found_later(
    database_dsn: str, tmp_path: Path
) -> None:
    address, _, folder = database_dsn.partition("host=")
    pool = PostgresPool(f"{address}host={tmp_path}")
    with pytest.raises(StoreUnavailable):
        await pool.open()
    (tmp_path / SOCKET).symlink_to(Path(folder) / SOCKET)
    assert await PostgresDocumentStore(pool).list_collections("acme") == ()
    await pool.close()


async def test_many_first_calls_open_the_store_once(empty_database_dsn: str) -> None:
    pool = PostgresPool(empty_database_dsn, size=4)
    async with asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(PostgresDocumentStore(pool).ping())
    await pool.close()


async def test_a_closed_pool_opens_again_when_it_is_used(pool: PostgresPool) -> None:
    await pool.open()
    await pool.close()
    await PostgresDocumentStore(pool).ping()
    await pool.close()
