from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import numpy as np
import pytest

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_migrations import apply_migrations, load_migrations
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.core.bm25 import score_chunks
from services.rag.core.documents import IndexedChunk, TermFrequencies, Vector
from services.rag.core.errors import DocumentChanged, DocumentNotFound, EmbeddingModelMismatch
from services.rag.core.filters import Access, DocumentFilter
from services.rag.core.invalidation import InvalidationKind
from tests.kit.rag_documents import MODEL, document, indexed_chunks, opened_store, unit_vector

E1, E2 = unit_vector(1, 0), unit_vector(0, 1)
PAST = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[PostgresDocumentStore]:
    async with opened_store(database_dsn) as store:
        yield store


def chunks(*vectors: Vector | None, text: str = "text") -> list[IndexedChunk]:
    """Returns a chunk of two terms per vector, some perhaps without."""
    whole = indexed_chunks([({"word": 1, text: 2}, E1)] * len(vectors), text=text)
    return [replace(each, embedding=it) for each, it in zip(whole, vectors, strict=True)]


async def put(store: PostgresDocumentStore, name: str, *vectors: Vector | None, **facts) -> None:
    await store.put_document(
        replace(document(name), **facts), chunks(*vectors, text=name), embedding_model=MODEL
    )


async def noted(store: PostgresDocumentStore) -> list[tuple[InvalidationKind, str]]:
    notes = await store.list_invalidations(limit=1000)
    await store.drop_invalidations([each.number for each in notes])
    return [(each.invalidation.kind, each.invalidation.document_id) for each in notes]


async def test_documents_are_deleted_by_filter_with_a_receipt_of_everything(
    store: PostgresDocumentStore,
) -> None:
    await put(store, "a", E1, E2, tags=("old",))
    await put(store, "b", E1, None, tags=("old",))
    await put(store, "c", E1, tags=("new",))
    await put(store, "hidden", E1, tags=("old",), readers=("user:ann",))
    await noted(store)
    old = DocumentFilter(any_tags=("old",))
    before = await store.get_collection("acme", "manuals")
    tried = await store.delete_documents("acme", "manuals", filter=old, dry_run=True)
    assert (tried.document_count, tried.chunk_count, tried.dry_run) == (2, 4, True)
    assert (tried.posting_count, tried.embedding_count, tried.invalidation_count) == (8, 3, 2)
    assert await store.get_collection("acme", "manuals") == before
    assert await noted(store) == []
    receipt = await store.delete_documents("acme", "manuals", filter=old)
    assert receipt.duration_seconds > 0
    assert receipt == replace(
        tried,
        dry_run=False,
        collection_version=receipt.collection_version,
        duration_seconds=receipt.duration_seconds,
    )
    after = await store.get_collection("acme", "manuals")
    assert (after.document_count, after.chunk_count, after.token_sum) == (2, 2, 6)
    assert (after.pending_vector_count, before.pending_vector_count) == (0, 1)
    assert after.version == receipt.collection_version > before.version
    document_gone = InvalidationKind.DOCUMENT
    assert sorted(await noted(store), key=str) == [(document_gone, "a"), (document_gone, "b")]
    nothing = await store.delete_documents("acme", "manuals", filter=old)
    assert nothing.document_count == nothing.invalidation_count == 0
    assert nothing.collection_version == after.version
    hidden = await store.delete_documents("acme", "manuals", filter=old, access=Access.of("ann"))
    assert hidden.document_count == 1


async def test_more_documents_than_there_are_locks_for_are_deleted_at_once(
    store: PostgresDocumentStore,
) -> None:
    for number in range(102):
        await put(store, f"doc{number}", E1)
    receipt = await store.delete_documents("acme", "manuals", filter=DocumentFilter())
    assert (receipt.document_count, receipt.chunk_count) == (102, 102)
    stats = await store.get_collection("acme", "manuals")
    assert (stats.document_count, stats.chunk_count, stats.token_sum) == (0, 0, 0)


async def test_expired_documents_are_swept_over_all_tenants(store: PostgresDocumentStore) -> None:
    for tenant_id in ("acme", "other"):
        for number in range(3):
            await put(
                store,
                f"doc{number}",
                E1,
                tenant_id=tenant_id,
                expires_at=PAST if number else None,
            )
    await noted(store)
    assert await store.delete_expired(limit=3) == 3
    assert len(await noted(store)) == 3
    assert await store.delete_expired(limit=3) == 1
    assert await store.delete_expired(limit=3) == 0
    for tenant_id in ("acme", "other"):
        assert (await store.get_collection(tenant_id, "manuals")).document_count == 1


