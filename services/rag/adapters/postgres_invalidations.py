"""The notes of changes that the cache has still to be told of."""

from collections.abc import Sequence

from services.rag.adapters.postgres_pool import Connection
from services.rag.core.invalidation import Invalidation, InvalidationKind, PendingInvalidation

__all__ = ["drop_invalidations", "list_invalidations", "note_invalidations"]

_NOTE = """
INSERT INTO rag.invalidation (tenant_id, kind, collection, document_id)
SELECT $1, kind, collection, document_id
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY
    AS noted (kind, collection, document_id, place)
ORDER BY place
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
    await connection.execute(
        _NOTE,
        tenant_id,
        [each.kind.value for each in invalidations],
        [each.collection for each in invalidations],
        [each.document_id for each in invalidations],
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
