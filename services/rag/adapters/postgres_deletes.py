"""Deleting documents and collections, each inside one transaction of the caller's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import asyncpg

from services.rag.adapters.postgres_citations import scrub_collection, scrub_documents
from services.rag.adapters.postgres_collections import (
    Change,
    Collection,
    count_change,
    find_collection,
    lock_collection,
    lock_document,
    lock_documents,
)
from services.rag.adapters.postgres_filter import CHUNK_BITS, Parameters, document_conditions
from services.rag.adapters.postgres_invalidations import note_invalidations
from services.rag.adapters.postgres_pool import Connection
from services.rag.core.errors import DocumentNotFound
from services.rag.core.filters import Access, DocumentFilter
from services.rag.core.invalidation import Invalidation, InvalidationKind
from services.rag.core.receipts import DeletionReceipt

__all__ = [
    "Removed",
    "delete_document_rows",
    "delete_expired_rows",
    "delete_matching",
    "delete_whole_collection",
    "find_stored",
    "remove_document",
]

_DOCUMENTS = """
SELECT document_id, number, chunk_count, version, created_at, content_digest,
    coalesce(expires_at <= now(), false) AS expired, cardinality(readers) > 0 AS restricted
FROM rag.document
WHERE tenant_id = $1 AND collection_id = $2 AND {conditions}
"""
_DELETE_DOCUMENTS = """
DELETE FROM rag.document
WHERE tenant_id = $1 AND collection_id = $2 AND document_id = ANY($3::text[])
"""
_DELETE_CHUNKS = """
WITH gone AS (
    DELETE FROM rag.chunk
    WHERE tenant_id = $1 AND collection_id = $2 AND chunk_id = ANY($3::bigint[])
    RETURNING term_count
)
SELECT count(*), coalesce(sum(term_count), 0)::bigint FROM gone
"""
_DELETE_EMBEDDINGS = """
WITH gone AS (
    DELETE FROM rag.embedding
    WHERE tenant_id = $1 AND collection_id = $2 AND chunk_id = ANY($3::bigint[])
    RETURNING embedding IS NULL AS pending
)
SELECT count(*) FILTER (WHERE NOT pending), count(*) FILTER (WHERE pending) FROM gone
"""
_DELETE_POSTINGS = """
DELETE FROM rag.posting
WHERE tenant_id = $1 AND collection_id = $2 AND chunk_id = ANY($3::bigint[])
"""
_COUNT_POSTINGS = """
SELECT count(*) FROM rag.posting
WHERE tenant_id = $1 AND collection_id = $2 AND chunk_id = ANY($3::bigint[])
"""
_COUNT_EMBEDDINGS = """
SELECT count(embedding) FROM rag.embedding
WHERE tenant_id = $1 AND collection_id = $2 AND chunk_id = ANY($3::bigint[])
"""
_DELETE_COLLECTION = "DELETE FROM rag.collection WHERE tenant_id = $1 AND collection_id = $2"
# Since the transaction began.
_ELAPSED = "SELECT extract(epoch FROM clock_timestamp() - now())::float8"
_VERSION = "SELECT version FROM rag.collection WHERE tenant_id = $1 AND collection_id = $2"

# Chunks per statement; each has some hundred postings, and a statement has a time limit.
_BATCH_CHUNKS = 1000
# Up to so many documents are locked one by one; a server has room for some thousand locks.
_MOST_LOCKS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What documents took with them.

    Attributes:
        version: Version of the document; 0 of several.
        created_at: When the document was first stored; None of several.
    """

    document_count: int
    chunk_count: int
    token_sum: int
    posting_count: int
    embedding_count: int
    pending_vector_count: int
    version: int = 0
    created_at: datetime | None = None

    @property
    def change(self) -> Change:
        """What it makes of the collection's counters."""
        return Change(
            documents=-self.document_count,
            chunks=-self.chunk_count,
            tokens=-self.token_sum,
            pending_vectors=-self.pending_vector_count,
        )


