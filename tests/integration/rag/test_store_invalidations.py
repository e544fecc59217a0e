"""What the cache has to be told is noted together with the change, or not at all."""

from collections.abc import AsyncIterator

import pytest

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.core.errors import DocumentNotFound, EmbeddingModelMismatch
from services.rag.core.invalidation import Invalidation, InvalidationKind
from tests.kit.rag_documents import MODEL, document, indexed_chunks, opened_store, unit_vector

GROWTH = Invalidation(InvalidationKind.GROWTH, "manuals")
GONE = Invalidation(InvalidationKind.DOCUMENT, "manuals", "doc")
CHUNKS = indexed_chunks([({"term": 1}, unit_vector(1, 0))])


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[PostgresDocumentStore]:
    async with opened_store(database_dsn) as store:
        yield store


async def noted(store: PostgresDocumentStore) -> list[Invalidation]:
    """Returns the changes noted since this was asked last."""
    notes = await store.list_invalidations(limit=100)
    assert all(note.tenant_id == "acme" for note in notes)
    await store.drop_invalidations([note.number for note in notes])
    return [note.invalidation for note in notes]


async def test_every_change_of_a_collection_is_noted_in_order(store: PostgresDocumentStore) -> None:
    await store.put_document(document(), CHUNKS, embedding_model=MODEL)
    assert await noted(store) == [GROWTH]
    await store.put_document(document(), CHUNKS, embedding_model=MODEL)
    assert await noted(store) == [GONE, GROWTH]
    await store.delete_document("acme", "manuals", "doc")
    assert await noted(store) == [GONE]
    await store.delete_collection("acme", "manuals")
    assert await noted(store) == [Invalidation(InvalidationKind.COLLECTION, "manuals")]


async def test_a_change_that_fails_leaves_no_note(store: PostgresDocumentStore) -> None:
    await store.put_document(document(), CHUNKS, embedding_model=MODEL)
    await noted(store)
    with pytest.raises(EmbeddingModelMismatch):
        await store.put_document(document(), CHUNKS, embedding_model="another")
    with pytest.raises(DocumentNotFound):
        await store.delete_document("acme", "manuals", "nothing")
    assert await noted(store) == []


async def test_only_what_was_told_is_forgotten(store: PostgresDocumentStore) -> None:
    for name in ("a", "b", "c"):
        await store.put_document(document(name), CHUNKS, embedding_model=MODEL)
    first, second = await store.list_invalidations(limit=2)
    await store.drop_invalidations([second.number])
    assert [note.number for note in await store.list_invalidations(limit=9)] == [
        first.number,
        second.number + 1,
    ]
