"""The document store on PostgreSQL with pgvector."""

from collections.abc import Mapping, Sequence

import asyncpg

from services.rag.adapters.passage_store import PostgresPassageStore
from services.rag.adapters.postgres_collections import ensure_collection
from services.rag.adapters.postgres_deletes import (
    delete_document_rows,
    delete_expired_rows,
    delete_matching,
    delete_whole_collection,
)
from services.rag.adapters.postgres_documents import (
    find_summary,
    get_stored,
    list_chunk_rows,
    list_summaries,
    update_labels,
)
from services.rag.adapters.postgres_invalidations import drop_invalidations, list_invalidations
from services.rag.adapters.postgres_pool import Connection
from services.rag.adapters.postgres_rows import collection_of
from services.rag.adapters.postgres_vectors import (
    find_embeddings,
    missing_vectors,
    put_vectors,
)
from services.rag.adapters.postgres_writes import replace_document
from services.rag.core.documents import (
    ChunkPage,
    CollectionStats,
    Document,
    DocumentLabels,
    DocumentPage,
    DocumentSummary,
    IndexCounts,
    IndexedChunk,
    MissingVector,
    StoredDocument,
    Vector,
)
from services.rag.core.errors import CollectionNotFound
from services.rag.core.filters import (
    ANYONE,
    EVERY_DOCUMENT,
    SERVICE,
    Access,
    DocumentFilter,
)
from services.rag.core.ingest_job import Settlement
from services.rag.core.invalidation import PendingInvalidation
from services.rag.core.receipts import DeletionReceipt, PutReceipt

__all__ = ["PostgresDocumentStore"]

_COLLECTION = "SELECT * FROM rag.collection WHERE tenant_id = $1 AND name = $2"

_COLLECTIONS = "SELECT * FROM rag.collection WHERE tenant_id = $1 ORDER BY name"

# From the counters that every change keeps: exact, and one row for each collection.
_COUNTS = """
SELECT coalesce(sum(document_count), 0)::bigint AS document_count,
    coalesce(sum(chunk_count), 0)::bigint AS chunk_count
FROM rag.collection
"""

_EXPIRED = """
SELECT tenant_id, name, array_agg(document_id) AS document_ids
FROM (
    SELECT tenant_id, collection_id, document_id FROM rag.document
    WHERE expires_at <= now() ORDER BY expires_at LIMIT $1
) AS expired JOIN rag.collection USING (tenant_id, collection_id)
GROUP BY tenant_id, name
"""