async def delete_document_rows(
    connection: Connection, tenant_id: str, collection: str, document_id: str, access: Access
) -> DeletionReceipt:
    """Deletes a document with everything derived from it.

    Raises:
        CollectionNotFound: There is no such collection.
        DocumentNotFound: It does not hold the document.
    """
    await lock_document(connection, tenant_id, collection, document_id)
    found = await find_collection(connection, tenant_id, collection)
    rows = await _matching(connection, found, DocumentFilter(document_ids=(document_id,)), access)
    if not rows:
        raise DocumentNotFound(collection, document_id)
    return await _delete(connection, found, rows)


async def delete_matching(
    connection: Connection,
    tenant_id: str,
    collection: str,
    filter: DocumentFilter,
    access: Access,
    *,
    dry_run: bool,
) -> DeletionReceipt:
    """Deletes the documents that a filter leaves, or says what that would remove.

    Raises:
        CollectionNotFound: There is no such collection.
    """
    found = await find_collection(connection, tenant_id, collection)
    if dry_run:
        rows = await _matching(connection, found, filter, access)
        return replace(await _try_deletion(connection, found, rows), dry_run=True)
    # Others may have changed things until they are locked, so they are looked for again.
    seen = await _matching(connection, found, filter, access)
    if len(seen) <= _MOST_LOCKS:
        seen_ids = [row["document_id"] for row in seen]
        await lock_documents(connection, tenant_id, collection, seen_ids)
        rows = [
            row
            for row in await _matching(connection, found, filter, access)
            if row["document_id"] in seen_ids
        ]
    else:
        await lock_collection(connection, tenant_id, collection)
        found = await find_collection(connection, tenant_id, collection)
        rows = await _matching(connection, found, filter, access)
    if not rows:
        return await _try_deletion(connection, found, ())
    return await _delete(connection, found, rows)


async def delete_expired_rows(
    connection: Connection, tenant_id: str, collection: str, document_ids: Sequence[str]
) -> int:
    """Deletes those of some documents that have expired; returns how many."""
    await lock_documents(connection, tenant_id, collection, document_ids)
    found = await find_collection(connection, tenant_id, collection)
    rows = await connection.fetch(
        _DOCUMENTS.format(conditions="document_id = ANY($3::text[]) AND expires_at <= now()"),
        tenant_id,
        found.collection_id,
        list(document_ids),
    )
    if rows:
        await _delete(connection, found, rows)
    return len(rows)


async def delete_whole_collection(
    connection: Connection, tenant_id: str, collection: str
) -> DeletionReceipt:
    """Deletes a collection with all it holds.

    Raises:
        CollectionNotFound: There is none of that name.
    """
    await lock_collection(connection, tenant_id, collection)
    found = await find_collection(connection, tenant_id, collection)
    key = tenant_id, found.collection_id
    rows = await connection.fetch(_DOCUMENTS.format(conditions="true"), *key)
    removed = await _remove(connection, found, rows)
    await connection.execute(_DELETE_COLLECTION, *key)
    await note_invalidations(
        connection, tenant_id, Invalidation(InvalidationKind.COLLECTION, collection)
    )
    return await _receipt(
        connection,
        removed,
        version=await connection.fetchval("SELECT nextval('rag.collection_version')"),
        invalidation_count=1,
        conversation_count=await scrub_collection(connection, tenant_id, collection),
    )


async def remove_document(
    connection: Connection, collection: Collection, document_id: str
) -> Removed | None:
    """Deletes the rows of a document, if it is there; the counters are left to the caller."""
    row = await find_stored(connection, collection, document_id)
    if row is None:
        return None
    removed = await _remove(connection, collection, [row])
    return replace(removed, version=row["version"], created_at=row["created_at"])


async def find_stored(
    connection: Connection, collection: Collection, document_id: str
) -> asyncpg.Record | None:
    """Returns the row of a document, expired or not."""
    return await connection.fetchrow(
        _DOCUMENTS.format(conditions="document_id = $3"),
        collection.tenant_id,
        collection.collection_id,
        document_id,
    )


