import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.adapters.postgres_vector_indexes import VectorIndexes
from services.rag.core.documents import Document, DocumentLabels
from services.rag.core.errors import DocumentNotFound
from services.rag.core.filters import (
    ANYONE,
    EVERY_DOCUMENT,
    SERVICE,
    Access,
    DocumentFilter,
    NumberRange,
)
from tests.kit.postgres import EmbeddedPostgres, shared_postgres
from tests.kit.rag_documents import (
    MODEL,
    UnusedClock,
    document,
    indexed_chunks,
    opened_store,
    unit_vector,
)

PAST, FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime(2190, 1, 1, tzinfo=UTC)
E1 = unit_vector(1, 2, 3)
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
TENANTS = ("acme", "other")

tags = st.lists(st.sampled_from(["red", "green", "it's"]), max_size=3, unique=True).map(tuple)
readers = st.lists(
    st.sampled_from(["user:ann", "user:bob", "group:ops"]), max_size=2, unique=True
).map(tuple)
metadata = st.dictionaries(
    st.sampled_from(["year", "kind"]),
    st.sampled_from(["1999", "2001.5", "-3e2", "manual", "", "٣", "1e999", "12 "]),
)


documents = st.builds(
    lambda tenant_id, number, **facts: replace(
        document(f"doc{number}", tenant_id=tenant_id), **facts
    ),
    st.sampled_from(TENANTS),
    st.integers(0, 5),
    tags=tags,
    readers=readers,
    metadata=metadata,
    source_uri=st.sampled_from(["", "file:///a/1", "file:///a_1", "file:///b%"]),
    language=st.sampled_from(["", "en", "de"]),
    media_type=st.sampled_from(["text/plain", "text/html"]),
    expires_at=st.sampled_from([None, None, PAST, FUTURE]),
)
bounds = st.sampled_from([None, -300.0, 1999.0, 2001.5, 1e300])
filters = st.builds(
    DocumentFilter,
    document_ids=st.lists(st.sampled_from(["doc1", "doc2", "none"]), max_size=2).map(tuple),
    any_tags=tags,
    all_tags=tags,
    source_prefix=st.sampled_from(["", "", "file:///a", "file:///a_", "file:///b%"]),
    metadata_in=st.dictionaries(
        st.just("kind"), st.lists(st.sampled_from(["manual", "", "1999"]), min_size=1).map(tuple)
    ),
    metadata_ranges=st.dictionaries(st.just("year"), st.builds(NumberRange, bounds, bounds)),
    metadata_present=st.sampled_from([(), (), ("year",)]),
    languages=st.sampled_from([(), (), ("en",), ("en", "de")]),
    media_types=st.sampled_from([(), (), ("text/html",)]),
    updated_from=st.sampled_from([None, PAST, FUTURE]),
    updated_before=st.sampled_from([None, FUTURE, FUTURE, PAST]),
)
accesses = st.sampled_from(
    [ANYONE, SERVICE, Access.of("ann"), Access.of("bob", ("ops",)), Access.of("", ("ops",))]
)


def is_number_in(text: str | None, numbers: NumberRange) -> bool:
    if text is None or not NUMBER.fullmatch(text):
        return False
    value = Decimal(text)
    return (numbers.minimum is None or value >= Decimal(repr(numbers.minimum))) and (
        numbers.maximum is None or value <= Decimal(repr(numbers.maximum))
    )


def counts(stored: Document, wanted: DocumentFilter, access: Access) -> bool:
    """Whether a document that was stored between 2001 and 2190 counts."""
    facts = stored.metadata
    return all(
        (
            stored.expires_at != PAST,
            access.principals is None
            or not stored.readers
            or set(stored.readers) & set(access.principals),
            not wanted.document_ids or stored.document_id in wanted.document_ids,
            not wanted.any_tags or set(wanted.any_tags) & set(stored.tags),
            set(wanted.all_tags) <= set(stored.tags),
            stored.source_uri.startswith(wanted.source_prefix),
            all(facts.get(key) in values for key, values in wanted.metadata_in.items()),
            all(is_number_in(facts.get(key), each) for key, each in wanted.metadata_ranges.items()),
            all(key in facts for key in wanted.metadata_present),
            not wanted.languages or stored.language in wanted.languages,
            not wanted.media_types or stored.media_type in wanted.media_types,
            wanted.updated_from != FUTURE,
            wanted.updated_before != PAST,
        )
    )


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[PostgresDocumentStore]:
    async with opened_store(database_dsn) as store:
        yield store


async def put(store: PostgresDocumentStore, stored: Document, chunk_count: int = 2) -> None:
    chunks = indexed_chunks([({"word": 1}, E1)] * chunk_count, text=stored.document_id)
    await store.put_document(stored, chunks, embedding_model=MODEL)


