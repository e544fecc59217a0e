import asyncio

import asyncpg
import pytest

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_migrations import (
    Migration,
    apply_migrations,
    load_migrations,
)
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.core.errors import StoreSchemaTooNew

CREATE = Migration(1, "create", "CREATE TABLE rag.thing (id int PRIMARY KEY)")
EXTEND = Migration(2, "extend", "ALTER TABLE rag.thing ADD COLUMN name text; SELECT pg_sleep(0.05)")
# It cannot be noted as done.
BROKEN = Migration(3, "broken", "CREATE TABLE rag.half (); DROP TABLE rag.schema_migration")


async def migrate(dsn: str, *migrations: Migration) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [each.name for each in await apply_migrations(connection, migrations)]
    finally:
        await connection.close()


async def fetch_value(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def test_the_migrations_of_this_release_are_numbered_without_gaps() -> None:
    migrations = load_migrations()
    assert [each.version for each in migrations] == list(range(1, len(migrations) + 1))
    assert all(each.sql.strip() for each in migrations)


async def test_only_what_is_missing_is_applied(empty_database_dsn: str) -> None:
    assert await migrate(empty_database_dsn, CREATE) == ["create"]
    assert await migrate(empty_database_dsn, CREATE, EXTEND) == ["extend"]
    assert await migrate(empty_database_dsn, CREATE, EXTEND) == []


async def test_replicas_that_start_together_migrate_once(empty_database_dsn: str) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(migrate(empty_database_dsn, CREATE, EXTEND)) for _ in range(6)]
    assert sorted(task.result() for task in tasks) == [[]] * 5 + [["create", "extend"]]


async def test_stores_that_start_together_on_an_empty_database_all_open(
    empty_database_dsn: str,
) -> None:
    pools = [PostgresPool(empty_database_dsn, size=2) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        for pool in pools:
            group.create_task(pool.open())
    for pool in pools:
        assert await PostgresDocumentStore(pool).list_collections("acme") == ()
        await pool.close()


async def test_a_migration_that_fails_leaves_nothing_and_can_be_repeated(
    empty_database_dsn: str,
) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        await migrate(empty_database_dsn, CREATE, EXTEND, BROKEN)
    half = await fetch_value(empty_database_dsn, "SELECT to_regclass('rag.half')::text")
    latest = await fetch_value(empty_database_dsn, "SELECT max(version) FROM rag.schema_migration")
    assert (half, latest) == (None, 2)
    mended = Migration(3, "mended", "CREATE TABLE rag.half (id int)")
    assert await migrate(empty_database_dsn, CREATE, EXTEND, mended) == ["mended"]


async def test_a_database_of_a_newer_release_is_refused_untouched(
    empty_database_dsn: str,
) -> None:
    await migrate(empty_database_dsn, CREATE, EXTEND)
    with pytest.raises(StoreSchemaTooNew) as caught:
        await migrate(empty_database_dsn, CREATE)
    assert caught.value.metadata == {"stored_version": "2", "known_version": "1"}
    locks = await fetch_value(
        empty_database_dsn, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    )
    assert locks == 0
