"""Reading passages by their ids, and what tells whether any of them has changed since."""

from collections.abc import Sequence

import asyncpg

from services.rag.adapters.postgres_filter import Parameters, document_conditions
from services.rag.adapters.postgres_pool import Connection
from services.rag.adapters.postgres_rows import passage_of
from services.rag.core.filters import Access, DocumentFilter
from services.rag.core.passages import Passage
from services.rag.core.stored_evidence import CollectionState, StoredEvidence

__all__ = ["evidence_by_id", "passages_by_id", "read_state"]

# Chunks first: without statistics the planner would start from all documents of the tenant.
_PASSAGES = """
WITH found AS MATERIALIZED (
    SELECT * FROM rag.chunk WHERE tenant_id = $1 AND chunk_id = ANY($2::bigint[])
)
SELECT chunk_id, name AS collection, document_id, title, source_uri, media_type,
    metadata::text AS metadata, ordinal, char_start, char_end, page_start, page_end, found.text,
    heading_path, header, token_estimate, document.updated_at, language{and_state}
FROM found
    JOIN rag.document USING (tenant_id, collection_id, document_id)
    JOIN rag.collection USING (tenant_id, collection_id)
WHERE {conditions}
ORDER BY document_id, ordinal
"""
# xmin has 32 bits: to come again, it would take four thousand million changes of anything.
_STATE = """
collection.version AS collection_version, collection.xmin::text::bigint AS transaction_number,
    pg_postmaster_start_time() AS server_started_at, now() AS read_at
"""
_AND_STATE = f", expires_at, {_STATE}"
_COLLECTION = "SELECT {columns} FROM rag.collection WHERE tenant_id = $1 AND name = $2"


async def passages_by_id(
    connection: Connection,
    tenant_id: str,
    chunk_ids: Sequence[int],
    its: DocumentFilter,
    access: Access,
) -> tuple[Passage, ...]:
    """Returns chunks with the facts of their documents, by document and place."""
    rows = await _rows(connection, tenant_id, chunk_ids, its, access)
    return tuple(passage_of(row) for row in rows)


async def evidence_by_id(
    connection: Connection,
    tenant_id: str,
    chunk_ids: Sequence[int],
    its: DocumentFilter,
    access: Access,
) -> StoredEvidence:
    """Returns the same, of one collection, and as of which state of it that is so."""
    rows = await _rows(connection, tenant_id, chunk_ids, its, access, and_state=_AND_STATE)
    if not rows:
        return StoredEvidence({})
    return StoredEvidence(
        {row["chunk_id"]: passage_of(row) for row in rows},
        _state_of(rows[0]),
        min((row["expires_at"] for row in rows if row["expires_at"] is not None), default=None),
    )


async def read_state(connection: Connection, tenant_id: str, name: str) -> CollectionState | None:
    """Returns the state of a collection; None where it is not there."""
    row = await connection.fetchrow(_COLLECTION.format(columns=_STATE), tenant_id, name)
    return None if row is None else _state_of(row)


async def _rows(
    connection: Connection,
    tenant_id: str,
    chunk_ids: Sequence[int],
    its: DocumentFilter,
    access: Access,
    *,
    and_state: str = "",
) -> list[asyncpg.Record]:
    parameters = Parameters(tenant_id, list(chunk_ids))
    conditions = document_conditions(its, access, parameters)
    statement = _PASSAGES.format(conditions=conditions, and_state=and_state)
    return await connection.fetch(statement, *parameters.values)


def _state_of(row: asyncpg.Record) -> CollectionState:
    return CollectionState(
        row["collection_version"],
        row["transaction_number"],
        row["server_started_at"],
        row["read_at"],
    )
