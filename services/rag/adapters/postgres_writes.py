"""Writing a document version, inside one transaction of the caller's."""

from collections.abc import Iterator, Sequence
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
from services.rag.adapters.postgres_deletes import Removed, find_stored, remove_document
from services.rag.adapters.postgres_filter import CHUNK_BITS
from services.rag.adapters.postgres_invalidations import note_invalidations
from services.rag.adapters.postgres_job_results import settle
from services.rag.adapters.postgres_pool import Connection
from services.rag.core.documents import Document, IndexedChunk, Vector
from services.rag.core.errors import DocumentChanged
from services.rag.core.ingest_job import Settlement
from services.rag.core.invalidation import Invalidation, InvalidationKind
from services.rag.core.receipts import PutReceipt

__all__ = ["replace_document"]

_INSERT_DOCUMENT = """
INSERT INTO rag.document (
    tenant_id, collection_id, document_id, number, title, source_uri, media_type, content_digest,
    index_fingerprint, byte_count, character_count, chunk_count, pending_vector_count, page_count,
    version, metadata, tags, readers, language, expires_at, text, created_at
) VALUES (
    $1, $2, $3, nextval('rag.document_number'), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
    $14, $15::text::jsonb, $16, $17, $18, $19, $20, coalesce($21, now())
) RETURNING number
"""
# No term holds one (see `services.rag.core.analysis`).
_SEPARATOR = " "
# Row-level security allows no COPY.
_INSERT_CHUNK = """
INSERT INTO rag.chunk (
    tenant_id, collection_id, chunk_id, document_id, ordinal, char_start, char_end, page_start,
    page_end, term_count, token_estimate, header, heading_path, text
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""
_INSERT_EMBEDDING = """
INSERT INTO rag.embedding (tenant_id, collection_id, chunk_id, text_digest, embedding)
VALUES ($1, $2, $3, $4, $5)
"""
# A chunk has some hundred terms. The server takes them apart in less time than asyncpg needs to
# encode a row for each.
_INSERT_POSTINGS = f"""
INSERT INTO rag.posting (tenant_id, collection_id, chunk_id, frequency, chunk_length, term)
SELECT $1, $2, chunk_id, frequency, chunk_length, term
FROM unnest($3::bigint[], $4::integer[], $5::text[], $6::text[])
        AS given (chunk_id, chunk_length, terms, frequencies),
    unnest(
        string_to_array(terms, '{_SEPARATOR}'),
        string_to_array(frequencies, '{_SEPARATOR}')::integer[]
    ) AS posting (term, frequency)