async def test_a_document_is_replaced_only_where_it_is_the_version_expected(
    store: PostgresDocumentStore,
) -> None:
    async def expect(digest: str, **facts) -> int:
        stored = replace(document(content_digest="22"), **facts)
        receipt = await store.put_document(
            stored, chunks(E1), embedding_model=MODEL, expected_content_digest=digest
        )
        return receipt.document_version

    with pytest.raises(DocumentChanged) as caught:
        await expect("11")
    assert caught.value.metadata["stored"] == ""
    assert await expect("") == 1
    with pytest.raises(DocumentChanged) as caught:
        await expect("11")
    assert (caught.value.metadata["expected"], caught.value.metadata["stored"]) == ("11", "22")
    assert await expect("22", expires_at=PAST) == 2
    assert await expect("") == 3


async def test_vectors_may_come_later(store: PostgresDocumentStore) -> None:
    await store.put_document(document("a"), chunks(None, None), embedding_model=None)
    await put(store, "b", None)
    stats = await store.get_collection("acme", "manuals")
    assert (stats.embedding_model, stats.embedding_dimension) == (MODEL, None)
    assert stats.pending_vector_count == 3
    near = {"model": MODEL, "vector": E1, "limit": 9}
    assert await store.search_vector("acme", "manuals", **near) == ()
    words = await store.search_keyword("acme", "manuals", terms=["word"], limit=9)
    assert len(words.hits) == 3
    missing = await store.missing_vectors(limit=9)
    assert [each.text for each in missing] == [
        "Title / Part / 0\ntext 0",
        "Title / Part / 1\ntext 1",
        "Title / Part / 0\nb 0",
    ]
    assert {(each.tenant_id, each.collection, each.embedding_model) for each in missing} == {
        ("acme", "manuals", MODEL)
    }
    first, second, third = (each.chunk_id for each in missing)
    assert [each.chunk_id for each in await store.missing_vectors(limit=1, after=first)] == [second]
    await noted(store)
    given = {first: E1, third: E2, 10**12: E1}
    assert await store.put_vectors("acme", "manuals", given, embedding_model=MODEL) == 2
    assert await store.put_vectors("acme", "manuals", given, embedding_model=MODEL) == 0
    assert await store.put_vectors("acme", "none", given, embedding_model=MODEL) == 0
    assert await noted(store) == [(InvalidationKind.GROWTH, "")]
    with pytest.raises(EmbeddingModelMismatch):
        await store.put_vectors("acme", "manuals", {second: E1}, embedding_model="other")
    assert [hit.chunk_id for hit in await store.search_vector("acme", "manuals", **near)] == [
        first,
        third,
    ]
    stats = await store.get_collection("acme", "manuals")
    assert (stats.embedding_dimension, stats.pending_vector_count) == (2, 1)
    found = await store.find_document("acme", "manuals", "a")
    assert found is not None
    assert found.pending_vector_count == 1
    page = await store.list_chunks("acme", "manuals", "a", page_size=5)
    assert [each.has_vector for each in page.chunks] == [True, False]
    await put(store, "a", E1)
    assert (await store.get_collection("acme", "manuals")).pending_vector_count == 0


async def test_vectors_are_loaded_and_drawn(store: PostgresDocumentStore) -> None:
    for number in range(3):
        await put(store, f"doc{number}", *[unit_vector(1, number)] * 40)
    hits = await store.search_vector("acme", "manuals", model=MODEL, vector=E1, limit=200)
    ids = [hit.chunk_id for hit in hits]
    loaded = await store.load_vectors("acme", "manuals", [*ids, 1])
    assert list(loaded) == sorted(ids)
    assert np.allclose(loaded[ids[0]], [1, 0])
    assert await store.load_vectors("other", "manuals", ids) == {}
    drawn = await store.sample_vectors("acme", "manuals", limit=30)
    assert 15 <= len(drawn) <= 30
    assert len({tuple(each) for each in drawn}) == 3
    assert await store.sample_vectors("other", "manuals", limit=30) == ()


async def test_chunks_are_listed_in_pages(store: PostgresDocumentStore) -> None:
    await put(store, "a", *[E1] * 5)
    await put(store, "b", E1)
    seen, after = [], None
    while not seen or after is not None:
        page = await store.list_chunks("acme", "manuals", "a", page_size=2, after=after)
        seen += [each.ordinal for each in page.chunks]
        after = page.next_after
    assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(DocumentNotFound):
        await store.list_chunks("acme", "manuals", "none", page_size=2)


