"""The statement that reads parts of documents."""

from collections.abc import Sequence

from services.rag.adapters.postgres_filter import Parameters, document_conditions
from services.rag.adapters.postgres_pool import Connection
from services.rag.core.filters import EVERY_DOCUMENT, Access
from services.rag.core.passages import TextSpan

__all__ = ["read_spans"]

# Offsets belong to the version of the document that the chunk is of; with another version the
# chunk is gone, and so is the row.
_SPANS = """
SELECT span.place,
    substr(document.text, span.char_start + 1, span.char_end - span.char_start) AS text
FROM unnest($2::bigint[], $3::integer[], $4::integer[])
        WITH ORDINALITY AS span (chunk_id, char_start, char_end, place)
    JOIN rag.chunk ON chunk.tenant_id = $1 AND chunk.chunk_id = span.chunk_id
    JOIN rag.document USING (tenant_id, collection_id, document_id)
WHERE {condition}
"""


async def read_spans(
    connection: Connection, tenant_id: str, spans: Sequence[TextSpan], access: Access
) -> dict[TextSpan, str]:
    """Returns parts of documents that the caller may read.

    Args:
        connection: One confined to the tenant.
        tenant_id: Owner of the documents.
        spans: What to read.
        access: What the caller may read.
    """
    parameters = Parameters(
        tenant_id,
        [span.chunk_id for span in spans],
        [span.char_start for span in spans],
        [span.char_end for span in spans],
    )
    condition = document_conditions(EVERY_DOCUMENT, access, parameters)
    rows = await connection.fetch(_SPANS.format(condition=condition), *parameters.values)
    return {spans[row["place"] - 1]: row["text"] for row in rows}
