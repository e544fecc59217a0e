"""Writing a document version, inside one transaction of the caller's."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import orjson

from services.rag.adapters.postgres_collections import (
    Change,
    Collection,
    EmbeddingKind,
    count_change,
    ensure_collection,
    lock_document,
)
from services.rag.adapters.postgres_deletes import Removed, remove_document
from services.rag.adapters.postgres_invalidations import note_invalidations
from services.rag.adapters.postgres_pool import Connection
from services.rag.core.invalidation import Invalidation, InvalidationKind
from services.rag.core.model import Document, IndexedChunk, PutReceipt, Vector

__all__ = ["replace_document"]

_INSERT_DOCUMENT = """
INSERT INTO rag.document (
    tenant_id, collection_id, document_id, title, source_uri, media_type, content_digest,
    index_fingerprint, byte_count, character_count, chunk_count, version, metadata, text,
    created_at
) VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::text::jsonb, $14,
    coalesce($15, now())
)
"""
_NEW_CHUNK_IDS = """
SELECT array_agg(nextval('rag.chunk_id')) FROM generate_series(1, $1)
"""
_CHUNK_COLUMNS = (
    "tenant_id",
    "collection_id",
    "chunk_id",
    "document_id",
    "ordinal",
    "char_start",
    "char_end",
    "term_count",
    "token_estimate",
    "header",
    "heading_path",
    "text",
)
_EMBEDDING_COLUMNS = ("tenant_id", "collection_id", "chunk_id", "text_digest", "embedding")
_POSTING_COLUMNS = (
    "tenant_id",
    "collection_id",
    "chunk_id",
    "frequency",
    "chunk_length",
    "term",
)
# Rows per COPY, so that a large document stays far from the limit of one statement.
_COPY_ROWS = 20_000
# Rows made and encoded at a stretch, which takes a few milliseconds.
_PIECE_ROWS = 500

Row: TypeAlias = tuple[object, ...]


async def replace_document(
    connection: Connection,
    document: Document,
    chunks: Sequence[IndexedChunk],
    embedding_model: str,
) -> PutReceipt:
    """Writes a document version in place of the earlier one, if any.

    Raises:
        EmbeddingModelMismatch: The collection's vectors are of another model or dimension.
    """
    tenant_id, name = document.tenant_id, document.collection
    embedding = EmbeddingKind(embedding_model, len(chunks[0].embedding))
    await lock_document(connection, tenant_id, name, document.document_id)
    collection = await ensure_collection(connection, tenant_id, name)
    collection.check_embedding(embedding)

    old = await remove_document(connection, collection, document.document_id)
    await _insert_document(connection, collection, document, len(chunks), old)
    posting_count = await _insert_chunks(connection, collection, document.document_id, chunks)
    growth = Invalidation(InvalidationKind.GROWTH, name)
    if old is None:
        await note_invalidations(connection, tenant_id, growth)
    else:
        # A new version takes something away and brings something new.
        gone = Invalidation(InvalidationKind.DOCUMENT, name, document.document_id)
        await note_invalidations(connection, tenant_id, gone, growth)
    change = Change(
        documents=0 if old else 1,
        chunks=len(chunks) - (old.chunk_count if old else 0),
        tokens=sum(each.terms.length for each in chunks) - (old.token_sum if old else 0),
    )
    return PutReceipt(
        replaced=old is not None,
        document_version=_next_version(old),
        collection_version=await count_change(connection, collection, change, embedding),
        chunk_count=len(chunks),
        posting_count=posting_count,
    )


def _next_version(old: Removed | None) -> int:
    return old.version + 1 if old else 1


async def _insert_document(
    connection: Connection,
    collection: Collection,
    document: Document,
    chunk_count: int,
    old: Removed | None,
) -> None:
    await connection.execute(
        _INSERT_DOCUMENT,
        collection.tenant_id,
        collection.collection_id,
        document.document_id,
        document.title,
        document.source_uri,
        document.media_type,
        document.content_digest,
        document.index_fingerprint,
        document.byte_count,
        len(document.text),
        chunk_count,
        _next_version(old),
        orjson.dumps(dict(document.metadata)).decode(),
        document.text,
        old.created_at if old else None,
    )


async def _insert_chunks(
    connection: Connection,
    collection: Collection,
    document_id: str,
    chunks: Sequence[IndexedChunk],
) -> int:
    """Writes chunks, vectors and postings, and returns the number of postings."""
    chunk_ids = await connection.fetchval(_NEW_CHUNK_IDS, len(chunks))
    key = collection.tenant_id, collection.collection_id
    numbered = list(zip(chunk_ids, chunks, strict=True))
    posting_count = sum(len(each.terms.counts) for each in chunks)
    await _copy(
        connection,
        "chunk",
        _CHUNK_COLUMNS,
        ((*key, chunk_id, document_id, *_chunk_values(each)) for chunk_id, each in numbered),
        count=len(chunks),
    )
    await _copy(
        connection,
        "embedding",
        _EMBEDDING_COLUMNS,
        ((*key, chunk_id, *_embedding_values(each)) for chunk_id, each in numbered),
        count=len(chunks),
    )
    await _copy(
        connection,
        "posting",
        _POSTING_COLUMNS,
        (
            (*key, chunk_id, frequency, each.terms.length, term)
            for chunk_id, each in numbered
            for term, frequency in each.terms.counts.items()
        ),
        count=posting_count,
    )
    return posting_count


def _chunk_values(indexed: IndexedChunk) -> Row:
    chunk = indexed.chunk
    return (
        chunk.ordinal,
        chunk.char_start,
        chunk.char_end,
        indexed.terms.length,
        chunk.token_estimate,
        chunk.header,
        list(chunk.heading_path),
        chunk.text,
    )


def _embedding_values(indexed: IndexedChunk) -> tuple[bytes, Vector]:
    return bytes.fromhex(indexed.chunk.text_digest), indexed.embedding


async def _copy(
    connection: Connection, table: str, columns: Sequence[str], rows: Iterator[Row], *, count: int
) -> None:
    for _ in range(0, count, _COPY_ROWS):
        await connection.copy_records_to_table(
            table,
            schema_name="rag",
            columns=columns,
            records=_made_aside(islice(rows, _COPY_ROWS)),
        )


async def _made_aside(rows: Iterator[Row]) -> AsyncIterator[Row]:
    """Makes rows in a thread, a piece at a time.

    asyncpg encodes them on the event loop; between two pieces others have their turn.
    """
    while piece := await asyncio.to_thread(list, islice(rows, _PIECE_ROWS)):
        for row in piece:
            yield row
