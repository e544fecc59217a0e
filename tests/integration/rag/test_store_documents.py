import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace

import asyncpg
import pytest

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.adapters.postgres_writes import replace_document
from services.rag.core.documents import Document, IndexedChunk, TermFrequencies
from services.rag.core.errors import (
    CollectionNotFound,
    DocumentNotFound,
    EmbeddingModelMismatch,
)
from services.rag.core.receipts import PutReceipt
from tests.kit.rag_documents import MODEL, document, indexed_chunks, opened_store, unit_vector

E1, E2 = unit_vector(1, 0), unit_vector(0, 1)
TABLES = ("collection", "document", "chunk", "posting", "embedding")


@pytest.fixture
async def store(database_dsn: str) -> AsyncIterator[PostgresDocumentStore]:
    async with opened_store(database_dsn) as store:
        yield store


def version(number: int, chunk_count: int = 4) -> tuple[Document, list[IndexedChunk]]:
    """Returns a version of a document whose every chunk holds the term `version<number>`."""
    terms = {f"version{number}": 1, "always": number}
    return document(text=f"version {number}"), indexed_chunks(
        [(terms, E1)] * chunk_count, text=f"version {number}"
    )


class WatchedCounts(Mapping[str, int]):
    """Counts of 2000 terms that note each term that is asked for.

    Args:
        looked_at: Receives the terms.
    """

    def __init__(self, looked_at: list[str]) -> None:
        self._looked_at = looked_at

    def __getitem__(self, term: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        for number in range(len(self)):
            self._looked_at.append(f"term{number}")
            yield self._looked_at[-1]

    def __len__(self) -> int:
        return 2000


async def put(store: PostgresDocumentStore, number: int, chunk_count: int = 4) -> PutReceipt:
    stored, chunks = version(number, chunk_count)
    return await store.put_document(stored, chunks, embedding_model=MODEL)


async def row_counts(dsn: str) -> dict[str, int]:
    connection = await asyncpg.connect(dsn)
    counts = {
        table: await connection.fetchval(f"SELECT count(*) FROM rag.{table}") for table in TABLES
    }
    await connection.close()
    return counts


async def test_a_document_is_stored_with_its_text_and_facts(store: PostgresDocumentStore) -> None:
    receipt = await put(store, 1)
    stored = await store.get_document("acme", "manuals", "doc")
    assert stored.text == "version 1"
    assert stored.summary == await store.find_document("acme", "manuals", "doc")
    assert (stored.summary.version, stored.summary.chunk_count) == (1, 4)
    assert stored.summary.character_count == len("version 1")
    assert stored.summary.metadata == {"origin": "test"}
    assert (receipt.replaced, receipt.chunk_count, receipt.posting_count) == (False, 4, 8)


async def test_a_new_version_replaces_the_whole_old_one(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    first = await put(store, 1, 7)
    created = (await store.get_document("acme", "manuals", "doc")).summary.created_at
    second = await put(store, 2, 3)
    assert (second.replaced, second.document_version) == (True, 2)
    assert second.collection_version > first.collection_version
    assert await row_counts(database_dsn) == {
        "collection": 1,
        "document": 1,
        "chunk": 3,
        "posting": 6,
        "embedding": 3,
    }
    gone = await store.search_keyword("acme", "manuals", terms=["version1"], limit=9)
    assert gone.hits == ()
    stored = await store.get_document("acme", "manuals", "doc")
    assert (stored.text, stored.summary.created_at) == ("version 2", created)
    stats = await store.get_collection("acme", "manuals")
    assert (stats.document_count, stats.chunk_count, stats.token_sum) == (1, 3, 3 * 3)
    assert (stats.embedding_model, stats.embedding_dimension) == (MODEL, 2)


async def test_putting_the_same_again_changes_nothing_but_the_versions(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    await put(store, 1)
    before = await row_counts(database_dsn)
    hits = await store.search_keyword("acme", "manuals", terms=["always"], limit=9)
    assert (await put(store, 1)).document_version == 2
    assert await row_counts(database_dsn) == before
    again = await store.search_keyword("acme", "manuals", terms=["always"], limit=9)
    assert [hit.score for hit in again.hits] == [hit.score for hit in hits.hits]


async def test_the_rows_of_a_large_document_are_made_in_pieces_between_which_others_have_a_turn(
    store: PostgresDocumentStore,
) -> None:
    looked_at: list[str] = []
    terms = TermFrequencies(WatchedCounts(looked_at), 2000)
    chunks = [replace(each, terms=terms) for each in indexed_chunks([({}, E1)] * 10)]
    most_at_a_stretch = 0

    async def watch() -> None:
        nonlocal most_at_a_stretch
        seen = 0
        while True:
            most_at_a_stretch = max(most_at_a_stretch, len(looked_at) - seen)
            seen = len(looked_at)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    receipt = await store.put_document(document(), chunks, embedding_model=MODEL)
    watching.cancel()
    assert receipt.posting_count == 20_000
    # Of four chunks, terms and counts.
    assert most_at_a_stretch == 2 * 8_000


async def test_a_chunk_without_terms_has_no_postings(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    chunks = indexed_chunks([({}, E1), ({"l'eau": 2, "a.b-c_d": 1}, E1)])
    receipt = await store.put_document(document(), chunks, embedding_model=MODEL)
    assert receipt.posting_count == (await row_counts(database_dsn))["posting"] == 2
    found = await store.search_keyword("acme", "manuals", terms=["a.b-c_d"], limit=9)
    assert len(found.hits) == 1


async def test_readers_see_the_old_version_or_the_new_one_never_a_mixture(
    store: PostgresDocumentStore,
) -> None:
    await put(store, 1, 5)
    done = asyncio.Event()
    seen: set[str] = set()

    async def write() -> None:
        for number in range(2, 14):
            await put(store, number, 5)
            # Readers need several calls to see a version; the next one comes in between.
            while number % 4 == 0 and f"version {number}" not in seen:
                await asyncio.sleep(0)
        done.set()

    async def read() -> None:
        while not done.is_set():
            matches = await store.search_keyword("acme", "manuals", terms=["always"], limit=99)
            assert len(matches.hits) == 5
            assert matches.statistics.chunk_count == 5
            assert matches.statistics.document_frequencies == {"always": 5}
            near = await store.search_vector("acme", "manuals", model=MODEL, vector=E1, limit=99)
            assert len(near) == 5
            passages = await store.load_passages("acme", [hit.chunk_id for hit in near])
            texts = {passage.text.rpartition(" ")[0] for passage in passages.values()}
            assert len(texts) <= 1
            seen.update(texts)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        for _ in range(3):
            group.create_task(read())
    assert len(seen) > 1


async def test_writers_of_one_document_wait_for_each_other(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    async with asyncio.TaskGroup() as group:
        puts = [group.create_task(put(store, number, number)) for number in range(1, 9)]
    receipts = [each.result() for each in puts]
    assert sorted(each.document_version for each in receipts) == list(range(1, 9))
    assert sum(each.replaced for each in receipts) == 7
    last = max(receipts, key=lambda each: each.document_version)
    counts = await row_counts(database_dsn)
    assert counts["chunk"] == counts["embedding"] == last.chunk_count
    stats = await store.get_collection("acme", "manuals")
    assert (stats.document_count, stats.chunk_count) == (1, last.chunk_count)


async def test_counters_stay_exact_when_documents_are_written_at_the_same_time(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    async def put_and_maybe_delete(number: int) -> None:
        chunks = indexed_chunks([({"term": 2}, E1)] * (number + 1))
        await store.put_document(document(f"doc{number}"), chunks, embedding_model=MODEL)
        if number % 2:
            await store.delete_document("acme", "manuals", f"doc{number}")

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(put_and_maybe_delete(number))
    kept = sum(number + 1 for number in range(0, 12, 2))
    stats = await store.get_collection("acme", "manuals")
    assert (stats.document_count, stats.chunk_count, stats.token_sum) == (6, kept, 2 * kept)
    assert (await row_counts(database_dsn))["chunk"] == kept


async def test_deleting_a_document_leaves_no_row(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    await put(store, 1, 6)
    receipt = await store.delete_document("acme", "manuals", "doc")
    assert (receipt.document_count, receipt.chunk_count) == (1, 6)
    assert (receipt.posting_count, receipt.embedding_count) == (12, 6)
    counts = await row_counts(database_dsn)
    assert counts == {**dict.fromkeys(TABLES, 0), "collection": 1}
    stats = await store.get_collection("acme", "manuals")
    assert (stats.document_count, stats.chunk_count, stats.token_sum) == (0, 0, 0)
    assert stats.version == receipt.collection_version
    with pytest.raises(DocumentNotFound):
        await store.delete_document("acme", "manuals", "doc")


async def test_deleting_a_collection_leaves_no_row_of_it(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    kept = document("kept", tenant_id="other")
    await store.put_document(kept, indexed_chunks([({"x": 1}, E1)]), embedding_model=MODEL)
    before = await row_counts(database_dsn)
    await put(store, 1, 6)
    receipt = await store.delete_collection("acme", "manuals")
    assert (receipt.document_count, receipt.chunk_count) == (1, 6)
    assert (receipt.posting_count, receipt.embedding_count) == (12, 6)
    assert await row_counts(database_dsn) == before
    with pytest.raises(CollectionNotFound):
        await store.get_collection("acme", "manuals")
    await put(store, 2)
    assert (await store.get_collection("acme", "manuals")).version > receipt.collection_version


async def waiting(connection: asyncpg.Connection, lock_type: str) -> None:
    """Returns when somebody waits for a lock of that type."""
    query = "SELECT count(*) FROM pg_locks WHERE locktype = $1 AND NOT granted"
    while not await connection.fetchval(query, lock_type):
        await asyncio.sleep(0.005)


async def test_a_collection_is_deleted_after_the_writers_under_way(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    await put(store, 1, 4)
    pool = PostgresPool(database_dsn, size=1, statement_seconds=5.0, connect_seconds=2.0)
    watcher = await asyncpg.connect(database_dsn)
    async with pool.transaction() as connection:
        chunks = indexed_chunks([({"late": 1}, E1)] * 2)
        await replace_document(connection, document("late"), chunks, MODEL)
        deletion = asyncio.create_task(store.delete_collection("acme", "manuals"))
        await waiting(watcher, "advisory")
    receipt = await deletion
    assert (receipt.document_count, receipt.chunk_count) == (2, 6)
    assert set((await row_counts(database_dsn)).values()) == {0}
    await watcher.close()
    await pool.close()


async def test_another_model_or_dimension_is_refused_and_changes_nothing(
    store: PostgresDocumentStore,
) -> None:
    await put(store, 1)
    stored, chunks = version(2)
    with pytest.raises(EmbeddingModelMismatch):
        await store.put_document(stored, chunks, embedding_model="other")
    longer = indexed_chunks([({"x": 1}, unit_vector(1, 2, 3))])
    with pytest.raises(EmbeddingModelMismatch):
        await store.put_document(stored, longer, embedding_model=MODEL)
    assert (await store.get_document("acme", "manuals", "doc")).text == "version 1"


async def test_of_two_models_for_an_empty_collection_the_first_to_commit_wins(
    store: PostgresDocumentStore, database_dsn: str
) -> None:
    await store.create_collection("acme", "manuals")
    pool = PostgresPool(database_dsn, size=1, statement_seconds=5.0, connect_seconds=2.0)
    watcher = await asyncpg.connect(database_dsn)
    chunks = indexed_chunks([({"x": 1}, E1)])
    async with pool.transaction() as connection:
        await replace_document(connection, document("one"), chunks, "one")
        second = asyncio.create_task(
            store.put_document(document("two"), chunks, embedding_model="two")
        )
        await waiting(watcher, "transactionid")
    with pytest.raises(EmbeddingModelMismatch) as caught:
        await second
    assert caught.value.metadata["stored"] == "one/2"
    assert await store.find_document("acme", "manuals", "two") is None
    await watcher.close()
    await pool.close()


async def test_vectors_of_known_texts_are_found_again(store: PostgresDocumentStore) -> None:
    chunks = indexed_chunks([({"x": 1}, E1), ({"y": 1}, E2)])
    await store.put_document(document(), chunks, embedding_model=MODEL)
    digests = [each.chunk.text_digest for each in chunks]
    found = await store.find_embeddings(
        "acme", "manuals", [*digests, "ab" * 20], embedding_model=MODEL
    )
    assert {digest: vector.tolist() for digest, vector in found.items()} == {
        digests[0]: [1, 0],
        digests[1]: [0, 1],
    }
    for tenant_id, collection, model in (
        ("other", "manuals", MODEL),
        ("acme", "other", MODEL),
        ("acme", "manuals", "other"),
    ):
        assert (
            await store.find_embeddings(tenant_id, collection, digests, embedding_model=model) == {}
        )


async def test_documents_are_listed_in_pages_by_id(store: PostgresDocumentStore) -> None:
    names = ["B", "a", "c/d", "Ä", "z"]
    for name in names:
        await store.put_document(
            document(name), indexed_chunks([({"x": 1}, E1)]), embedding_model=MODEL
        )
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await store.list_documents("acme", "manuals", page_size=2, after=after)
        assert 0 < len(page.documents) <= 2
        seen += [each.document_id for each in page.documents]
        after = page.next_after
    assert seen == sorted(names, key=str.encode)


async def test_a_full_last_page_has_no_successor(store: PostgresDocumentStore) -> None:
    await put(store, 1)
    assert (await store.list_documents("acme", "manuals", page_size=1)).next_after is None


async def test_what_is_not_there_is_told_apart(store: PostgresDocumentStore) -> None:
    assert await store.find_document("acme", "none", "doc") is None
    with pytest.raises(CollectionNotFound):
        await store.get_document("acme", "none", "doc")
    with pytest.raises(CollectionNotFound):
        await store.list_documents("acme", "none", page_size=5)
    with pytest.raises(CollectionNotFound):
        await store.delete_document("acme", "none", "doc")
    with pytest.raises(CollectionNotFound):
        await store.delete_collection("acme", "none")
    await store.create_collection("acme", "manuals")
    with pytest.raises(DocumentNotFound):
        await store.get_document("acme", "manuals", "doc")


async def test_collections_are_listed_per_tenant_and_made_once(
    store: PostgresDocumentStore,
) -> None:
    first = await store.create_collection("acme", "b")
    assert await store.create_collection("acme", "b") == first
    await store.create_collection("acme", "a")
    await store.create_collection("other", "c")
    assert [each.name for each in await store.list_collections("acme")] == ["a", "b"]
    assert await store.list_collections("nobody") == ()


async def test_metadata_and_texts_keep_every_character(store: PostgresDocumentStore) -> None:
    text = 'quote " backslash \\ tab\t 机器 👩\u200d👧 \u202e'
    await store.put_document(
        document(text=text, title=text), indexed_chunks([({"x": 1}, E1)]), embedding_model=MODEL
    )
    stored = await store.get_document("acme", "manuals", "doc")
    assert (stored.text, stored.summary.title) == (text, text)