"""  # noqa: S608
# What is made and encoded at a stretch, which takes a few milliseconds.
_PIECE_CHUNKS = 100
_PIECE_POSTINGS = 8000

Row: TypeAlias = tuple[object, ...]


async def replace_document(
    connection: Connection,
    document: Document,
    chunks: Sequence[IndexedChunk],
    embedding_model: str | None,
    expected_content_digest: str | None = None,
    settlement: Settlement | None = None,
) -> PutReceipt:
    """Writes a document version in place of the earlier one, if any.

    Raises:
        DocumentChanged: The earlier one has another digest than is expected, or there is none.
        EmbeddingModelMismatch: The collection's vectors are of another model or dimension.
        IngestCancelled: The lease of the document's job is not held any more.
    """
    tenant_id, name = document.tenant_id, document.collection
    embedding = EmbeddingKind(embedding_model, _dimension(chunks))
    await lock_document(connection, tenant_id, name, document.document_id)
    collection = await ensure_collection(connection, tenant_id, name)
    collection.check_embedding(embedding)
    if expected_content_digest is not None:
        await _check_digest(connection, collection, document.document_id, expected_content_digest)

    old = await remove_document(connection, collection, document.document_id)
    pending_count = sum(each.embedding is None for each in chunks)
    number = await _insert_document(
        connection, collection, document, len(chunks), pending_count, old
    )
    posting_count = await _insert_chunks(
        connection, collection, document.document_id, number << CHUNK_BITS, chunks
    )
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
        pending_vectors=pending_count - (old.pending_vector_count if old else 0),
        language=document.language,
    )
    version = await count_change(connection, collection, change, embedding)
    if settlement is not None:
        await settle(
            connection,
            settlement,
            replaced=old is not None,
            chunk_count=len(chunks),
            pending_vector_count=pending_count,
        )
    return PutReceipt(
        replaced=old is not None,
        document_version=_next_version(old),
        collection_version=version,
        chunk_count=len(chunks),
        posting_count=posting_count,
    )


def _dimension(chunks: Sequence[IndexedChunk]) -> int | None:
    return next((len(each.embedding) for each in chunks if each.embedding is not None), None)


async def _check_digest(
    connection: Connection, collection: Collection, document_id: str, expected: str
) -> None:
    row = await find_stored(connection, collection, document_id)
    stored = "" if row is None or row["expired"] else row["content_digest"]
    if stored != expected:
        restricted = row is not None and row["restricted"]
        raise DocumentChanged(document_id, expected=expected, stored=None if restricted else stored)


def _next_version(old: Removed | None) -> int:
    return old.version + 1 if old else 1


async def _insert_document(
    connection: Connection,
    collection: Collection,
    document: Document,
    chunk_count: int,
    pending_count: int,
    old: Removed | None,
) -> int:
    """Writes the document's row, and returns the number that its chunks' ids begin with."""
    number: int = await connection.fetchval(
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
        pending_count,
        document.page_count,
        _next_version(old),
        orjson.dumps(dict(document.metadata)).decode(),
        list(document.tags),
        list(document.readers),
        document.language,
        document.expires_at,
        document.text,
        old.created_at if old else None,
    )
    return number


async def _insert_chunks(
    connection: Connection,
    collection: Collection,
    document_id: str,
    first_id: int,
    chunks: Sequence[IndexedChunk],
) -> int:
    """Writes chunks, vectors and postings, and returns the number of postings.

    Between two pieces others have their turn on the event loop.
    """
    key = collection.tenant_id, collection.collection_id
    for few in _pieces(chunks):
        piece = [(first_id + each.chunk.ordinal, each) for each in few]
        await connection.executemany(
            _INSERT_CHUNK,
            [(*key, chunk_id, document_id, *_chunk_values(each)) for chunk_id, each in piece],
        )
        await connection.executemany(
            _INSERT_EMBEDDING,
            [(*key, chunk_id, *_embedding_values(each)) for chunk_id, each in piece],
        )
        await connection.execute(
            _INSERT_POSTINGS,
            *key,
            [chunk_id for chunk_id, _ in piece],
            [each.terms.length for _, each in piece],
            [_SEPARATOR.join(each.terms.counts) for _, each in piece],
            [_SEPARATOR.join(map(str, each.terms.counts.values())) for _, each in piece],
        )
    return sum(len(each.terms.counts) for each in chunks)


def _pieces(chunks: Sequence[IndexedChunk]) -> Iterator[list[IndexedChunk]]:
    piece: list[IndexedChunk] = []
    posting_count = 0
    for each in chunks:
        count = len(each.terms.counts)
        if piece and (len(piece) == _PIECE_CHUNKS or posting_count + count > _PIECE_POSTINGS):
            yield piece
            piece, posting_count = [], 0
        piece.append(each)
        posting_count += count
    if piece:
        yield piece


def _chunk_values(indexed: IndexedChunk) -> Row:
    chunk = indexed.chunk
    return (
        chunk.ordinal,
        chunk.char_start,
        chunk.char_end,
        chunk.page_start,
        chunk.page_end,
        indexed.terms.length,
        chunk.token_estimate,
        chunk.header,
        list(chunk.heading_path),
        chunk.text,
    )


def _embedding_values(indexed: IndexedChunk) -> tuple[bytes, Vector | None]:
    return bytes.fromhex(indexed.chunk.text_digest), indexed.embedding