async def found_everywhere(
    store: PostgresDocumentStore,
    tenant_id: str,
    every_id: list[int],
    wanted: DocumentFilter,
    access: Access,
) -> list[set[str]]:
    """Returns the documents that each way of finding finds."""
    key = tenant_id, "manuals"
    near = await store.search_vector(
        *key, model=MODEL, vector=E1, limit=99, filter=wanted, access=access
    )
    words = await store.search_keyword(*key, terms=["word"], limit=99, filter=wanted, access=access)
    page = await store.list_documents(*key, page_size=99, filter=wanted, access=access)
    tried = await store.delete_documents(*key, filter=wanted, access=access, dry_run=True)
    assert tried.document_count == len(page.documents)
    assert tried.chunk_count == len(near) == len(words.hits) == 2 * len(page.documents)
    whole = await store.load_passages(tenant_id, every_id, access=SERVICE)
    return [
        {whole[hit.chunk_id].document_id for hit in near},
        {whole[hit.chunk_id].document_id for hit in words.hits},
        {each.document_id for each in page.documents},
    ]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_every_way_of_finding_finds_what_the_filter_says_and_the_caller_may_read(
    store: PostgresDocumentStore, data: st.DataObject
) -> None:
    corpus = {
        (each.tenant_id, each.document_id): each
        for each in data.draw(st.lists(documents, min_size=3, max_size=9))
    }
    for tenant_id in TENANTS:
        await store.create_collection(tenant_id, "manuals")
        await store.delete_collection(tenant_id, "manuals")
        await store.create_collection(tenant_id, "manuals")
    for each in corpus.values():
        await put(store, each)
    every_id = [
        hit.chunk_id
        for tenant_id in TENANTS
        for hit in (
            await store.search_keyword(
                tenant_id, "manuals", terms=["word"], limit=99, access=SERVICE
            )
        ).hits
    ]
    for tenant_id in TENANTS:
        wanted = data.draw(st.one_of(st.just(EVERY_DOCUMENT), filters))
        access = data.draw(accesses)
        expected = {
            each.document_id
            for each in corpus.values()
            if each.tenant_id == tenant_id and counts(each, wanted, access)
        }
        for found in await found_everywhere(store, tenant_id, every_id, wanted, access):
            assert found == expected
        readable = {
            each.document_id
            for each in corpus.values()
            if each.tenant_id == tenant_id and counts(each, EVERY_DOCUMENT, access)
        }
        loaded = await store.load_passages(tenant_id, every_id, access=access)
        assert {each.document_id for each in loaded.values()} == readable
        assert len(loaded) == 2 * len(readable)
        for each in corpus.values():
            if each.tenant_id == tenant_id and each.document_id not in readable:
                with pytest.raises(DocumentNotFound):
                    await store.get_document(tenant_id, "manuals", each.document_id, access=access)
                with pytest.raises(DocumentNotFound):
                    await store.list_chunks(
                        tenant_id, "manuals", each.document_id, page_size=5, access=access
                    )
                with pytest.raises(DocumentNotFound):
                    await store.delete_document(
                        tenant_id, "manuals", each.document_id, access=access
                    )
        gone = await store.delete_documents(tenant_id, "manuals", filter=wanted, access=access)
        assert gone.document_count == len(expected)


async def test_a_document_counts_until_the_moment_it_expires(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    connection = await asyncpg.connect(database_dsn)
    await put(store, replace(document(), expires_at=FUTURE))
    words = await store.search_keyword("acme", "manuals", terms=["word"], limit=9)
    assert len(words.hits) == 2
    await connection.execute("UPDATE rag.document SET expires_at = now()")
    words = await store.search_keyword("acme", "manuals", terms=["word"], limit=9)
    assert words.hits == ()
    assert await store.find_document("acme", "manuals", "doc") is None
    await connection.close()


async def test_statistics_are_those_of_the_whole_collection_under_any_filter(
    store: PostgresDocumentStore,
) -> None:
    for number in range(4):
        await put(store, replace(document(f"doc{number}"), tags=(f"t{number}",)))
    whole = await store.search_keyword("acme", "manuals", terms=["word"], limit=99)
    part = await store.search_keyword(
        "acme", "manuals", terms=["word"], limit=99, filter=DocumentFilter(any_tags=("t2",))
    )
    assert part.statistics == whole.statistics
    assert len(part.hits) == 2
    assert set(part.hits) < set(whole.hits)


async def test_labels_change_what_is_found_and_nothing_else(store: PostgresDocumentStore) -> None:
    await put(store, document())
    before = await store.get_collection("acme", "manuals")
    labels = DocumentLabels(tags=("new",), readers=("user:ann",), expires_at=FUTURE)
    changed = await store.update_document_labels("acme", "manuals", "doc", labels)
    assert (changed.tags, changed.readers, changed.expires_at) == (
        ("new",),
        ("user:ann",),
        FUTURE,
    )
    assert (changed.version, changed.metadata) == (1, {"origin": "test"})
    after = await store.get_collection("acme", "manuals")
    assert after.version > before.version
    assert (await store.search_keyword("acme", "manuals", terms=["word"], limit=9)).hits == ()
    with pytest.raises(DocumentNotFound):
        await store.update_document_labels("acme", "manuals", "doc", labels)
    changed = await store.update_document_labels(
        "acme",
        "manuals",
        "doc",
        DocumentLabels(never_expires=True, metadata={}),
        access=Access.of("ann"),
    )
    assert (changed.expires_at, changed.tags, changed.metadata) == (None, ("new",), {})


async def fill_large(server: EmbeddedPostgres, vectors: np.ndarray) -> str:
    """Makes a database with the vectors of two tenants and an index for each."""
    name = await server.create_database()
    pool = PostgresPool(server.dsn(name))
    store = PostgresDocumentStore(pool)
    for tenant_id in TENANTS:
        for number in range(40):
            part = vectors[100 * number : 100 * number + 100]
            await store.put_document(
                replace(
                    document(f"doc{number:02}", tenant_id=tenant_id),
                    tags=(f"half{number % 2}", f"tenth{number % 10}"),
                ),
                indexed_chunks([({}, each) for each in part]),
                embedding_model=MODEL,
            )
    indexes = VectorIndexes(pool, clock=UnusedClock(), least_chunk_count=1000)
    assert await indexes.keep() == 2
    assert await indexes.keep() == 0
    await pool.close()
    return name


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[str, np.ndarray]]:
    """A database with 4000 vectors of one tenant and as many of another, and the vectors."""
    server = shared_postgres()
    vectors = np.random.default_rng(11).standard_normal((4000, 24)).astype(np.float32)
    name = asyncio.run(fill_large(server, vectors))
    yield server.dsn(name), vectors
    asyncio.run(server.drop_database(name))


