"""Ordering the writers of a collection, and keeping its counters.

Two kinds of advisory lock order the writers. Whoever changes a document shares the lock of its
collection and holds that of the document; whoever deletes the collection holds the first alone. The
row of the collection, which all its writers change, is locked only at the end.
"""

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
]

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
class EmbeddingKind:
    """What made vectors, and their length; both None while nothing has settled it."""

    model: str | None = None
    dimension: int | None = None

    def __str__(self) -> str:
        return f"{self.model}/{self.dimension}"


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
        if self.embedding not in (UNSETTLED, given):
            raise EmbeddingModelMismatch(self.name, stored=str(self.embedding), given=str(given))


UNSETTLED = EmbeddingKind()


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction adds to the counters of a collection."""

    documents: int
    chunks: int
    tokens: int


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


async def lock_collection(connection: Connection, tenant_id: str, name: str) -> None:
    """Waits until nobody writes to a collection, and keeps others from it."""
    await connection.execute(_LOCK_COLLECTION, _COLLECTION_LOCK, _lock_key(tenant_id, name))


async def ensure_collection(connection: Connection, tenant_id: str, name: str) -> Collection:
    """Returns a collection, made now if there was none."""
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
        embedding.model,
        embedding.dimension,
    )
    if version is None:
        now = await find_collection(connection, collection.tenant_id, collection.name)
        raise EmbeddingModelMismatch(now.name, stored=str(now.embedding), given=str(embedding))
    return version


def _lock_key(*names: str) -> int:
    digest = blake2b("\0".join(names).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big", signed=True)
