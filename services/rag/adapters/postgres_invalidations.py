"""The notes of changes that the cache has still to be told of."""

from collections.abc import Sequence

from services.rag.adapters.postgres_pool import Connection
from services.rag.core.invalidation import Invalidation, InvalidationKind, PendingInvalidation

__all__ = ["drop_invalidations", "list_invalidations", "note_invalidations"]

_NOTE = """
INSERT INTO rag.invalidation (tenant_id, kind, collection, document_id) VALUES ($1, $2, $3, $4)
"""
_LIST = """
SELECT number, tenant_id, kind, collection, document_id
FROM rag.invalidation WHERE tenant_id <> ALL($2::text[]) ORDER BY number LIMIT $1
"""
_DROP = "DELETE FROM rag.invalidation WHERE number = ANY($1::bigint[])"


async def note_invalidations(
    connection: Connection, tenant_id: str, *invalidations: Invalidation
) -> None:
    """Notes changes, inside the transaction that makes them."""
    for each in invalidations:
        await connection.execute(
            _NOTE, tenant_id, each.kind.value, each.collection, each.document_id
        )


async def list_invalidations(
    connection: Connection, *, limit: int, except_tenants: Sequence[str]
) -> tuple[PendingInvalidation, ...]:
    """Returns notes of all tenants but some, oldest first."""
    return tuple(
        PendingInvalidation(
            row["number"],
            row["tenant_id"],
            Invalidation(InvalidationKind(row["kind"]), row["collection"], row["document_id"]),
        )
        for row in await connection.fetch(_LIST, limit, list(except_tenants))
    )


async def drop_invalidations(connection: Connection, numbers: Sequence[int]) -> None:
    """Removes notes."""
    await connection.execute(_DROP, list(numbers))
