"""The statements that find and load chunks."""

from services.rag.core.bm25 import K1, B

__all__ = ["KEYWORD_SEARCH", "PASSAGES", "TERM_STATISTICS", "VECTOR_SEARCH"]

_FACTS = """
SELECT collection_id, chunk_count,
    CASE WHEN chunk_count = 0 THEN 1.0 ELSE greatest(token_sum::float8 / chunk_count, 1.0) END
        AS average_length
FROM rag.collection WHERE tenant_id = $1 AND name = $2
"""

# One statement, hence one snapshot: counts, frequencies and postings belong together. It returns
# one row if the collection exists, and none if it does not.
KEYWORD_SEARCH = f"""
WITH facts AS MATERIALIZED ({_FACTS}),
hit AS MATERIALIZED (
    SELECT term, chunk_id, frequency, chunk_length
    FROM rag.posting
    WHERE tenant_id = $1 AND collection_id = (SELECT collection_id FROM facts)
        AND term = ANY($3::text[])
),
known AS MATERIALIZED (
    SELECT term, count(*) AS document_frequency FROM hit GROUP BY term
),
best AS MATERIALIZED (
    SELECT chunk_id, sum(
        ln(1.0 + (chunk_count - document_frequency + 0.5) / (document_frequency + 0.5))
        * frequency * ({K1} + 1.0)
        / (frequency + {K1} * (1.0 - {B} + {B} * chunk_length / average_length))
    ) AS score
    FROM (
        SELECT chunk_id, frequency::float8, chunk_length::float8,
            document_frequency::float8, chunk_count::float8, average_length
        FROM hit JOIN known USING (term) CROSS JOIN facts
    ) AS weighed
    GROUP BY chunk_id ORDER BY score DESC, chunk_id LIMIT $4
)
SELECT chunk_count, average_length,
    array(SELECT term FROM known ORDER BY term) AS terms,
    array(SELECT document_frequency FROM known ORDER BY term) AS document_frequencies,
    array(SELECT chunk_id FROM best ORDER BY score DESC, chunk_id) AS chunk_ids,
    array(SELECT score FROM best ORDER BY score DESC, chunk_id) AS scores
FROM facts
"""  # noqa: S608

TERM_STATISTICS = f"""
WITH facts AS MATERIALIZED ({_FACTS}),
known AS MATERIALIZED (
    SELECT term, count(*) AS document_frequency
    FROM rag.posting
    WHERE tenant_id = $1 AND collection_id = (SELECT collection_id FROM facts)
        AND term = ANY($3::text[])
    GROUP BY term
)
SELECT chunk_count, average_length,
    array(SELECT term FROM known ORDER BY term) AS terms,
    array(SELECT document_frequency FROM known ORDER BY term) AS document_frequencies
FROM facts
"""  # noqa: S608

# The addition keeps the planner from ever using an approximate index, which loses results when
# it is filtered by tenant afterwards.
VECTOR_SEARCH = """
SELECT chunk_id, (embedding <=> $3) + 0 AS distance
FROM rag.embedding WHERE tenant_id = $1 AND collection_id = $2
ORDER BY distance, chunk_id LIMIT $4
"""

# Chunks first: without statistics the planner would start from all documents of the tenant.
PASSAGES = """
WITH found AS MATERIALIZED (
    SELECT * FROM rag.chunk WHERE tenant_id = $1 AND chunk_id = ANY($2::bigint[])
)
SELECT chunk_id, name AS collection, document_id, title, source_uri, media_type,
    metadata::text AS metadata, ordinal, char_start, char_end, found.text, heading_path, header,
    token_estimate
FROM found
    JOIN rag.document USING (tenant_id, collection_id, document_id)
    JOIN rag.collection USING (tenant_id, collection_id)
"""
