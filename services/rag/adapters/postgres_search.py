"""The statements that find chunks; every one takes the same condition on documents.

Parameters are $1 the tenant and $2 the collection's name or number; those of a filter come last.
"""

from collections.abc import Sequence

from services.rag.adapters.postgres_filter import (
    CHUNK_BITS,
    Parameters,
    chunk_condition,
    document_conditions,
    unguarded,
)
from services.rag.adapters.postgres_terms import Frequencies
from services.rag.core.bm25 import K1, B
from services.rag.core.filters import EVERY_DOCUMENT, Access, DocumentFilter

__all__ = [
    "TERM_STATISTICS",
    "approximate_search",
    "exact_search",
    "find_and_search",
    "find_searched",
    "keyword_search",
    "vector_index_name",
]

_FACTS = """
SELECT collection_id, chunk_count, version,
    CASE WHEN chunk_count = 0 THEN 1.0 ELSE greatest(token_sum::float8 / chunk_count, 1.0) END
        AS average_length
FROM rag.collection WHERE tenant_id = $1 AND name = $2
"""
# Index-only: a term's postings lie side by side.
_KNOWN = """
SELECT term, count(*) AS document_frequency
FROM rag.posting
WHERE tenant_id = $1 AND collection_id = (SELECT collection_id FROM facts)
    AND term = ANY($3::text[])
GROUP BY term
"""
_STATISTICS = """
chunk_count, average_length,
array(SELECT term FROM known ORDER BY term) AS terms,
array(SELECT document_frequency FROM known ORDER BY term) AS document_frequencies
"""
# What is remembered of common terms counts as long as nothing has changed since.
_KNOWN_OR_REMEMBERED = """
SELECT term COLLATE "C" AS term, document_frequency
FROM unnest({terms}::text[], {frequencies}::bigint[]) AS remembered (term, document_frequency)
WHERE (SELECT version FROM facts) = {version}
UNION ALL
SELECT term, count(*)
FROM rag.posting
WHERE tenant_id = $1 AND collection_id = (SELECT collection_id FROM facts)
    AND term = ANY(CASE WHEN (SELECT version FROM facts) = {version} THEN {others}::text[]
        ELSE $3::text[] END)
GROUP BY term
"""
_SCORED = """
SELECT chunk_id, sum(weight * frequency / (frequency + base + slope * chunk_length)) AS score
FROM rag.posting JOIN counted USING (term)
WHERE tenant_id = $1 AND collection_id = (SELECT collection_id FROM facts)
    AND term = ANY(array({terms}))
    AND {condition}
GROUP BY chunk_id
"""
_FIRST_TERMS = """
SELECT term FROM counted
WHERE counts AND total > {many} AND running - document_frequency < {first} AND running < total / 4
"""
_LEADING_TERMS = """
SELECT term FROM counted WHERE counts AND term NOT IN (SELECT term FROM common)
"""
# One statement, hence one snapshot: counts, frequencies and postings belong together. It returns
# one row if the collection exists, and none if it does not.
#
# Where the postings are many, those of the most common terms are not read: the best chunks for the
# rarest terms give a floor that every hit reaches, and terms that all together add less than that
# cannot make a hit of a chunk by themselves (Turtle and Flood, Query Evaluation, 1995). Of the
# chunks that may still be hits, what these terms add is looked up one by one. `most` is more than
# a term and all more common ones can add; the scores are the same as without all this.
_KEYWORD_SEARCH = """
WITH facts AS MATERIALIZED ({facts}),
known AS MATERIALIZED ({known}),
counted AS MATERIALIZED (
    SELECT *, sum(weight) FILTER (WHERE counts) OVER (ORDER BY place DESC) AS most,
        sum(document_frequency) FILTER (WHERE counts) OVER () AS total
    FROM (
        SELECT term, document_frequency, place, running,
            place <= {least} OR running <= $5 AS counts,
            ln(1.0 + (chunk_count - document_frequency + 0.5) / (document_frequency + 0.5))
                * {k1_plus_1}::float8 AS weight,
            {base}::float8 AS base, {slope}::float8 / average_length AS slope
        FROM (
            SELECT term, document_frequency::float8,
                row_number() OVER (ORDER BY document_frequency, term) AS place,
                sum(document_frequency::float8) OVER (ORDER BY document_frequency, term) AS running
            FROM known
        ) AS ordered CROSS JOIN facts
    ) AS weighed
),
floor AS MATERIALIZED (
    SELECT coalesce((SELECT score FROM ({first}) AS first
        ORDER BY score DESC OFFSET $4 - 1 LIMIT 1), 0) * {rounding}::float8 AS score
),
common AS MATERIALIZED (
    SELECT * FROM counted
    WHERE counts AND most < {common_ratio} * (SELECT score FROM floor)
),
rest AS MATERIALIZED (SELECT coalesce(max(most), 0) AS most FROM common),
nominated AS MATERIALIZED (
    {nominated}
    HAVING sum(weight * frequency / (frequency + base + slope * chunk_length))
        >= (SELECT score FROM floor) - (SELECT most FROM rest)
),
best AS MATERIALIZED (
    SELECT chunk_id, score + coalesce(added, 0) AS score
    FROM (
        SELECT chunk_id, score FROM nominated
        WHERE score >= coalesce((
            SELECT score FROM nominated ORDER BY score DESC OFFSET $4 - 1 LIMIT 1
        ), 0) * {rounding}::float8 - (SELECT most FROM rest)
    ) AS near
    CROSS JOIN LATERAL (
        SELECT sum(weight * frequency / (frequency + base + slope * chunk_length)) AS added
        FROM common CROSS JOIN LATERAL (
            SELECT frequency, chunk_length FROM rag.posting
            WHERE tenant_id = $1 AND collection_id = (SELECT collection_id FROM facts)
                AND posting.term = common.term AND posting.chunk_id = near.chunk_id
            OFFSET 0
        ) AS its
    ) AS looked_up
    ORDER BY score DESC, chunk_id LIMIT $4
)
SELECT {statistics}, version,
    array(SELECT term FROM counted WHERE NOT counts ORDER BY term) AS pruned_terms,
    array(SELECT chunk_id FROM best ORDER BY score DESC, chunk_id) AS chunk_ids,
    array(SELECT score FROM best ORDER BY score DESC, chunk_id) AS scores
FROM facts
"""

