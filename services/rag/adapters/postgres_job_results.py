"""Noting what became of documents of jobs, inside a transaction of the caller's.

Whoever does holds the row of the job first and that of the document second; so the results of a job
are numbered without gaps in the order in which they are committed.
"""

from collections.abc import Sequence

import asyncpg

from services.rag.adapters.postgres_job_rows import failure_json
from services.rag.adapters.postgres_pool import Connection
from services.rag.core.errors import IngestCancelled
from services.rag.core.filters import SERVICE, Access
from services.rag.core.ingest_job import JobLease, Settlement
from services.rag.core.intake import DocumentDone, IngestOutcome

__all__ = ["end_unfinished", "hold_job", "note_result", "settle"]

_HOLD_JOB = """
SELECT * FROM rag.ingest_job WHERE tenant_id = $1 AND job_id = $2 FOR NO KEY UPDATE
"""
_NOTE_DOCUMENT = """
UPDATE rag.ingest_document SET
    outcome = $5, done_number = $6, chunk_count = $7, computed_embedding_count = $8,
    pending_vector_count = $9, warnings = $10, failure = $11::text::jsonb,
    content = NULL, lease_until = NULL
WHERE tenant_id = $1 AND job_id = $2 AND ordinal = $3 AND lease_token = $4 AND outcome IS NULL
"""
_END_DOCUMENTS = """
WITH unfinished AS (
    SELECT ordinal, row_number() OVER (ORDER BY ordinal) AS place
    FROM rag.ingest_document
    WHERE tenant_id = $1 AND job_id = $2 AND outcome IS NULL
        AND ($5::text[] IS NULL OR document_id = ANY($5))
        AND ($6::text[] IS NULL OR header->'readers' = '[]' OR header->'readers' ?| $6)
)
UPDATE rag.ingest_document AS document SET
    outcome = 'failed', done_number = $3 + place, failure = $4::text::jsonb,
    content = NULL, lease_until = NULL
FROM unfinished
WHERE tenant_id = $1 AND job_id = $2 AND document.ordinal = unfinished.ordinal
    AND outcome IS NULL
"""
_COUNT = {
    outcome: f"""
    UPDATE rag.ingest_job SET
        {outcome.value}_count = {outcome.value}_count + $3,
        chunk_count = chunk_count + $4,
        state = CASE WHEN state = 'active' AND done_count + $3 = document_count
            THEN 'completed' ELSE state END,
        completed_at = CASE WHEN state = 'active' AND done_count + $3 = document_count
            THEN now() ELSE completed_at END
    WHERE tenant_id = $1 AND job_id = $2
    """  # noqa: S608
    for outcome in IngestOutcome
}
_CHUNKS_COUNT = frozenset({IngestOutcome.CREATED, IngestOutcome.UPDATED})


async def settle(
    connection: Connection,
    settlement: Settlement,
    *,
    replaced: bool,
    chunk_count: int,
    pending_vector_count: int,
) -> None:
    """Notes that a document is stored, in the transaction that stores it.

    Args:
        connection: In that transaction.
        settlement: What there is to note.
        replaced: Whether there was an earlier version.
        chunk_count: Chunks it has.
        pending_vector_count: Chunks without their vector.

    Raises:
        IngestCancelled: The lease is not held any more; the document must not be stored.
    """
    done = DocumentDone(
        document_id="",
        outcome=IngestOutcome.UPDATED if replaced else IngestOutcome.CREATED,
        chunk_count=chunk_count,
        computed_embedding_count=settlement.computed_embedding_count,
        pending_vector_count=pending_vector_count,
        warnings=settlement.warnings,
    )
    if not await note_result(connection, settlement.lease, done):
        raise IngestCancelled


async def note_result(connection: Connection, lease: JobLease, done: DocumentDone) -> bool:
    """Notes what became of a document; returns whether the lease was held."""
    job = await hold_job(connection, lease.tenant_id, lease.job_id)
    if job is None:
        return False
    noted = await connection.execute(
        _NOTE_DOCUMENT,
        lease.tenant_id,
        lease.job_id,
        lease.ordinal,
        lease.token,
        done.outcome.value,
        job["done_count"] + 1,
        done.chunk_count,
        done.computed_embedding_count,
        done.pending_vector_count,
        list(done.warnings),
        failure_json(done.failure),
    )
    if noted != "UPDATE 1":
        return False
    chunk_count = done.chunk_count if done.outcome in _CHUNKS_COUNT else 0
    await connection.execute(_COUNT[done.outcome], lease.tenant_id, lease.job_id, 1, chunk_count)
    return True


async def hold_job(connection: Connection, tenant_id: str, job_id: str) -> asyncpg.Record | None:
    """Returns a job, and keeps others from changing it; None where it is gone."""
    return await connection.fetchrow(_HOLD_JOB, tenant_id, job_id)


async def end_unfinished(
    connection: Connection,
    job: asyncpg.Record,
    document_ids: Sequence[str] | None,
    access: Access = SERVICE,
) -> int:
    """Ends the documents that a job is not done with, and returns how many.

    Args:
        connection: In a transaction.
        job: The job, held.
        document_ids: Which ones; None for all.
        access: Which of them the caller may read; others are left alone.
    """
    key = job["tenant_id"], job["job_id"]
    chosen = None if document_ids is None else list(document_ids)
    tag = await connection.execute(
        _END_DOCUMENTS,
        *key,
        job["done_count"],
        failure_json(IngestCancelled()),
        chosen,
        None if access.principals is None else list(access.principals),
    )
    count = int(tag.rpartition(" ")[2])
    await connection.execute(_COUNT[IngestOutcome.FAILED], *key, count, 0)
    return count
