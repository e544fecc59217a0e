"""Vectors of chunks: reading them, and finding and filling those that are missing."""

from collections.abc import Mapping, Sequence

from pgvector import HalfVector

from services.rag.adapters.postgres_collections import (
    Change,
    EmbeddingKind,
    count_change,
    find_collection,
    lock_documents,
)
from services.rag.adapters.postgres_filter import CHUNK_BITS
from services.rag.adapters.postgres_invalidations import note_invalidations
from services.rag.adapters.postgres_pool import Connection
from services.rag.core.documents import MissingVector, Vector
from services.rag.core.errors import CollectionNotFound
from services.rag.core.invalidation import Invalidation, InvalidationKind

__all__ = [
    "find_embeddings",
    "load_vectors",
    "missing_vectors",
    "put_vectors",
    "sample_vectors",
]

_EMBEDDINGS = """
SELECT DISTINCT ON (text_digest) text_digest, embedding
FROM rag.embedding JOIN rag.collection USING (tenant_id, collection_id)
WHERE tenant_id = $1 AND name = $2 AND embedding_model = $3 AND text_digest = ANY($4::bytea[])
    AND embedding IS NOT NULL
"""
_VECTORS = """
SELECT chunk_id, embedding
FROM rag.embedding JOIN rag.collection USING (tenant_id, collection_id)
WHERE tenant_id = $1 AND name = $2 AND chunk_id = ANY($3::bigint[]) AND embedding IS NOT NULL
"""
# A few chunks of each of some documents, so that nothing has to be read but what is returned.
_SAMPLE = f"""
WITH facts AS (
    SELECT collection_id, ceil($3 / greatest(document_count, 1)::float8)::integer AS draws
    FROM rag.collection WHERE tenant_id = $1 AND name = $2
),
drawn AS (
    SELECT DISTINCT (number << {CHUNK_BITS}) + floor(random() * chunk_count)::bigint AS chunk_id
    FROM (
        SELECT number, chunk_count FROM rag.document
        WHERE tenant_id = $1 AND collection_id = (SELECT collection_id FROM facts)
        ORDER BY random() LIMIT $3
    ) AS chosen CROSS JOIN facts CROSS JOIN generate_series(1, draws)
)
SELECT embedding FROM rag.embedding
WHERE tenant_id = $1 AND collection_id = (SELECT collection_id FROM facts)
    AND chunk_id = ANY(array(SELECT chunk_id FROM drawn)) AND embedding IS NOT NULL
LIMIT $3
"""  # noqa: S608
_MISSING = """
SELECT tenant_id, name AS collection, embedding_model, chunk_id,
    CASE WHEN header = '' THEN chunk.text ELSE header || E'\\n' || chunk.text END AS text,
    encode(text_digest, 'hex') AS text_digest
FROM rag.embedding
    JOIN rag.chunk USING (tenant_id, collection_id, chunk_id)
    JOIN rag.collection USING (tenant_id, collection_id)
WHERE embedding IS NULL AND chunk_id > $2
ORDER BY chunk_id LIMIT $1
"""
_DOCUMENTS_OF = """
SELECT DISTINCT document_id FROM rag.chunk
WHERE tenant_id = $1 AND collection_id = $2 AND chunk_id = ANY($3::bigint[])
"""
_FILL = f"""
WITH filled AS (
    UPDATE rag.embedding SET embedding = given.embedding
    FROM unnest($3::bigint[], $4::halfvec[]) AS given (chunk_id, embedding)
    WHERE tenant_id = $1 AND collection_id = $2 AND embedding.chunk_id = given.chunk_id
        AND embedding.embedding IS NULL
    RETURNING embedding.chunk_id
),
counted AS (
    UPDATE rag.document SET pending_vector_count = pending_vector_count - its.filled_count
    FROM (
        SELECT chunk_id >> {CHUNK_BITS} AS number, count(*) AS filled_count
        FROM filled GROUP BY 1
    ) AS its
    WHERE tenant_id = $1 AND collection_id = $2 AND document_id = ANY($5::text[])
        AND document.number = its.number
)
SELECT count(*) FROM filled
"""  # noqa: S608


async def find_embeddings(
    connection: Connection,
    tenant_id: str,
    name: str,
    text_digests: Sequence[str],
    embedding_model: str,
) -> Mapping[str, Vector]:
    """Returns the stored vectors of texts, by their digests."""
    digests = [bytes.fromhex(digest) for digest in text_digests]
    rows = await connection.fetch(_EMBEDDINGS, tenant_id, name, embedding_model, digests)
    return {row["text_digest"].hex(): row["embedding"] for row in rows}


async def load_vectors(
    connection: Connection, tenant_id: str, name: str, chunk_ids: Sequence[int]
) -> Mapping[int, Vector]:
    """Returns stored vectors by chunk id."""
    rows = await connection.fetch(_VECTORS, tenant_id, name, list(chunk_ids))
    return {row["chunk_id"]: row["embedding"] for row in rows}


async def sample_vectors(
    connection: Connection, tenant_id: str, name: str, limit: int
) -> tuple[Vector, ...]:
    """Returns vectors of chunks drawn at random."""
    rows = await connection.fetch(_SAMPLE, tenant_id, name, limit)
    return tuple(row["embedding"] for row in rows)


async def missing_vectors(
    connection: Connection, *, limit: int, after: int
) -> tuple[MissingVector, ...]:
    """Returns chunks of all tenants without vectors, by chunk id."""
    rows = await connection.fetch(_MISSING, limit, after)
    return tuple(MissingVector(**dict(row)) for row in rows)


async def put_vectors(
    connection: Connection,
    tenant_id: str,
    name: str,
    vectors: Mapping[int, Vector],
    embedding_model: str,
) -> int:
    """Stores vectors of chunks that lack them, and returns how many chunks have one now.

    Raises:
        EmbeddingModelMismatch: The collection's vectors are of another model or dimension.
    """
    try:
        collection = await find_collection(connection, tenant_id, name)
    except CollectionNotFound:
        return 0
    given = EmbeddingKind(embedding_model, len(next(iter(vectors.values()))))
    collection.check_embedding(given)
    key = tenant_id, collection.collection_id
    rows = await connection.fetch(_DOCUMENTS_OF, *key, list(vectors))
    document_ids = [row["document_id"] for row in rows]
    await lock_documents(connection, tenant_id, name, document_ids)
    halves = [HalfVector(vector) for vector in vectors.values()]
    filled_count: int = await connection.fetchval(_FILL, *key, list(vectors), halves, document_ids)
    if filled_count:
        change = Change(pending_vectors=-filled_count)
        await count_change(connection, collection, change, given)
        await note_invalidations(connection, tenant_id, Invalidation(InvalidationKind.GROWTH, name))
    return filled_count
