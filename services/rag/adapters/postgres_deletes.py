"""Deleting documents and collections, each inside one transaction of the caller's."""

from dataclasses import dataclass
from datetime import datetime

from services.rag.adapters.postgres_collections import (
    Change,
    Collection,
    count_change,
    find_collection,
    lock_collection,
    lock_document,
)
from services.rag.adapters.postgres_invalidations import note_invalidations
from services.rag.adapters.postgres_pool import Connection
from services.rag.core.errors import DocumentNotFound
from services.rag.core.invalidation import Invalidation, InvalidationKind
from services.rag.core.model import DeletionReceipt

__all__ = ["Removed", "delete_document_rows", "delete_whole_collection", "remove_document"]

_FIND_ROWS = """
SELECT document.version, document.created_at, document.chunk_count,
    array_agg(chunk_id) FILTER (WHERE chunk_id IS NOT NULL) AS chunk_ids,
    coalesce(sum(term_count), 0)::bigint AS token_sum
FROM rag.document LEFT JOIN rag.chunk USING (tenant_id, collection_id, document_id)
WHERE tenant_id = $1 AND collection_id = $2 AND document_id = $3
GROUP BY document.version, document.created_at, document.chunk_count
"""
_DELETE_DOCUMENT = """
DELETE FROM rag.document WHERE tenant_id = $1 AND collection_id = $2 AND document_id = $3
"""
_DELETE_BY_CHUNK = tuple(
    f"DELETE FROM rag.{table} WHERE tenant_id = $1 AND collection_id = $2 "  # noqa: S608
    "AND chunk_id = ANY($3::bigint[])"
    for table in ("chunk", "posting", "embedding")
)
_DELETE_BY_COLLECTION = tuple(
    f"DELETE FROM rag.{table} WHERE tenant_id = $1 AND collection_id = $2"  # noqa: S608
    for table in ("document", "chunk", "posting", "embedding", "collection")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What a document's earlier version was."""

    version: int
    created_at: datetime
    chunk_count: int
    token_sum: int
    posting_count: int
    embedding_count: int


async def delete_document_rows(
    connection: Connection, tenant_id: str, collection: str, document_id: str
) -> DeletionReceipt:
    """Deletes a document with everything derived from it.

    Raises:
        CollectionNotFound: There is no such collection.
        DocumentNotFound: It does not hold the document.
    """
    await lock_document(connection, tenant_id, collection, document_id)
    found = await find_collection(connection, tenant_id, collection)
    old = await remove_document(connection, found, document_id)
    if old is None:
        raise DocumentNotFound(collection, document_id)
    await note_invalidations(
        connection, tenant_id, Invalidation(InvalidationKind.DOCUMENT, collection, document_id)
    )
    change = Change(documents=-1, chunks=-old.chunk_count, tokens=-old.token_sum)
    return DeletionReceipt(
        document_count=1,
        chunk_count=old.chunk_count,
        posting_count=old.posting_count,
        embedding_count=old.embedding_count,
        collection_version=await count_change(connection, found, change),
    )


async def delete_whole_collection(
    connection: Connection, tenant_id: str, collection: str
) -> DeletionReceipt:
    """Deletes a collection with all it holds.

    Raises:
        CollectionNotFound: There is none of that name.
    """
    await lock_collection(connection, tenant_id, collection)
    facts = await find_collection(connection, tenant_id, collection)
    documents, chunks, postings, embeddings, _ = [
        _row_count(await connection.execute(statement, tenant_id, facts.collection_id))
        for statement in _DELETE_BY_COLLECTION
    ]
    await note_invalidations(
        connection, tenant_id, Invalidation(InvalidationKind.COLLECTION, collection)
    )
    return DeletionReceipt(
        document_count=documents,
        chunk_count=chunks,
        posting_count=postings,
        embedding_count=embeddings,
        collection_version=await connection.fetchval("SELECT nextval('rag.collection_version')"),
    )


async def remove_document(
    connection: Connection, collection: Collection, document_id: str
) -> Removed | None:
    """Deletes the rows of a document, if it is there; the counters are left to the caller."""
    key = collection.tenant_id, collection.collection_id
    row = await connection.fetchrow(_FIND_ROWS, *key, document_id)
    if row is None:
        return None
    await connection.execute(_DELETE_DOCUMENT, *key, document_id)
    chunks, postings, embeddings = [
        _row_count(await connection.execute(statement, *key, row["chunk_ids"] or []))
        for statement in _DELETE_BY_CHUNK
    ]
    return Removed(
        version=row["version"],
        created_at=row["created_at"],
        chunk_count=chunks,
        token_sum=row["token_sum"],
        posting_count=postings,
        embedding_count=embeddings,
    )


def _row_count(command_tag: str) -> int:
    return int(command_tag.rpartition(" ")[2])
