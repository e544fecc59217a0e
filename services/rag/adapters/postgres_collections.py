"""Ordering the writers of a collection, and keeping its counters.

Two kinds of advisory lock order the writers. Whoever changes a document shares the lock of its
collection and holds that of the document; whoever deletes the collection holds the first alone. The
row of the collection, which all its writers change, is locked only at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from services.rag.adapters.postgres_pool import Connection
from services.rag.core.errors import CollectionNotFound, EmbeddingModelMismatch

__all__ = [
    "UNSETTLED",
    "Change",
    "Collection",
    "EmbeddingKind",
    "count_change",
    "ensure_collection",
    "find_collection",
    "lock_collection",
    "lock_document",
    "lock_documents",
]

# First keys of our advisory locks; any numbers that nobody else uses in the same database.
_COLLECTION_LOCK = 1_742_201
_DOCUMENT_LOCK = 1_742_202

_LOCK_DOCUMENT = """
SELECT pg_advisory_xact_lock_shared($1::integer, $2::integer),
    pg_advisory_xact_lock($3::integer, $4::integer)
"""
# Locks are taken in one order by all, so that nobody waits in a circle.
_LOCK_DOCUMENTS = """
SELECT pg_advisory_xact_lock_shared($1::integer, $2::integer),
    (SELECT count(pg_advisory_xact_lock($3::integer, key))
     FROM (SELECT key FROM unnest($4::integer[]) AS key ORDER BY key) AS ordered)
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
_UPDATE_COLLECTION = """
UPDATE rag.collection SET
    document_count = document_count + $3,
    chunk_count = chunk_count + $4,
    token_sum = token_sum + $5,
    pending_vector_count = pending_vector_count + $6,
    embedding_model = coalesce(embedding_model, $7),
    embedding_dimension = coalesce(embedding_dimension, $8),
    languages = CASE
        WHEN $9::text IS NULL OR $9 = ANY(languages) THEN languages
        ELSE array_append(languages, $9)
    END,
    version = nextval('rag.collection_version'),
    updated_at = now()
WHERE tenant_id = $1 AND collection_id = $2
    AND coalesce(embedding_model = $7, true) AND coalesce(embedding_dimension = $8, true)
RETURNING version
"""


@dataclass(frozen=True, slots=True)
class EmbeddingKind:
    """What makes vectors, and their length; None where nothing has settled it."""

    model: str | None = None
    dimension: int | None = None

    def __str__(self) -> str:
        return f"{self.model}/{self.dimension or '?'}"

    def agrees(self, other: "EmbeddingKind") -> bool:
        """Whether both may be the same, as far as they are settled."""
        return (self.model is None or other.model in (None, self.model)) and (
            self.dimension is None or other.dimension in (None, self.dimension)
        )


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as it was read."""

    tenant_id: str
    name: str
    collection_id: int
    embedding: EmbeddingKind

    def check_embedding(self, given: EmbeddingKind) -> None:
        """Refuses vectors unlike those that are there.

        Raises:
            EmbeddingModelMismatch: They are of another model or dimension.
        """
        if not self.embedding.agrees(given):
            raise EmbeddingModelMismatch(self.name, stored=str(self.embedding), given=str(given))


UNSETTLED = EmbeddingKind()


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction adds to the counters of a collection, and to its languages."""

    documents: int = 0
    chunks: int = 0
    tokens: int = 0
    pending_vectors: int = 0
    language: str | None = None


async def lock_document(
    connection: Connection, tenant_id: str, collection: str, document_id: str
) -> None:
    """Waits until nobody else writes a document, and keeps its collection from being deleted."""
    await connection.execute(
        _LOCK_DOCUMENT,
        _COLLECTION_LOCK,
        _lock_key(tenant_id, collection),
        _DOCUMENT_LOCK,
        _lock_key(tenant_id, collection, document_id),
    )


async def lock_documents(
    connection: Connection, tenant_id: str, collection: str, document_ids: Sequence[str]
) -> None:
    """Does for some documents what `lock_document` does for one."""
    keys = sorted({_lock_key(tenant_id, collection, each) for each in document_ids})
    await connection.execute(
        _LOCK_DOCUMENTS,
        _COLLECTION_LOCK,
        _lock_key(tenant_id, collection),
        _DOCUMENT_LOCK,
        keys,
    )


async def lock_collection(connection: Connection, tenant_id: str, name: str) -> None:
    """Waits until nobody writes to a collection, and keeps others from it."""
    await connection.execute(_LOCK_COLLECTION, _COLLECTION_LOCK, _lock_key(tenant_id, name))


async def ensure_collection(connection: Connection, tenant_id: str, name: str) -> Collection:
    """Returns a collection, made now if there was none."""
    try:
        return await find_collection(connection, tenant_id, name)
    except CollectionNotFound:
        await connection.execute(_ENSURE_COLLECTION, tenant_id, name)
        return await find_collection(connection, tenant_id, name)


async def find_collection(connection: Connection, tenant_id: str, name: str) -> Collection:
    """Returns a collection.

    Raises:
        CollectionNotFound: There is none of that name.
    """
    row = await connection.fetchrow(_COLLECTION, tenant_id, name)
    if row is None:
        raise CollectionNotFound(name)
    embedding = EmbeddingKind(row["embedding_model"], row["embedding_dimension"])
    return Collection(tenant_id, name, row["collection_id"], embedding)


async def count_change(
    connection: Connection,
    collection: Collection,
    change: Change,
    embedding: EmbeddingKind = UNSETTLED,
) -> int:
    """Updates the counters, and settles the kind of vectors if that is still open.

    Returns:
        The collection's new version.

    Raises:
        EmbeddingModelMismatch: Another transaction has settled another kind meanwhile.
    """
    version: int | None = await connection.fetchval(
        _UPDATE_COLLECTION,
        collection.tenant_id,
        collection.collection_id,
        change.documents,
        change.chunks,
        change.tokens,
        change.pending_vectors,
        embedding.model,
        embedding.dimension,
        change.language,
    )
    if version is None:
        now = await find_collection(connection, collection.tenant_id, collection.name)
        raise EmbeddingModelMismatch(now.name, stored=str(now.embedding), given=str(embedding))
    return version


def _lock_key(*names: str) -> int:
    digest = blake2b("\0".join(names).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big", signed=True)
