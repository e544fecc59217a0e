"""Whatever may change what an answer was made from shows in the state of its collection."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.core.documents import DocumentLabels, IndexedChunk
from services.rag.core.filters import Access, DocumentFilter
from services.rag.core.stored_evidence import CollectionState
from tests.kit.postgres import EmbeddedPostgres
from tests.kit.rag_documents import MODEL, document, indexed_chunks, opened_store, unit_vector

PAST, SOON, LATE = (datetime(year, 1, 1, tzinfo=UTC) for year in (2001, 2190, 2191))
E1 = unit_vector(1, 0)
Change = Callable[[PostgresDocumentStore], Awaitable[object]]


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[PostgresDocumentStore]:
    async with opened_store(database_dsn) as store:
        await put(store, "a")
        await put(store, "b")
        yield store


def chunks(text: str) -> list[IndexedChunk]:
    return indexed_chunks([({"word": 1}, E1)], text=text)


async def put(store: PostgresDocumentStore, name: str, text: str = "text", **facts: object) -> None:
    made = replace(document(name, text=text), **facts)
    await store.put_document(made, chunks(text), embedding_model=MODEL)


async def state_of(store: PostgresDocumentStore) -> CollectionState:
    state = await store.get_collection_state("acme", "manuals")
    assert state is not None
    return state


async def ids_of(store: PostgresDocumentStore) -> list[int]:
    found = await store.search_vector("acme", "manuals", model=MODEL, vector=E1, limit=9)
    return [each.chunk_id for each in found]


async def make_anew(store: PostgresDocumentStore) -> None:
    await store.delete_collection("acme", "manuals")
    await put(store, "a")
    await put(store, "b")


async def fill_vector(store: PostgresDocumentStore) -> None:
    without = [replace(each, embedding=None) for each in chunks("new")]
    await store.put_document(document("c"), without, embedding_model=MODEL)
    before = await state_of(store)
    (missing,) = await store.missing_vectors(limit=9)
    await store.put_vectors("acme", "manuals", {missing.chunk_id: E1}, embedding_model=MODEL)
    assert not (await state_of(store)).is_unchanged_since(before)


def relabel(**labels: object) -> Change:
    return lambda store: store.update_document_labels(
        "acme", "manuals", "a", DocumentLabels(**labels)
    )


CHANGES: dict[str, Change] = {
    "another document": lambda store: put(store, "c"),
    "another text": lambda store: put(store, "a", text="new", content_digest="11"),
    "another title": lambda store: put(store, "a", title="New", content_digest="11"),
    "tags": relabel(tags=("new",)),
    "readers": relabel(readers=("user:ann",)),
    "metadata": relabel(metadata={"year": "1999"}),
    "language": relabel(language="de"),
    "expiry": relabel(expires_at=PAST),
    "deletion": lambda store: store.delete_document("acme", "manuals", "a"),
    "deletion by filter": lambda store: store.delete_documents(
        "acme", "manuals", filter=DocumentFilter(document_ids=("b",))
    ),
    "vector": fill_vector,
    "collection made anew": make_anew,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_change_shows(store: PostgresDocumentStore, change: Change) -> None:
    before = await state_of(store)
    await change(store)
    after = await state_of(store)
    assert not after.is_unchanged_since(before)
    assert after.read_at > before.read_at


async def test_sweeping_what_has_expired_shows(store: PostgresDocumentStore) -> None:
    await put(store, "c", expires_at=PAST)
    before = await state_of(store)
    assert await store.delete_expired(limit=9) == 1
    assert not (await state_of(store)).is_unchanged_since(before)


async def test_a_collection_that_is_gone_has_no_state(store: PostgresDocumentStore) -> None:
    await store.delete_collection("acme", "manuals")
    assert await store.get_collection_state("acme", "manuals") is None


async def test_an_earlier_state_that_was_put_back_shows(postgres_server: EmbeddedPostgres) -> None:
    database = await postgres_server.create_database()
    dsn, server = postgres_server.dsn(database), await asyncpg.connect(postgres_server.dsn())
    try:
        async with opened_store(dsn) as store:
            await put(store, "a")
            await put(store, "b")
        await server.execute(f"CREATE DATABASE {database}_kept TEMPLATE {database}")
        async with opened_store(dsn) as store:
            await put(store, "a", text="new", content_digest="11")
            before = await state_of(store)
        await server.execute(f"DROP DATABASE {database}")
        await server.execute(f"CREATE DATABASE {database} TEMPLATE {database}_kept")
        async with opened_store(dsn) as store:
            await store.delete_document("acme", "manuals", "b")
            after = await state_of(store)
        # The server is the same, and so is the version.
        assert after.version == before.version
        assert after.server_started_at == before.server_started_at
        assert not after.is_unchanged_since(before)
    finally:
        await server.close()
        await postgres_server.drop_database(f"{database}_kept")
        await postgres_server.drop_database(database)


async def test_what_others_do_changes_nothing(store: PostgresDocumentStore) -> None:
    before = await state_of(store)
    await put(store, "a", collection="letters")
    await put(store, "a", tenant_id="other")
    await store.load_passages("acme", await ids_of(store))
    assert (await state_of(store)).is_unchanged_since(before)
    assert await store.get_collection_state("stranger", "manuals") is None


async def test_evidence_is_what_is_found_and_when(store: PostgresDocumentStore) -> None:
    chunk_ids = await ids_of(store)
    evidence = await store.load_evidence("acme", chunk_ids)
    assert evidence.passages == await store.load_passages("acme", chunk_ids)
    assert evidence.expires_at is None
    assert evidence.state is not None
    assert (await state_of(store)).is_unchanged_since(evidence.state)


async def test_the_first_document_that_expires_counts(store: PostgresDocumentStore) -> None:
    await relabel(expires_at=LATE)(store)
    chunk_ids = await ids_of(store)
    assert (await store.load_evidence("acme", chunk_ids)).expires_at == LATE
    await store.update_document_labels("acme", "manuals", "b", DocumentLabels(expires_at=SOON))
    assert (await store.load_evidence("acme", chunk_ids)).expires_at == SOON


async def test_what_a_caller_may_not_see_is_no_evidence(store: PostgresDocumentStore) -> None:
    chunk_ids = await ids_of(store)
    await relabel(readers=("user:ann",))(store)
    bob = await store.load_evidence("acme", chunk_ids, access=Access.of("bob"))
    assert [each.document_id for each in bob.passages.values()] == ["b"]
    nothing = await store.load_evidence(
        "acme", chunk_ids, filter=DocumentFilter(any_tags=("none",)), access=Access.of("bob")
    )
    assert (dict(nothing.passages), nothing.state) == ({}, None)
