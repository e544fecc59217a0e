from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.core.errors import StoreRoleUnusable, StoreUnavailable
from tests.kit.postgres import EmbeddedPostgres
from tests.kit.rag_documents import MODEL, document, indexed_chunks, unit_vector

CONFINED = """
SELECT relname::text FROM pg_class
WHERE relnamespace = 'rag'::regnamespace AND relkind IN ('r', 'p') AND relrowsecurity
"""
WITH_TENANT = """
SELECT attrelid::regclass::text FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid
WHERE relnamespace = 'rag'::regnamespace AND relkind IN ('r', 'p') AND attname = 'tenant_id'
    AND NOT relrowsecurity
"""


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[PostgresPool]:
    pool = PostgresPool(database_dsn, size=2)
    store = PostgresDocumentStore(pool)
    for tenant_id in ("acme", "o'neil\\"):
        await store.put_document(
            document(tenant_id=tenant_id),
            indexed_chunks([({"word": 1}, unit_vector(1, 2))] * 3),
            embedding_model=MODEL,
        )
    yield pool
    await pool.close()


async def test_a_statement_that_forgets_the_tenant_sees_its_own_rows_alone(
    pool: PostgresPool,
) -> None:
    for table in ("collection", "document", "chunk", "embedding", "posting", "invalidation"):
        wrong = f"SELECT DISTINCT tenant_id FROM rag.{table}"
        for tenant_id in ("acme", "o'neil\\", "nobody"):
            for lend in (pool.reading, pool.reading_once, pool.writing):
                async with lend(tenant_id) as connection:
                    seen = [row["tenant_id"] for row in await connection.fetch(wrong)]
                assert seen == ([] if tenant_id == "nobody" else [tenant_id])
        async with pool.system() as connection:
            assert len(await connection.fetch(wrong)) == 2


async def test_a_statement_that_names_another_tenant_changes_nothing(pool: PostgresPool) -> None:
    async with pool.writing("acme") as connection:
        assert await connection.execute("UPDATE rag.document SET title = 'mine'") == "UPDATE 1"
        assert await connection.execute("DELETE FROM rag.posting") == "DELETE 3"
        assert (
            await connection.execute("DELETE FROM rag.chunk WHERE tenant_id <> 'acme'")
            == "DELETE 0"
        )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with pool.writing("acme") as connection:
            await connection.execute(
                "INSERT INTO rag.collection (tenant_id, name) VALUES ('other', 'x')"
            )
    for lend in (pool.reading, pool.reading_once):
        with pytest.raises(StoreUnavailable):
            async with lend("acme") as connection:
                await connection.execute("DELETE FROM rag.posting")
    async with pool.system() as connection:
        assert await connection.fetchval("SELECT count(*) FROM rag.posting") == 3


async def test_the_next_to_borrow_a_connection_is_not_confined(database_dsn: str) -> None:
    pool = PostgresPool(database_dsn, size=1)
    facts = "SELECT current_user || '/' || coalesce(current_setting('app.tenant', true), '')"
    async with pool.system() as connection:
        before = await connection.fetchval(facts)
    for lend in (pool.reading, pool.reading_once):
        async with lend("acme") as connection:
            assert await connection.fetchval(facts) == "pannier_rag/acme"
    with pytest.raises(ZeroDivisionError):
        async with pool.writing("acme") as connection:
            raise ZeroDivisionError
    async with pool.system() as connection:
        assert await connection.fetchval(facts) == before
    await pool.close()


async def test_every_table_with_a_tenant_is_confined(database_dsn: str) -> None:
    connection = await asyncpg.connect(database_dsn)
    assert [row[0] for row in await connection.fetch(WITH_TENANT)] == []
    assert len(await connection.fetch(CONFINED)) >= 6
    await connection.close()


async def test_tables_that_are_not_confined_are_out_of_reach(pool: PostgresPool) -> None:
    for lend in (pool.reading, pool.reading_once):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with lend("acme") as connection:
                await connection.fetch("SELECT * FROM rag.schema_migration")


@pytest.fixture
async def owner_dsn(
    postgres_server: EmbeddedPostgres, empty_database_dsn: str
) -> AsyncIterator[str]:
    """A database of an ordinary login role that may not make roles, with pgvector in it."""
    name = empty_database_dsn.partition("?")[0].rpartition("/")[2]
    administrator = await asyncpg.connect(empty_database_dsn)
    await administrator.execute("CREATE EXTENSION vector")
    await administrator.execute("CREATE ROLE plain LOGIN")
    await administrator.execute(f"ALTER DATABASE {name} OWNER TO plain")
    yield empty_database_dsn.replace("postgres:", "plain:")
    for role in ("plain", "confined_by_hand"):
        if await administrator.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", role):
            await administrator.execute(f"REASSIGN OWNED BY {role} TO postgres")
            await administrator.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await administrator.close()


async def test_a_login_that_may_not_make_roles_is_told_what_to_do(owner_dsn: str) -> None:
    pool = PostgresPool(owner_dsn, role="confined_by_hand")
    with pytest.raises(StoreRoleUnusable, match='GRANT "confined_by_hand"'):
        await pool.open()
    await pool.close()
    administrator = await asyncpg.connect(owner_dsn.replace("plain:", "postgres:"))
    await administrator.execute("CREATE ROLE confined_by_hand NOLOGIN")
    await administrator.execute("GRANT confined_by_hand TO plain")
    await administrator.close()
    await assert_confined(PostgresPool(owner_dsn, role="confined_by_hand"))


async def assert_confined(pool: PostgresPool) -> None:
    store = PostgresDocumentStore(pool)
    for tenant_id in ("acme", "other"):
        await store.create_collection(tenant_id, "manuals")
    async with pool.reading("acme") as connection:
        assert await connection.fetchval("SELECT count(*) FROM rag.collection") == 1
    async with pool.system() as connection:
        assert await connection.fetchval("SELECT count(*) FROM rag.collection") == 2
    await pool.close()


async def test_without_a_role_the_statements_alone_keep_tenants_apart(owner_dsn: str) -> None:
    pool = PostgresPool(owner_dsn, role="")
    store = PostgresDocumentStore(pool)
    for tenant_id in ("acme", "other"):
        await store.create_collection(tenant_id, "manuals")
    assert len(await store.list_collections("acme")) == 1
    await pool.close()


async def test_a_role_that_row_level_security_does_not_bind_is_refused(
    database_dsn: str,
) -> None:
    pool = PostgresPool(database_dsn, role="postgres")
    with pytest.raises(StoreRoleUnusable):
        await pool.open()
    await pool.close()


async def test_the_owner_of_the_tables_is_refused_as_the_role_that_is_bound(owner_dsn: str) -> None:
    pool = PostgresPool(owner_dsn, role="plain")
    with pytest.raises(StoreRoleUnusable):
        await pool.open()
    await pool.close()
