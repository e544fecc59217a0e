"""Replacing and deleting documents, each inside one transaction of the caller's.

Two kinds of advisory lock order the writers. Whoever changes a document shares the lock of its
collection and holds that of the document; whoever deletes the collection holds the first alone. The
row of the collection, which all its writers change, is locked only at the end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

import orjson

from services.rag.adapters.postgres_pool import Connection
from services.rag.core.errors import CollectionNotFound, DocumentNotFound, EmbeddingModelMismatch
from services.rag.core.model import DeletionReceipt, Document, IndexedChunk, PutReceipt, Vector

__all__ = ["delete_document_rows", "delete_whole_collection", "replace_document"]

# First keys of our advisory locks; any numbers that nobody else uses in the same database.
_COLLECTION_LOCK = 1_742_201
_DOCUMENT_LOCK = 1_742_202

_LOCK_DOCUMENT = """
SELECT pg_advisory_xact_lock_shared($1::integer, $2::integer),
    pg_advisory_xact_lock($3::integer, $4::integer)
"""
_LOCK_COLLECTION = "SELECT pg_advisory_xact_lock($1::integer, $2::integer)"

_ENSURE_COLLECTION = """
INSERT INTO rag.collection (tenant_id, name) VALUES ($1, $2)
ON CONFLICT (tenant_id, name) DO NOTHING
"""
_COLLECTION = """
SELECT collection_id, embedding_model, embedding_dimension
FROM rag.collection WHERE tenant_id = $1 AND name = $2
"""

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

_UPDATE_COLLECTION = """
UPDATE rag.collection SET
    document_count = document_count + $3,
    chunk_count = chunk_count + $4,
    token_sum = token_sum + $5,
    embedding_model = coalesce(embedding_model, $6),
    embedding_dimension = coalesce(embedding_dimension, $7),
    version = nextval('rag.collection_version'),
    updated_at = now()
WHERE tenant_id = $1 AND collection_id = $2
    AND ($6::text IS NULL OR embedding_model IS NULL
        OR (embedding_model, embedding_dimension) = ($6, $7))
RETURNING version
"""


@dataclass(frozen=True, slots=True)
class _Collection:
    """Identity of a collection, with model and dimension of its vectors where they are settled."""

    collection_id: int
    embedding: tuple[str, int] | tuple[None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Removed:
    """What a document's earlier version was."""

    version: int
    created_at: datetime
    chunk_count: int
    token_sum: int
    posting_count: int
    embedding_count: int


@dataclass(frozen=True, slots=True)
class _Change:
    """What a transaction adds to the counters of a collection."""

    documents: int
    chunks: int
    tokens: int


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
    tenant_id, collection = document.tenant_id, document.collection
    dimension = len(chunks[0].embedding)
    await _lock_document(connection, tenant_id, collection, document.document_id)
    await connection.execute(_ENSURE_COLLECTION, tenant_id, collection)
    facts = await _collection(connection, tenant_id, collection)
    given = embedding_model, dimension
    if facts.embedding not in ((None, None), given):
        raise _mismatch(collection, facts.embedding, given)
    collection_id = facts.collection_id

    old = await _remove(connection, tenant_id, collection_id, document.document_id)
    version = old.version + 1 if old else 1
    await connection.execute(
        _INSERT_DOCUMENT,
        tenant_id,
        collection_id,
        document.document_id,
        document.title,
        document.source_uri,
        document.media_type,
        document.content_digest,
        document.index_fingerprint,
        document.byte_count,
        len(document.text),
        len(chunks),
        version,
        orjson.dumps(dict(document.metadata)).decode(),
        document.text,
        old.created_at if old else None,
    )
    posting_count = await _insert_chunks(
        connection, tenant_id, collection_id, document.document_id, chunks
    )
    change = _Change(
        documents=0 if old else 1,
        chunks=len(chunks) - (old.chunk_count if old else 0),
        tokens=sum(each.terms.length for each in chunks) - (old.token_sum if old else 0),
    )
    collection_version = await _count(
        connection, tenant_id, collection_id, change, embedding_model, dimension
    )
    if collection_version is None:
        # Another document settled the model while this one was written.
        facts = await _collection(connection, tenant_id, collection)
        raise _mismatch(collection, facts.embedding, given)
    return PutReceipt(
        replaced=old is not None,
        document_version=version,
        collection_version=collection_version,
        chunk_count=len(chunks),
        posting_count=posting_count,
    )


async def delete_document_rows(
    connection: Connection, tenant_id: str, collection: str, document_id: str
) -> DeletionReceipt:
    """Deletes a document with everything derived from it.

    Raises:
        CollectionNotFound: There is no such collection.
        DocumentNotFound: It does not hold the document.
    """
    await _lock_document(connection, tenant_id, collection, document_id)
    facts = await _collection(connection, tenant_id, collection)
    old = await _remove(connection, tenant_id, facts.collection_id, document_id)
    if old is None:
        raise DocumentNotFound(collection, document_id)
    change = _Change(documents=-1, chunks=-old.chunk_count, tokens=-old.token_sum)
    version = await _count(connection, tenant_id, facts.collection_id, change, None, None)
    return DeletionReceipt(
        document_count=1,
        chunk_count=old.chunk_count,
        posting_count=old.posting_count,
        embedding_count=old.embedding_count,
        collection_version=version or 0,
    )


