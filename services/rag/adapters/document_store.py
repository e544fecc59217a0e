"""The document store on PostgreSQL with pgvector.

Both search arms and every count are confined to one tenant and one collection by their keys, so
that nothing of another tenant shows through, not even in term statistics.
"""

from collections.abc import Mapping, Sequence

import asyncpg

from services.rag.adapters.postgres_collections import (
    UNSETTLED,
    EmbeddingKind,
    ensure_collection,
    find_collection,
)
from services.rag.adapters.postgres_deletes import (
    delete_document_rows,
    delete_whole_collection,
)
from services.rag.adapters.postgres_invalidations import drop_invalidations, list_invalidations
from services.rag.adapters.postgres_pool import Connection, PostgresPool
from services.rag.adapters.postgres_rows import (
    collection_of,
    passage_of,
    statistics_of,
    summary_of,
)
from services.rag.adapters.postgres_search import (
    KEYWORD_SEARCH,
    PASSAGES,
    TERM_STATISTICS,
    VECTOR_SEARCH,
)
from services.rag.adapters.postgres_writes import replace_document
from services.rag.core.errors import CollectionNotFound, DocumentNotFound
from services.rag.core.invalidation import PendingInvalidation
from services.rag.core.model import (
    CollectionStats,
    DeletionReceipt,
    Document,
    DocumentPage,
    DocumentSummary,
    IndexedChunk,
    KeywordMatches,
    Passage,
    PutReceipt,
    ScoredChunk,
    StoredDocument,
    TermStatistics,
    Vector,
)

__all__ = ["PostgresDocumentStore"]

_COLLECTION = "SELECT * FROM rag.collection WHERE tenant_id = $1 AND name = $2"

_COLLECTIONS = "SELECT * FROM rag.collection WHERE tenant_id = $1 ORDER BY name"

_SUMMARY_COLUMNS = """
name, document_id, title, source_uri, media_type, content_digest, index_fingerprint, byte_count,
character_count, document.chunk_count, document.version, metadata::text AS metadata,
document.created_at, document.updated_at
"""

_DOCUMENT = f"""
SELECT {_SUMMARY_COLUMNS}, text
FROM rag.document JOIN rag.collection USING (tenant_id, collection_id)
WHERE tenant_id = $1 AND name = $2 AND document_id = $3
"""  # noqa: S608

_SUMMARY = _DOCUMENT.replace(", text", "", 1)

_DOCUMENT_PAGE = f"""
SELECT {_SUMMARY_COLUMNS}
FROM rag.document JOIN rag.collection USING (tenant_id, collection_id)
WHERE tenant_id = $1 AND name = $2 AND document_id > $3
ORDER BY document_id LIMIT $4
"""  # noqa: S608

_EMBEDDINGS = """
SELECT DISTINCT ON (text_digest) text_digest, embedding
FROM rag.embedding JOIN rag.collection USING (tenant_id, collection_id)
WHERE tenant_id = $1 AND name = $2 AND embedding_model = $3 AND text_digest = ANY($4::bytea[])
"""