async def test_the_most_common_of_many_postings_are_left_out_and_named(database_dsn: str) -> None:
    pool = PostgresPool(database_dsn, size=2)
    store = PostgresDocumentStore(pool, keyword_posting_limit=25)
    corpus = {
        index: TermFrequencies(
            {f"every{step}": 1 for step in (1, 2, 3, 4, 5) if index % step == 0}, 5
        )
        for index in range(20)
    }
    indexed = [
        replace(each, terms=corpus[index])
        for index, each in enumerate(indexed_chunks([({}, E1)] * 20))
    ]
    await store.put_document(document(), indexed, embedding_model=MODEL)
    terms = [f"every{step}" for step in (1, 2, 3, 4, 5)]
    matches = await store.search_keyword("acme", "manuals", terms=terms, limit=99)
    # In 20, 10, 7, 5 and 4 chunks: three are never left out, and the fourth is one too many.
    assert matches.pruned_terms == ("every1", "every2")
    assert matches.statistics.document_frequencies["every1"] == 20
    expected = score_chunks(["every3", "every4", "every5"], corpus)
    passages = await store.load_passages("acme", [hit.chunk_id for hit in matches.hits])
    found = {passages[hit.chunk_id].ordinal: hit.score for hit in matches.hits}
    assert found == pytest.approx(expected, abs=1e-6)
    few = await store.search_keyword("acme", "manuals", terms=terms[1:3], limit=99)
    assert few.pruned_terms == ()
    await pool.close()


async def test_documents_stored_by_the_first_release_are_found_as_before(
    empty_database_dsn: str,
) -> None:
    connection = await asyncpg.connect(empty_database_dsn)
    await apply_migrations(connection, load_migrations()[:2])
    await connection.execute(
        "INSERT INTO rag.collection (tenant_id, name, embedding_model,"
        " embedding_dimension, document_count, chunk_count, token_sum)"
        " VALUES ('acme', 'manuals', 'all-minilm', 2, 2, 4, 4)"
    )
    for document_id in ("a", "b"):
        await connection.execute(
            "INSERT INTO rag.document (tenant_id, collection_id, document_id,"
            " title, source_uri, media_type, content_digest, index_fingerprint, byte_count,"
            " character_count, chunk_count, version, metadata, created_at, text)"
            " VALUES ('acme', 1, $1, '', '', 'text/plain', '00', '', 1, 1, 2, 1, '{}', now(), '')",
            document_id,
        )
    # Chunks of both documents in turn, as two writers at a time leave them.
    for document_id, ordinal in (("a", 0), ("b", 0), ("b", 1), ("a", 1)):
        chunk_id = await connection.fetchval(
            "INSERT INTO rag.chunk VALUES ('acme', 1, nextval('rag.chunk_id'), $1, $2, 0, 1, 1, 1,"
            " '', '{}', $3) RETURNING chunk_id",
            document_id,
            ordinal,
            f"{document_id}{ordinal}",
        )
        await connection.execute(
            "INSERT INTO rag.embedding VALUES ('acme', 1, $1, '', '[1, 0]')", chunk_id
        )
        await connection.execute(
            "INSERT INTO rag.posting VALUES ('acme', 1, $1, 1, 1, $2)",
            chunk_id,
            f"{document_id}{ordinal}",
        )
    await connection.close()
    async with opened_store(empty_database_dsn) as store:
        near = await store.search_vector("acme", "manuals", model=MODEL, vector=E1, limit=9)
        passages = await store.load_passages("acme", [hit.chunk_id for hit in near])
        assert sorted(each.text for each in passages.values()) == ["a0", "a1", "b0", "b1"]
        (hit,) = (await store.search_keyword("acme", "manuals", terms=["b1"], limit=9)).hits
        assert passages[hit.chunk_id].text == "b1"
        page = await store.list_chunks("acme", "manuals", "a", page_size=9)
        assert [each.text for each in page.chunks] == ["a0", "a1"]
        gone = await store.delete_document("acme", "manuals", "b")
        assert (gone.chunk_count, gone.posting_count, gone.embedding_count) == (2, 2, 2)
        stats = await store.get_collection("acme", "manuals")
        assert (stats.chunk_count, stats.token_sum) == (2, 2)