async def delete_whole_collection(
    connection: Connection, tenant_id: str, collection: str
) -> DeletionReceipt:
    """Deletes a collection with all it holds.

    Raises:
        CollectionNotFound: There is none of that name.
    """
    await connection.execute(_LOCK_COLLECTION, _COLLECTION_LOCK, _lock_key(tenant_id, collection))
    facts = await _collection(connection, tenant_id, collection)
    documents, chunks, postings, embeddings, _ = [
        _row_count(await connection.execute(statement, tenant_id, facts.collection_id))
        for statement in _DELETE_BY_COLLECTION
    ]
    return DeletionReceipt(
        document_count=documents,
        chunk_count=chunks,
        posting_count=postings,
        embedding_count=embeddings,
        collection_version=await connection.fetchval("SELECT nextval('rag.collection_version')"),
    )


async def _collection(connection: Connection, tenant_id: str, name: str) -> _Collection:
    row = await connection.fetchrow(_COLLECTION, tenant_id, name)
    if row is None:
        raise CollectionNotFound(name)
    return _Collection(row["collection_id"], (row["embedding_model"], row["embedding_dimension"]))


async def _lock_document(
    connection: Connection, tenant_id: str, collection: str, document_id: str
) -> None:
    await connection.execute(
        _LOCK_DOCUMENT,
        _COLLECTION_LOCK,
        _lock_key(tenant_id, collection),
        _DOCUMENT_LOCK,
        _lock_key(tenant_id, collection, document_id),
    )


def _lock_key(*names: str) -> int:
    digest = blake2b("\0".join(names).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big", signed=True)


async def _remove(
    connection: Connection, tenant_id: str, collection_id: int, document_id: str
) -> _Removed | None:
    row = await connection.fetchrow(_FIND_ROWS, tenant_id, collection_id, document_id)
    if row is None:
        return None
    await connection.execute(_DELETE_DOCUMENT, tenant_id, collection_id, document_id)
    chunks, postings, embeddings = [
        _row_count(
            await connection.execute(statement, tenant_id, collection_id, row["chunk_ids"] or [])
        )
        for statement in _DELETE_BY_CHUNK
    ]
    return _Removed(
        version=row["version"],
        created_at=row["created_at"],
        chunk_count=chunks,
        token_sum=row["token_sum"],
        posting_count=postings,
        embedding_count=embeddings,
    )


def _row_count(command_tag: str) -> int:
    return int(command_tag.rpartition(" ")[2])


async def _insert_chunks(
    connection: Connection,
    tenant_id: str,
    collection_id: int,
    document_id: str,
    chunks: Sequence[IndexedChunk],
) -> int:
    """Writes chunks, vectors and postings, and returns the number of postings."""
    chunk_ids = await connection.fetchval(_NEW_CHUNK_IDS, len(chunks))
    key = tenant_id, collection_id
    numbered = list(zip(chunk_ids, chunks, strict=True))
    await _copy(
        connection,
        "chunk",
        _CHUNK_COLUMNS,
        [(*key, chunk_id, document_id, *_chunk_values(each)) for chunk_id, each in numbered],
    )
    await _copy(
        connection,
        "embedding",
        _EMBEDDING_COLUMNS,
        [(*key, chunk_id, *_embedding_values(each)) for chunk_id, each in numbered],
    )
    postings = [
        (*key, chunk_id, frequency, each.terms.length, term)
        for chunk_id, each in numbered
        for term, frequency in each.terms.counts.items()
    ]
    await _copy(connection, "posting", _POSTING_COLUMNS, postings)
    return len(postings)


def _chunk_values(indexed: IndexedChunk) -> tuple[object, ...]:
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
    connection: Connection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[tuple[object, ...]],
) -> None:
    for batch in _batches(rows):
        await connection.copy_records_to_table(
            table, schema_name="rag", columns=columns, records=batch
        )


def _batches(rows: Sequence[tuple[object, ...]]) -> Iterator[Sequence[tuple[object, ...]]]:
    for start in range(0, len(rows), _COPY_ROWS):
        yield rows[start : start + _COPY_ROWS]


async def _count(
    connection: Connection,
    tenant_id: str,
    collection_id: int,
    change: _Change,
    embedding_model: str | None,
    dimension: int | None,
) -> int | None:
    """Updates the counters, and returns the new version; None if the model does not match."""
    version: int | None = await connection.fetchval(
        _UPDATE_COLLECTION,
        tenant_id,
        collection_id,
        change.documents,
        change.chunks,
        change.tokens,
        embedding_model,
        dimension,
    )
    return version


def _mismatch(
    collection: str, stored: tuple[str | None, int | None], given: tuple[str, int]
) -> EmbeddingModelMismatch:
    return EmbeddingModelMismatch(
        collection, stored=f"{stored[0]}/{stored[1]}", given=f"{given[0]}/{given[1]}"
    )
