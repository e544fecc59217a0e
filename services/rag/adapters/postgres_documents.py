"""Reading documents and chunks, and changing labels, inside one transaction of the caller's."""

from collections.abc import Sequence

import asyncpg
import orjson

from services.common.errors import PageTokenMismatch
from services.rag.adapters.postgres_collections import (
    Change,
    count_change,
    find_collection,
    lock_document,
)
from services.rag.adapters.postgres_filter import CHUNK_BITS, Parameters, document_conditions
from services.rag.adapters.postgres_invalidations import note_invalidations
from services.rag.adapters.postgres_job_results import settle
from services.rag.adapters.postgres_pool import Connection
from services.rag.adapters.postgres_rows import chunk_of, summary_of
from services.rag.core.documents import (
    ChunkPage,
    DocumentLabels,
    DocumentPage,
    DocumentSummary,
    StoredDocument,
)
from services.rag.core.errors import DocumentChanged, DocumentNotFound
from services.rag.core.filters import Access, DocumentFilter
from services.rag.core.ingest_job import Settlement
from services.rag.core.invalidation import Invalidation, InvalidationKind

__all__ = [
    "find_summary",
    "get_stored",
    "list_chunk_rows",
    "list_summaries",
    "update_labels",
]

_SUMMARY_COLUMNS = """
name, document_id, title, source_uri, media_type, content_digest, index_fingerprint, byte_count,
character_count, document.chunk_count, document.version, metadata::text AS metadata, tags, readers,
language, expires_at, page_count, document.pending_vector_count, document.created_at,
document.updated_at
"""
_DOCUMENTS = """
SELECT {columns}
FROM rag.document JOIN rag.collection USING (tenant_id, collection_id)
WHERE tenant_id = $1 AND name = $2 AND {conditions}
ORDER BY document_id LIMIT {limit}
"""
_CHUNKS = """
SELECT chunk_id, ordinal, char_start, char_end, page_start, page_end, text, heading_path, header,
    token_estimate, encode(text_digest, 'hex') AS text_digest, embedding IS NOT NULL AS has_vector
FROM rag.chunk JOIN rag.embedding USING (tenant_id, collection_id, chunk_id)
WHERE tenant_id = $1 AND chunk_id > $2 AND chunk_id < $3
ORDER BY chunk_id LIMIT $4
"""
_NUMBERS = """
SELECT document_id, number FROM rag.document
WHERE tenant_id = $1 AND collection_id = $2 AND {conditions}
"""
_UPDATE_LABELS = """
UPDATE rag.document SET
    metadata = coalesce($4::text::jsonb, metadata),
    tags = coalesce($5::text[], tags),
    readers = coalesce($6::text[], readers),
    language = coalesce($7::text, language),
    expires_at = CASE WHEN $9::boolean THEN NULL ELSE coalesce($8::timestamptz, expires_at) END
WHERE tenant_id = $1 AND collection_id = $2 AND document_id = $3
"""


async def find_summary(
    connection: Connection, tenant_id: str, collection: str, document_id: str, access: Access
) -> DocumentSummary | None:
    """Returns a document's facts; None where it, or its collection, is not there."""
    row = await _find(connection, tenant_id, collection, document_id, access, _SUMMARY_COLUMNS)
    return summary_of(row) if row else None


async def get_stored(
    connection: Connection, tenant_id: str, collection: str, document_id: str, access: Access
) -> StoredDocument:
    """Returns a document with its text.

    Raises:
        CollectionNotFound: There is no such collection.
        DocumentNotFound: It does not hold the document, or not for the caller.
    """
    columns = f"{_SUMMARY_COLUMNS}, text"
    row = await _find(connection, tenant_id, collection, document_id, access, columns)
    if row is None:
        await find_collection(connection, tenant_id, collection)
        raise DocumentNotFound(collection, document_id)
    return StoredDocument(summary_of(row), row["text"])


async def list_summaries(
    connection: Connection,
    tenant_id: str,
    collection: str,
    *,
    page_size: int,
    after: str,
    filter: DocumentFilter,
    access: Access,
) -> DocumentPage:
    """Returns documents in the order of their ids.

    Raises:
        CollectionNotFound: There is no such collection.
    """
    await find_collection(connection, tenant_id, collection)
    parameters = Parameters(tenant_id, collection)
    conditions = document_conditions(filter, access, parameters)
    statement = _DOCUMENTS.format(
        columns=_SUMMARY_COLUMNS,
        conditions=f"{conditions} AND document_id > {parameters.add(after)}",
        limit=parameters.add(page_size + 1),
    )
    rows = await connection.fetch(statement, *parameters.values)
    documents = tuple(summary_of(row) for row in rows[:page_size])
    more = len(rows) > page_size
    return DocumentPage(documents, documents[-1].document_id if more else None)