class PostgresDocumentStore(PostgresPassageStore):
    """Documents, chunks, vectors and the keyword index of all tenants.

    Every method may raise `StoreUnavailable`. The statement of a cancelled call is cancelled on the
    server too, and a change is then made wholly or not at all. It is made as its base is.
    """

    async def ping(self) -> None:
        """Asks the database for a sign of life."""
        async with self._pool.connection() as connection:
            await connection.execute("SELECT 1")

    async def create_collection(self, tenant_id: str, name: str) -> CollectionStats:
        """Makes sure that a collection exists, and returns it as it is."""
        async with self._pool.writing(tenant_id) as connection:
            await ensure_collection(connection, tenant_id, name)
            return collection_of(await _collection(connection, tenant_id, name))

    async def get_collection(self, tenant_id: str, name: str) -> CollectionStats:
        """Returns a collection with its counters.

        Raises:
            CollectionNotFound: There is none of that name.
        """
        async with self._pool.reading_once(tenant_id) as connection:
            return collection_of(await _collection(connection, tenant_id, name))

    async def list_collections(self, tenant_id: str) -> tuple[CollectionStats, ...]:
        """Returns a tenant's collections in the order of their names."""
        async with self._pool.reading_once(tenant_id) as connection:
            rows = await connection.fetch(_COLLECTIONS, tenant_id)
        return tuple(collection_of(row) for row in rows)

    async def delete_collection(self, tenant_id: str, name: str) -> DeletionReceipt:
        """Deletes a collection with all it holds, after writers under way have ended.

        Raises:
            CollectionNotFound: There is none of that name.
        """
        async with self._pool.writing(tenant_id) as connection:
            return await delete_whole_collection(connection, tenant_id, name)

    async def put_document(
        self,
        document: Document,
        chunks: Sequence[IndexedChunk],
        *,
        embedding_model: str | None,
        expected_content_digest: str | None = None,
        settlement: Settlement | None = None,
    ) -> PutReceipt:
        """Stores a document version in place of any earlier one, all or nothing.

        Makes the collection if there is none. Writers of the same document wait for each other;
        readers see the earlier version until the new one is complete.

        Args:
            document: The version.
            chunks: All of its chunks, at least one, with ordinals from 0 on; vectors may be
                missing and put later.
            embedding_model: What makes the vectors; the first document settles it for the
                collection, together with their dimension. None where it is not known, without any
                vector.
            expected_content_digest: What the stored version must have to be replaced.
            settlement: What is noted with the document's job; None where it is of none.

        Raises:
            DocumentChanged: The stored version has another digest, or there is none.
            EmbeddingModelMismatch: The collection's vectors are of another model or dimension.
            IngestCancelled: The lease of the document's job is not held any more.
        """
        async with self._pool.writing(document.tenant_id) as connection:
            return await replace_document(
                connection, document, chunks, embedding_model, expected_content_digest, settlement
            )

    async def find_document(
        self, tenant_id: str, collection: str, document_id: str
    ) -> DocumentSummary | None:
        """Returns a document's facts, whoever may read it; None if it is not there."""
        async with self._pool.reading_once(tenant_id) as connection:
            return await find_summary(connection, tenant_id, collection, document_id, SERVICE)

    async def get_document(
        self, tenant_id: str, collection: str, document_id: str, *, access: Access = ANYONE
    ) -> StoredDocument:
        """Returns a document with its stored text.

        Raises:
            CollectionNotFound: There is no such collection.
            DocumentNotFound: It does not hold the document, or the caller may not read it.
        """
        async with self._pool.reading(tenant_id) as connection:
            return await get_stored(connection, tenant_id, collection, document_id, access)

    async def list_documents(
        self,
        tenant_id: str,
        collection: str,
        *,
        page_size: int,
        after: str = "",
        filter: DocumentFilter = EVERY_DOCUMENT,
        access: Access = ANYONE,
    ) -> DocumentPage:
        """Returns documents in the order of their ids.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            page_size: Most documents, at least 1.
            after: Where to go on: `next_after` of the page before.
            filter: Which documents count.
            access: Which of them the caller may read.

        Raises:
            CollectionNotFound: There is no such collection.
        """
        async with self._pool.reading(tenant_id) as connection:
            return await list_summaries(
                connection,
                tenant_id,
                collection,
                page_size=page_size,
                after=after,
                filter=filter,
                access=access,
            )

    async def list_chunks(
        self,
        tenant_id: str,
        collection: str,
        document_id: str,
        *,
        page_size: int,
        after: int | None = None,
        access: Access = ANYONE,
    ) -> ChunkPage:
        """Returns a document's chunks in their order.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            document_id: The document.
            page_size: Most chunks, at least 1.
            after: Where to go on: `next_after` of the page before.
            access: Which documents the caller may read.

        Raises:
            CollectionNotFound: There is no such collection.
            DocumentNotFound: It does not hold the document, or the caller may not read it.
            PageTokenMismatch: `after` is no place in it; it was replaced since the page before.
        """
        async with self._pool.reading(tenant_id) as connection:
            return await list_chunk_rows(
                connection,
                tenant_id,
                collection,
                document_id,
                page_size=page_size,
                after=after,
                access=access,
            )

    async def update_document_labels(
        self,
        tenant_id: str,
        collection: str,
        document_id: str,
        labels: DocumentLabels,
        *,
        expected_content_digest: str | None = None,
        access: Access = ANYONE,
        settlement: Settlement | None = None,
    ) -> DocumentSummary:
        """Changes labels of a document, not its version; the collection gets another version.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            document_id: The document.
            labels: What is to change, and to what.
            expected_content_digest: What the document must have; None for any.
            access: Which documents the caller may read.
            settlement: What is noted with the document's job; None where it is of none.

        Raises:
            DocumentChanged: It has another digest than is expected.
            IngestCancelled: The lease of the document's job is not held any more.
            CollectionNotFound: There is no such collection.
            DocumentNotFound: It does not hold the document, or the caller may not read it.
        """
        async with self._pool.writing(tenant_id) as connection:
            return await update_labels(
                connection,
                tenant_id,
                collection,
                document_id,
                labels,
                expected_content_digest,
                access,
                settlement,
            )

    async def delete_document(
        self, tenant_id: str, collection: str, document_id: str, *, access: Access = ANYONE
    ) -> DeletionReceipt:
        """Deletes a document with everything derived from it.

        Raises:
            CollectionNotFound: There is no such collection.
            DocumentNotFound: It does not hold the document, or the caller may not read it.
        """
        async with self._pool.writing(tenant_id) as connection:
            return await delete_document_rows(
                connection, tenant_id, collection, document_id, access
            )

    async def delete_documents(
        self,
        tenant_id: str,
        collection: str,
        *,
        filter: DocumentFilter,
        access: Access = ANYONE,
        dry_run: bool = False,
    ) -> DeletionReceipt:
        """Deletes the documents that a filter leaves, with everything derived from them.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            filter: Which documents; an empty one stands for all.
            access: Which of them the caller may read; others stay.
            dry_run: Whether only to say what would be removed.

        Raises:
            CollectionNotFound: There is no such collection.
        """
        async with self._pool.writing(tenant_id) as connection:
            return await delete_matching(
                connection, tenant_id, collection, filter, access, dry_run=dry_run
            )

    async def delete_expired(self, *, limit: int) -> int:
        """Deletes expired documents of all tenants, those that expired first, and counts them."""
        async with self._pool.system() as connection:
            rows = await connection.fetch(_EXPIRED, limit)
        deleted = 0
        for row in rows:
            async with self._pool.writing(row["tenant_id"]) as connection:
                deleted += await delete_expired_rows(
                    connection, row["tenant_id"], row["name"], row["document_ids"]
                )
        return deleted

    async def count_all(self) -> IndexCounts:
        """Returns how much is stored, of all tenants."""
        async with self._pool.system() as connection:
            row = await connection.fetchrow(_COUNTS)
        assert row is not None  # noqa: S101 - sums without groups are one row
        return IndexCounts(document_count=row["document_count"], chunk_count=row["chunk_count"])

    async def find_embeddings(
        self,
        tenant_id: str,
        collection: str,
        text_digests: Sequence[str],
        *,
        embedding_model: str,
    ) -> Mapping[str, Vector]:
        """Returns the stored vectors of chunk texts, so that unchanged chunks need no new ones.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name; it need not exist.
            text_digests: `Chunk.text_digest` of the texts.
            embedding_model: Vectors of any other model are not returned.
        """
        async with self._pool.reading_once(tenant_id) as connection:
            return await find_embeddings(
                connection, tenant_id, collection, text_digests, embedding_model
            )

    async def missing_vectors(self, *, limit: int, after: int = -1) -> tuple[MissingVector, ...]:
        """Returns chunks of all tenants that were stored without their vectors, oldest first.

        Args:
            limit: How many at the most.
            after: Only chunks with a greater id, for going on past some that cannot be embedded.
        """
        async with self._pool.system() as connection:
            return await missing_vectors(connection, limit=limit, after=after)

    async def put_vectors(
        self,
        tenant_id: str,
        collection: str,
        vectors: Mapping[int, Vector],
        *,
        embedding_model: str,
    ) -> int:
        """Stores vectors of chunks that lack them, and returns how many chunks have one now.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name; nothing is done where it is gone.
            vectors: Vectors by chunk id, at least one; chunks that are gone are passed over.
            embedding_model: What made them.

        Raises:
            EmbeddingModelMismatch: The collection's vectors are of another model or dimension.
        """
        async with self._pool.writing(tenant_id) as connection:
            return await put_vectors(connection, tenant_id, collection, vectors, embedding_model)

    async def list_invalidations(
        self, *, limit: int, except_tenants: Sequence[str] = ()
    ) -> tuple[PendingInvalidation, ...]:
        """Returns changes that the cache has not been told of yet, oldest first.

        A change is noted in the transaction that makes it, so none is ever lost.
        """
        async with self._pool.connection() as connection:
            return await list_invalidations(connection, limit=limit, except_tenants=except_tenants)

    async def drop_invalidations(self, numbers: Sequence[int]) -> None:
        """Forgets changes that the cache has been told of."""
        async with self._pool.connection() as connection:
            await drop_invalidations(connection, numbers)


async def _collection(connection: Connection, tenant_id: str, name: str) -> asyncpg.Record:
    row = await connection.fetchrow(_COLLECTION, tenant_id, name)
    if row is None:
        raise CollectionNotFound(name)
    return row