async def _matching(
    connection: Connection, collection: Collection, filter: DocumentFilter, access: Access
) -> list[asyncpg.Record]:
    parameters = Parameters(collection.tenant_id, collection.collection_id)
    conditions = document_conditions(filter, access, parameters)
    return await connection.fetch(_DOCUMENTS.format(conditions=conditions), *parameters.values)


async def _delete(
    connection: Connection, collection: Collection, rows: Sequence[asyncpg.Record]
) -> DeletionReceipt:
    removed = await _remove(connection, collection, rows)
    notes = [
        Invalidation(InvalidationKind.DOCUMENT, collection.name, row["document_id"]) for row in rows
    ]
    await note_invalidations(connection, collection.tenant_id, *notes)
    return await _receipt(
        connection,
        removed,
        version=await count_change(connection, collection, removed.change),
        invalidation_count=len(notes),
        conversation_count=await scrub_documents(
            connection,
            collection.tenant_id,
            collection.name,
            [row["document_id"] for row in rows],
        ),
    )


async def _remove(
    connection: Connection, collection: Collection, rows: Sequence[asyncpg.Record]
) -> Removed:
    """Deletes the rows of documents, and of all that was made from them."""
    key = collection.tenant_id, collection.collection_id
    await connection.execute(_DELETE_DOCUMENTS, *key, [row["document_id"] for row in rows])
    chunks = tokens = postings = embeddings = pending = 0
    for chunk_ids in _batches(rows):
        (chunk_row,) = await connection.fetch(_DELETE_CHUNKS, *key, chunk_ids)
        (embedding_row,) = await connection.fetch(_DELETE_EMBEDDINGS, *key, chunk_ids)
        tag = await connection.execute(_DELETE_POSTINGS, *key, chunk_ids)
        chunks, tokens = chunks + chunk_row[0], tokens + chunk_row[1]
        embeddings, pending = embeddings + embedding_row[0], pending + embedding_row[1]
        postings += int(tag.rpartition(" ")[2])
    return Removed(
        document_count=len(rows),
        chunk_count=chunks,
        token_sum=tokens,
        posting_count=postings,
        embedding_count=embeddings,
        pending_vector_count=pending,
    )


async def _try_deletion(
    connection: Connection, collection: Collection, rows: Sequence[asyncpg.Record]
) -> DeletionReceipt:
    """Counts what a deletion of documents would remove."""
    key = collection.tenant_id, collection.collection_id
    postings = embeddings = 0
    for chunk_ids in _batches(rows):
        postings += await connection.fetchval(_COUNT_POSTINGS, *key, chunk_ids)
        embeddings += await connection.fetchval(_COUNT_EMBEDDINGS, *key, chunk_ids)
    return DeletionReceipt(
        document_count=len(rows),
        chunk_count=sum(row["chunk_count"] for row in rows),
        posting_count=postings,
        embedding_count=embeddings,
        collection_version=await connection.fetchval(_VERSION, *key),
        invalidation_count=len(rows),
        duration_seconds=await connection.fetchval(_ELAPSED),
    )


def _batches(rows: Sequence[asyncpg.Record]) -> Iterator[list[int]]:
    """Yields the ids of all chunks of documents, some at a time."""
    batch: list[int] = []
    for row in rows:
        first = row["number"] << CHUNK_BITS
        batch.extend(range(first, first + row["chunk_count"]))
        while len(batch) >= _BATCH_CHUNKS:
            yield batch[:_BATCH_CHUNKS]
            batch = batch[_BATCH_CHUNKS:]
    if batch:
        yield batch


async def _receipt(
    connection: Connection,
    removed: Removed,
    *,
    version: int,
    invalidation_count: int,
    conversation_count: int,
) -> DeletionReceipt:
    return DeletionReceipt(
        document_count=removed.document_count,
        chunk_count=removed.chunk_count,
        posting_count=removed.posting_count,
        embedding_count=removed.embedding_count,
        collection_version=version,
        invalidation_count=invalidation_count,
        conversation_count=conversation_count,
        duration_seconds=await connection.fetchval(_ELAPSED),
    )
