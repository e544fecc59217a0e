"""Parts of documents are read by the chunks of the version they belong to."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.core.filters import Access
from services.rag.core.passages import TextSpan
from tests.kit.rag_documents import MODEL, document, indexed_chunks, opened_store, unit_vector

TEXT = "Caf\u00e9 \U0001f600 first.\n\nSecond part."


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[PostgresDocumentStore]:
    async with opened_store(database_dsn) as store:
        yield store


async def put(store: PostgresDocumentStore, *, readers: tuple[str, ...] = ()) -> int:
    """Stores the document with one chunk, and returns the chunk's id."""
    await store.put_document(
        replace(document("doc", text=TEXT), readers=readers),
        indexed_chunks([({"first": 1}, unit_vector(1, 0, 0))]),
        embedding_model=MODEL,
    )
    matches = await store.search_keyword(
        "acme", "manuals", terms=["first"], limit=1, access=Access(("user:ann",))
    )
    return matches.hits[0].chunk_id


async def test_offsets_count_characters_however_many_bytes_they_have(
    store: PostgresDocumentStore,
) -> None:
    chunk_id = await put(store)
    spans = [
        TextSpan(chunk_id, start, end)
        for start, end in ((0, 6), (5, 7), (13, 15), (0, len(TEXT)), (3, 3))
    ]
    found = await store.load_spans("acme", spans)
    assert found == {each: TEXT[each.char_start : each.char_end] for each in spans}
    assert await store.load_spans("acme", []) == {}


async def test_nothing_is_read_of_another_version_tenant_or_reader(
    store: PostgresDocumentStore,
) -> None:
    old = TextSpan(await put(store), 0, 4)
    assert await store.load_spans("other", [old]) == {}
    new = TextSpan(await put(store, readers=("user:ann",)), 0, 4)
    assert await store.load_spans("acme", [old, new]) == {}
    found = await store.load_spans("acme", [old, new], access=Access(("user:ann",)))
    assert found == {new: "Caf\u00e9"}