TERM_STATISTICS = f"""
WITH facts AS MATERIALIZED ({_FACTS}), known AS MATERIALIZED ({_KNOWN})
SELECT {_STATISTICS} FROM facts
"""  # noqa: S608

_FIND_SEARCHED = """
SELECT collection_id, embedding_model, embedding_dimension, chunk_count,
    coalesce((
        SELECT indisvalid FROM pg_index
        WHERE indexrelid = to_regclass('rag.embedding_near_' || collection_id)
    ), false) AS indexed
FROM rag.collection WHERE tenant_id = $1 AND name = $2
"""

# The addition keeps the planner from ever using an approximate index, which loses results when
# a condition is checked afterwards.
_EXACT_SEARCH = """
SELECT chunk_id, (embedding <=> $3) + 0 AS distance
FROM rag.embedding
WHERE tenant_id = $1 AND collection_id = $2 AND embedding IS NOT NULL AND {condition}
ORDER BY distance, chunk_id LIMIT $4
"""
# One statement, hence one snapshot. It returns one row if the collection exists, and none if it
# does not; no hits where its vectors are of another length.
_FIND_AND_SEARCH = """
WITH facts AS MATERIALIZED ({facts}),
near AS MATERIALIZED (
    SELECT chunk_id, (embedding <=> $3) + 0 AS distance
    FROM rag.embedding
    WHERE tenant_id = $1 AND collection_id = (
            SELECT collection_id FROM facts WHERE embedding_dimension = $5
        )
        AND embedding IS NOT NULL AND {condition}
    ORDER BY distance, chunk_id LIMIT $4
)
SELECT facts.*,
    array(SELECT chunk_id FROM near ORDER BY distance, chunk_id) AS chunk_ids,
    array(SELECT distance FROM near ORDER BY distance, chunk_id) AS distances
FROM facts
"""
# From the few documents that count to their vectors, which lie side by side.
_EXACT_SEARCH_AMONG = """
SELECT chunk_id, (embedding <=> $3) + 0 AS distance
FROM (
    SELECT number FROM rag.document
    WHERE tenant_id = $1 AND collection_id = $2 AND {conditions}
) AS counted
CROSS JOIN LATERAL (
    SELECT chunk_id, embedding FROM rag.embedding
    WHERE tenant_id = $1 AND collection_id = $2 AND embedding IS NOT NULL
        AND chunk_id >= number << {bits} AND chunk_id < (number + 1) << {bits}
    OFFSET 0
) AS its
ORDER BY distance, chunk_id LIMIT $4
"""
# The numbers stand in the text, so that the planner sees which partial index serves. IS TRUE keeps
# the condition a filter of the index scan, which then goes on until there are enough hits; a join
# would break its order. The index gives its hits roughly in order; without the addition the planner
# would trust it and not sort.
_APPROXIMATE_SEARCH = """
WITH near AS MATERIALIZED (
    SELECT chunk_id, embedding::halfvec({dimension}) <=> $3::halfvec({dimension}) AS distance
    FROM rag.embedding
    WHERE tenant_id = $1 AND collection_id = {collection_id} AND collection_id = $2
        AND ({condition}) IS TRUE
    ORDER BY embedding::halfvec({dimension}) <=> $3::halfvec({dimension}) LIMIT $5
)
SELECT chunk_id, distance FROM near ORDER BY distance + 0, chunk_id LIMIT $4
"""
# Counts in the documents, and only where it matters: that takes longer than all the rest.
_FIND_AND_COUNT = """
WITH facts AS MATERIALIZED ({facts})
SELECT facts.*, CASE WHEN indexed AND chunk_count > $3 AND NOT ({known}) THEN (
    SELECT coalesce(sum(document.chunk_count), 0)::bigint FROM rag.document
    WHERE tenant_id = $1 AND document.collection_id = facts.collection_id AND {conditions}
) END AS counted
FROM facts
"""