class PostgresDocumentStore:
    """Documents, chunks, vectors and the keyword index of all tenants.

    Every method may raise `StoreUnavailable`. The statement of a cancelled call is cancelled on the
    server too, and a change is then made wholly or not at all.

    Args:
        dsn: `postgresql://user:password@host:port/database`.
        pool_size: Most connections.
        statement_seconds: Longest time of one statement.
        connect_seconds: Longest time to open a connection.
    """

    def __init__(
        self,
        dsn: str,
        *,
        pool_size: int = 16,
        statement_seconds: float = 30.0,
        connect_seconds: float = 2.0,
    ) -> None:
        self._pool = PostgresPool(
            dsn,
            size=pool_size,
            statement_seconds=statement_seconds,
            connect_seconds=connect_seconds,
        )

    async def open(self) -> None:
        """Migrates the schema and connects; the first use does it too, after a failed start.

        Raises:
            StoreSchemaTooNew: A newer release has migrated the database.
        """
        await self._pool.open()

    async def close(self) -> None:
        """Ends all connections."""
        await self._pool.close()

    async def ping(self) -> None:
        """Asks the database for a sign of life."""
        async with self._pool.connection() as connection:
            await connection.execute("SELECT 1")

    async def create_collection(self, tenant_id: str, name: str) -> CollectionStats:
        """Makes sure that a collection exists, and returns it as it is."""
        async with self._pool.transaction() as connection:
            await ensure_collection(connection, tenant_id, name)
            return collection_of(await _collection(connection, tenant_id, name))

    async def get_collection(self, tenant_id: str, name: str) -> CollectionStats:
        """Returns a collection with its counters.

        Raises:
            CollectionNotFound: There is none of that name.
        """
        async with self._pool.connection() as connection:
            return collection_of(await _collection(connection, tenant_id, name))

    async def list_collections(self, tenant_id: str) -> tuple[CollectionStats, ...]:
        """Returns a tenant's collections in the order of their names."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_COLLECTIONS, tenant_id)
        return tuple(collection_of(row) for row in rows)

    async def delete_collection(self, tenant_id: str, name: str) -> DeletionReceipt:
        """Deletes a collection with all it holds, after writers under way have ended.

        Raises:
            CollectionNotFound: There is none of that name.
        """
        async with self._pool.transaction() as connection:
            return await delete_whole_collection(connection, tenant_id, name)

    async def put_document(
        self, document: Document, chunks: Sequence[IndexedChunk], *, embedding_model: str
    ) -> PutReceipt:
        """Stores a document version in place of any earlier one, all or nothing.

        Makes the collection if there is none. Writers of the same document wait for each other;
        readers see the earlier version until the new one is complete.

        Args:
            document: The version.
            chunks: All of its chunks with their vectors, at least one.
            embedding_model: What made the vectors; the first document settles it for the
                collection, together with their dimension.

        Raises:
            EmbeddingModelMismatch: The collection's vectors are of another model or dimension.
        """
        async with self._pool.transaction() as connection:
            return await replace_document(connection, document, chunks, embedding_model)

    async def find_document(
        self, tenant_id: str, collection: str, document_id: str
    ) -> DocumentSummary | None:
        """Returns a document's facts, or None if it or its collection is not there."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_SUMMARY, tenant_id, collection, document_id)
        return summary_of(row) if row else None

    async def get_document(
        self, tenant_id: str, collection: str, document_id: str
    ) -> StoredDocument:
        """Returns a document with its stored text.

        Raises:
            CollectionNotFound: There is no such collection.
            DocumentNotFound: It does not hold the document.
        """
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(_DOCUMENT, tenant_id, collection, document_id)
            if row is None:
                await _collection(connection, tenant_id, collection)
                raise DocumentNotFound(collection, document_id)
        return StoredDocument(summary_of(row), row["text"])

    async def list_documents(
        self, tenant_id: str, collection: str, *, page_size: int, after: str = ""
    ) -> DocumentPage:
        """Returns documents in the order of their ids.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            page_size: Most documents, at least 1.
            after: Where to go on: `next_after` of the page before.

        Raises:
            CollectionNotFound: There is no such collection.
        """
        async with self._pool.connection() as connection:
            await _collection(connection, tenant_id, collection)
            rows = await connection.fetch(
                _DOCUMENT_PAGE, tenant_id, collection, after, page_size + 1
            )
        documents = tuple(summary_of(row) for row in rows[:page_size])
        more = len(rows) > page_size
        return DocumentPage(documents, documents[-1].document_id if more else None)

    async def delete_document(
        self, tenant_id: str, collection: str, document_id: str
    ) -> DeletionReceipt:
        """Deletes a document with everything derived from it.

        Raises:
            CollectionNotFound: There is no such collection.
            DocumentNotFound: It does not hold the document.
        """
        async with self._pool.transaction() as connection:
            return await delete_document_rows(connection, tenant_id, collection, document_id)

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
        digests = [bytes.fromhex(digest) for digest in text_digests]
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                _EMBEDDINGS, tenant_id, collection, embedding_model, digests
            )
        return {row["text_digest"].hex(): row["embedding"] for row in rows}

    async def search_vector(
        self, tenant_id: str, collection: str, *, model: str, vector: Vector, limit: int
    ) -> tuple[ScoredChunk, ...]:
        """Returns the chunks nearest to a vector by cosine, best first, by an exact scan.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            model: What made the vector.
            vector: float32, shape (dimension,), not all zeros.
            limit: Most hits.

        Raises:
            CollectionNotFound: There is no such collection.
            EmbeddingModelMismatch: Its vectors are of another model or dimension.
        """
        async with self._pool.connection() as connection:
            found = await find_collection(connection, tenant_id, collection)
            if found.embedding == UNSETTLED:
                return ()
            found.check_embedding(EmbeddingKind(model, len(vector)))
            rows = await connection.fetch(
                VECTOR_SEARCH, tenant_id, found.collection_id, vector, limit
            )
        return tuple(ScoredChunk(row["chunk_id"], 1.0 - row["distance"]) for row in rows)

    async def search_keyword(
        self, tenant_id: str, collection: str, *, terms: Sequence[str], limit: int
    ) -> KeywordMatches:
        """Returns the chunks with the highest BM25 score, best first.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            terms: Analysed query terms; repetitions count once.
            limit: Most hits.

        Raises:
            CollectionNotFound: There is no such collection.
        """
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                KEYWORD_SEARCH, tenant_id, collection, list(terms), limit
            )
        if row is None:
            raise CollectionNotFound(collection)
        hits = zip(row["chunk_ids"], row["scores"], strict=True)
        return KeywordMatches(
            hits=tuple(ScoredChunk(chunk_id, score) for chunk_id, score in hits),
            statistics=statistics_of(row),
        )

    async def get_term_statistics(
        self, tenant_id: str, collection: str, terms: Sequence[str]
    ) -> TermStatistics:
        """Returns how common terms are in a collection.

        Raises:
            CollectionNotFound: There is no such collection.
        """
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(TERM_STATISTICS, tenant_id, collection, list(terms))
        if row is None:
            raise CollectionNotFound(collection)
        return statistics_of(row)

    async def load_passages(
        self, tenant_id: str, chunk_ids: Sequence[int]
    ) -> Mapping[int, Passage]:
        """Returns chunks with the facts of their documents, by chunk id.

        Chunks that are gone since they were found are absent.
        """
        async with self._pool.connection() as connection:
            rows = await connection.fetch(PASSAGES, tenant_id, list(chunk_ids))
        return {row["chunk_id"]: passage_of(row) for row in rows}

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
