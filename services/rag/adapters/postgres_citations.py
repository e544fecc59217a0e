"""Taking citations of deleted documents out of kept conversations, inside the deleting transaction.

The texts of the turns stay: they are what a person was told.
"""

from collections.abc import Sequence

from services.rag.adapters.postgres_pool import Connection

__all__ = ["scrub_collection", "scrub_documents"]

_COUNTED = """
WITH scrubbed AS ({update} RETURNING conversation_id)
SELECT count(DISTINCT conversation_id) FROM scrubbed
"""
_SCRUB_DOCUMENTS = _COUNTED.format(
    update="""
    UPDATE rag.turn SET
        citations = coalesce((
            SELECT jsonb_agg(citation) FROM jsonb_array_elements(citations) AS citation
            WHERE citation->>'document_id' <> ALL($3::text[])
        ), '[]'),
        document_ids = ARRAY(SELECT unnest(document_ids) EXCEPT SELECT unnest($3::text[]))
    WHERE tenant_id = $1 AND collection = $2 AND document_ids && $3::text[]
    """
)
_SCRUB_COLLECTION = _COUNTED.format(
    update="""
    UPDATE rag.turn SET citations = '[]', document_ids = '{}'
    WHERE tenant_id = $1 AND collection = $2 AND document_ids <> '{}'
    """
)


async def scrub_documents(
    connection: Connection, tenant_id: str, collection: str, document_ids: Sequence[str]
) -> int:
    """Takes the citations of documents out; returns how many conversations had any."""
    return int(
        await connection.fetchval(_SCRUB_DOCUMENTS, tenant_id, collection, list(document_ids))
    )


async def scrub_collection(connection: Connection, tenant_id: str, collection: str) -> int:
    """Takes all citations of a collection out; returns how many conversations had any."""
    return int(await connection.fetchval(_SCRUB_COLLECTION, tenant_id, collection))