# However common they are, this many of the rarest terms count.
_LEAST_TERMS = 3
# From so many postings on it pays to look for a floor, in about so many of them.
_MANY_POSTINGS = 2_000
_FIRST_POSTINGS = 500
# Terms that add more would leave many chunks to look up, which takes longer than to read them all.
_COMMON_RATIO = 0.3
# Sums of floating-point numbers in another order differ by far less.
_ROUNDING_RATIO = 1.0 - 1e-9


def vector_index_name(collection_id: int) -> str:
    """Returns the name of the approximate index over a collection's vectors."""
    return f"embedding_near_{collection_id}"


def keyword_search(
    first: Parameters,
    filter: DocumentFilter,
    access: Access,
    *,
    terms: Sequence[str],
    remembered: Frequencies,
) -> str:
    """Returns the search by words.

    Args:
        first: Tenant, collection's name, terms, limit, and in how many chunks, summed up, the terms
            may be before the most common ones are left out.
        filter: Which documents count.
        access: Which of them the caller may read.
        terms: The terms once more.
        remembered: How common terms are, as earlier searches found.
    """
    kept = [term for term in terms if term in remembered.by_term]
    known = _KNOWN_OR_REMEMBERED.format(
        terms=first.add(kept),
        frequencies=first.add([remembered.by_term[term] for term in kept]),
        version=first.add(remembered.version),
        others=first.add([term for term in terms if term not in remembered.by_term]),
    )
    condition = chunk_condition(
        filter, access, first, tenant="$1", collection="(SELECT collection_id FROM facts)"
    )
    return _KEYWORD_SEARCH.format(
        facts=_FACTS,
        known=known,
        first=_SCORED.format(
            terms=_FIRST_TERMS.format(many=_MANY_POSTINGS, first=_FIRST_POSTINGS),
            condition=condition,
        ),
        nominated=_SCORED.format(
            terms=_LEADING_TERMS,
            condition=condition,
        ),
        statistics=_STATISTICS,
        least=_LEAST_TERMS,
        common_ratio=_COMMON_RATIO,
        rounding=_ROUNDING_RATIO,
        k1_plus_1=K1 + 1.0,
        base=K1 * (1.0 - B),
        slope=K1 * B,
    )


def exact_search(first: Parameters, filter: DocumentFilter, access: Access, *, few: bool) -> str:
    """Returns the search by meaning that looks at every vector.

    Args:
        first: Tenant, collection's number, vector and limit.
        filter: Which documents count.
        access: Which of them the caller may read.
        few: Whether few of the collection's documents count.
    """
    if few:
        conditions = document_conditions(filter, access, first)
        return _EXACT_SEARCH_AMONG.format(conditions=conditions, bits=CHUNK_BITS)
    condition = chunk_condition(filter, access, first, tenant="$1", collection="$2")
    return _EXACT_SEARCH.format(condition=condition)


def approximate_search(
    first: Parameters,
    filter: DocumentFilter,
    access: Access,
    *,
    collection_id: int,
    dimension: int,
) -> str:
    """Returns the search by meaning over a collection's index.

    Args:
        first: Tenant, collection's number, vector, limit, and how many hits to take from the index.
        filter: Which documents count.
        access: Which of them the caller may read.
        collection_id: The collection's number.
        dimension: Length of its vectors.
    """
    return _APPROXIMATE_SEARCH.format(
        dimension=dimension,
        collection_id=collection_id,
        condition=chunk_condition(filter, access, first, tenant="$1", collection="$2"),
    )


def find_and_search(first: Parameters, access: Access) -> str:
    """Returns the search by meaning that looks at every vector and finds the collection too.

    Args:
        first: Tenant, collection's name, vector, limit, and the vector's length.
        access: Which documents the caller may read.
    """
    condition = chunk_condition(
        EVERY_DOCUMENT, access, first, tenant="$1", collection="(SELECT collection_id FROM facts)"
    )
    return _FIND_AND_SEARCH.format(facts=_FIND_SEARCHED, condition=condition)


def find_searched(first: Parameters, filter: DocumentFilter, access: Access) -> str:
    """Returns what finds a collection that is to be searched by meaning, and what counts in it.

    Its `counted` is how many chunks the filter leaves; NULL where that is all of them, and where
    the collection is small or has no index.

    Args:
        first: Tenant, collection's name, and up to how many chunks a collection is small.
        filter: Which documents count.
        access: Which of them the caller may read.
    """
    everything = unguarded(tenant="$1", collection="facts.collection_id")
    return _FIND_AND_COUNT.format(
        facts=_FIND_SEARCHED,
        known=everything if filter.is_empty else "false",
        conditions=document_conditions(filter, access, first),
    )