async def list_chunk_rows(
    connection: Connection,
    tenant_id: str,
    collection: str,
    document_id: str,
    *,
    page_size: int,
    after: int | None,
    access: Access,
) -> ChunkPage:
    """Returns chunks of a document in their order; errors are those of `get_stored`.

    Raises:
        PageTokenMismatch: `after` is no chunk of the version that is stored now.
    """
    numbers = await _numbers(connection, tenant_id, collection, [document_id], access)
    if document_id not in numbers:
        raise DocumentNotFound(collection, document_id)
    first, end = (
        number << CHUNK_BITS for number in (numbers[document_id], numbers[document_id] + 1)
    )
    if after is not None and not first <= after < end:
        raise PageTokenMismatch
    before = first - 1 if after is None else after
    rows = await connection.fetch(_CHUNKS, tenant_id, before, end, page_size + 1)
    chunks = tuple(chunk_of(row) for row in rows[:page_size])
    more = len(rows) > page_size
    return ChunkPage(chunks, chunks[-1].chunk_id if more else None)


async def update_labels(
    connection: Connection,
    tenant_id: str,
    collection: str,
    document_id: str,
    labels: DocumentLabels,
    expected_content_digest: str | None,
    access: Access,
    settlement: Settlement | None = None,
) -> DocumentSummary:
    """Changes labels of a document; errors are those of `get_stored`, and these.

    Raises:
        DocumentChanged: It has another digest than is expected.
        IngestCancelled: The lease of the document's job is not held any more.
    """
    await lock_document(connection, tenant_id, collection, document_id)
    found = await find_collection(connection, tenant_id, collection)
    stored = await find_summary(connection, tenant_id, collection, document_id, access)
    if stored is None:
        raise DocumentNotFound(collection, document_id)
    if expected_content_digest not in (None, stored.content_digest):
        raise DocumentChanged(
            document_id, expected=expected_content_digest or "", stored=stored.content_digest
        )
    metadata = labels.metadata
    await connection.execute(
        _UPDATE_LABELS,
        tenant_id,
        found.collection_id,
        document_id,
        None if metadata is None else orjson.dumps(dict(metadata)).decode(),
        None if labels.tags is None else list(labels.tags),
        None if labels.readers is None else list(labels.readers),
        labels.language,
        labels.expires_at,
        labels.never_expires,
    )
    # Who may read it, or what it is found by, has changed.
    await note_invalidations(
        connection,
        tenant_id,
        Invalidation(InvalidationKind.DOCUMENT, collection, document_id),
        Invalidation(InvalidationKind.GROWTH, collection),
    )
    await count_change(connection, found, Change())
    if settlement is not None:
        await settle(
            connection,
            settlement,
            replaced=True,
            chunk_count=stored.chunk_count,
            pending_vector_count=stored.pending_vector_count,
        )
    row = await _fetch_any(connection, tenant_id, collection, document_id)
    return summary_of(row)


async def _find(
    connection: Connection,
    tenant_id: str,
    collection: str,
    document_id: str,
    access: Access,
    columns: str,
) -> asyncpg.Record | None:
    parameters = Parameters(tenant_id, collection)
    its = DocumentFilter(document_ids=(document_id,))
    conditions = document_conditions(its, access, parameters)
    statement = _DOCUMENTS.format(columns=columns, conditions=conditions, limit=1)
    return await connection.fetchrow(statement, *parameters.values)


async def _fetch_any(
    connection: Connection, tenant_id: str, collection: str, document_id: str
) -> asyncpg.Record:
    """Returns the row of a document that is there, even if it has just expired."""
    statement = _DOCUMENTS.format(columns=_SUMMARY_COLUMNS, conditions="document_id = $3", limit=1)
    row = await connection.fetchrow(statement, tenant_id, collection, document_id)
    assert row is not None  # noqa: S101 - it is locked
    return row


async def _numbers(
    connection: Connection,
    tenant_id: str,
    collection: str,
    document_ids: Sequence[str],
    access: Access,
) -> dict[str, int]:
    found = await find_collection(connection, tenant_id, collection)
    parameters = Parameters(tenant_id, found.collection_id)
    its = DocumentFilter(document_ids=tuple(document_ids) or ("",))
    conditions = document_conditions(its, access, parameters)
    rows = await connection.fetch(_NUMBERS.format(conditions=conditions), *parameters.values)
    return {row["document_id"]: row["number"] for row in rows}