@pytest.mark.parametrize(
    ("tag", "exact_scan_chunk_count"),
    [(None, 500), ("half1", 500), ("half1", 5000), ("tenth3", 100), ("tenth3", 500)],
)
async def test_the_nearest_are_found_under_any_filter_exactly_or_by_index(
    large: tuple[str, np.ndarray], tag: str | None, exact_scan_chunk_count: int
) -> None:
    dsn, vectors = large
    pool = PostgresPool(dsn, size=2)
    store = PostgresDocumentStore(pool, exact_scan_chunk_count=exact_scan_chunk_count)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = np.arange(4000) // 100
    kept = np.ones(4000, bool)
    if tag:
        kind, remainder = tag[:-1], int(tag[-1])
        kept = numbers % {"half": 2, "tenth": 10}[kind] == remainder
    wanted = DocumentFilter(any_tags=(tag,)) if tag else EVERY_DOCUMENT
    right = total = 0
    for query in np.random.default_rng(12).standard_normal((20, 24)).astype(np.float32):
        similarity = np.where(kept, units @ query, -9.0)
        best = set(np.argsort(-similarity)[:10].tolist())
        hits = await store.search_vector(
            "acme", "manuals", model=MODEL, vector=query, limit=10, filter=wanted
        )
        passages = await store.load_passages("acme", [hit.chunk_id for hit in hits])
        assert len(passages) == len(hits) == 10
        found = {100 * int(each.document_id[3:]) + each.ordinal for each in passages.values()}
        assert all(kept[index] for index in found)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        right, total = right + len(found & best), total + 10
    assert right / total >= 0.99
    await pool.close()


async def test_the_index_serves_the_search_of_a_large_collection(
    large: tuple[str, np.ndarray],
) -> None:
    dsn, vectors = large
    pool = PostgresPool(dsn, size=1)
    store = PostgresDocumentStore(pool, exact_scan_chunk_count=100)
    watcher = await asyncpg.connect(dsn)
    scans = (
        "SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes WHERE indexrelname ~ 'near'"
    )
    before = await watcher.fetchval(scans)
    for wanted in (EVERY_DOCUMENT, DocumentFilter(any_tags=("half1",))):
        await store.search_vector(
            "acme", "manuals", model=MODEL, vector=vectors[0], limit=5, filter=wanted
        )
    await pool.close()
    while await watcher.fetchval(scans) < before + 2:
        await watcher.execute("SELECT pg_stat_force_next_flush(), pg_sleep(0.01)")
    await watcher.close()


async def test_half_built_and_orphaned_indexes_are_replaced(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    await put(store, document(), 60)
    pool = PostgresPool(database_dsn, size=1)
    indexes = VectorIndexes(pool, clock=UnusedClock(), least_chunk_count=50)
    connection = await asyncpg.connect(database_dsn)
    await connection.execute("CREATE INDEX embedding_near_999 ON rag.embedding (chunk_id)")
    assert await indexes.keep() == 1
    names = "SELECT array_agg(relname ORDER BY relname) FROM pg_class WHERE relname ~ '_near_'"
    (name,) = await connection.fetchval(names)
    await connection.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::text::regclass",
        f"rag.{name}",
    )
    hits = await store.search_vector("acme", "manuals", model=MODEL, vector=E1, limit=5)
    assert len(hits) == 5
    assert await indexes.keep() == 1
    assert await connection.fetchval(names) == [name]
    await store.delete_collection("acme", "manuals")
    assert await indexes.keep() == 0
    assert await connection.fetchval(names) is None
    await connection.close()
    await pool.close()
