"""The jobs that take documents in, on PostgreSQL."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from zlib import crc32

import asyncpg

from services.common.errors import ServiceError
from services.rag.adapters.postgres_job_results import (
    end_unfinished,
    hold_job,
    note_result,
)
from services.rag.adapters.postgres_job_rows import (
    chunking_json,
    claimed_of,
    failure_json,
    header_json,
    job_of,
    result_of,
)
from services.rag.adapters.postgres_pool import Connection, PostgresPool
from services.rag.core.errors import IngestCancelled, IngestJobNotFound
from services.rag.core.filters import SERVICE, Access
from services.rag.core.ingest_job import ClaimedDocument, IngestJob, JobLease, JobResult
from services.rag.core.intake import DocumentDone, IncomingDocument, IngestOptions

__all__ = ["PostgresJobs"]

# First key of our advisory locks; any number that nobody else uses in the same database.
_ALONE_LOCK = 1_742_203
# Jobs looked into for a document, those of the least busy tenants first.
_CANDIDATE_COUNT = 64

_BEGIN = """
INSERT INTO rag.ingest_job (tenant_id, collection, chunking) VALUES ($1, $2, $3::text::jsonb)
RETURNING job_id
"""
_GROW = """
UPDATE rag.ingest_job SET
    document_count = document_count + 1, failed_count = failed_count + $3, touched_at = now()
WHERE tenant_id = $1 AND job_id = $2 AND state = 'receiving'
RETURNING collection, done_count
"""
_ADD = """
INSERT INTO rag.ingest_document (
    tenant_id, job_id, ordinal, collection, document_id, header, byte_count, content, outcome,
    done_number, failure
) VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9, $10, $11::text::jsonb)
"""
_RELEASE = """
UPDATE rag.ingest_job SET
    state = CASE WHEN done_count = document_count THEN 'completed' ELSE 'active' END,
    completed_at = CASE WHEN done_count = document_count THEN now() END,
    created_at = now()
WHERE tenant_id = $1 AND job_id = $2 AND state = 'receiving'
RETURNING *
"""
_ABANDON = """
DELETE FROM rag.ingest_job WHERE tenant_id = $1 AND job_id = $2 AND state = 'receiving'
"""
_WAITING_BYTES = """
SELECT coalesce(sum(byte_count + pg_column_size(header)), 0)::bigint
FROM rag.ingest_document WHERE tenant_id = $1 AND outcome IS NULL
"""
_GET = """
SELECT * FROM rag.ingest_job WHERE tenant_id = $1 AND job_id = $2 AND state <> 'receiving'
"""
_LIST = """
SELECT * FROM rag.ingest_job
WHERE tenant_id = $1 AND ($2::bigint IS NULL OR number < $2) AND state <> 'receiving'
    AND (state = 'active' OR NOT $3)
ORDER BY number DESC LIMIT $4
"""
_RESULTS = """
SELECT document_id, outcome, done_number, chunk_count, computed_embedding_count,
    pending_vector_count, warnings, failure::text AS failure
FROM rag.ingest_document
WHERE tenant_id = $1 AND job_id = $2 AND outcome IS NOT NULL AND done_number > $3
ORDER BY done_number LIMIT $4
"""
_CANCEL = """
UPDATE rag.ingest_job SET state = 'cancelled', completed_at = now()
WHERE tenant_id = $1 AND job_id = $2 RETURNING *
"""
_JOBS_WITH = """
SELECT DISTINCT job_id FROM rag.ingest_document
WHERE tenant_id = $1 AND collection = $2 AND outcome IS NULL
    AND ($3::text[] IS NULL OR document_id = ANY($3))
ORDER BY job_id
"""
# Documents nobody works on, whose pause is over, and before which none with their id came in. The
# state of another's job is looked up row by row: joined, all jobs would be read for each of them.
_FREE = """
free.outcome IS NULL AND (free.lease_until IS NULL OR free.lease_until <= now())
AND (free.retry_at IS NULL OR free.retry_at <= now())
AND NOT EXISTS (
    SELECT FROM rag.ingest_document AS other
    WHERE other.tenant_id = free.tenant_id AND other.collection = free.collection
        AND other.document_id = free.document_id AND other.outcome IS NULL
        AND other.number <> free.number
        AND (other.number < free.number OR other.lease_until > now())
        AND (
            SELECT state FROM rag.ingest_job AS its_job
            WHERE its_job.tenant_id = other.tenant_id AND its_job.job_id = other.job_id
        ) = 'active'
)
"""
_CANDIDATES = f"""
WITH busy AS (
    SELECT tenant_id, count(*) AS lease_count
    FROM rag.ingest_document
    WHERE outcome IS NULL AND lease_until IS NOT NULL AND lease_until > now()
    GROUP BY tenant_id
)
SELECT tenant_id, job_id, chunking::text AS chunking
FROM rag.ingest_job AS job LEFT JOIN busy USING (tenant_id)
WHERE state = 'active' AND EXISTS (
    SELECT FROM rag.ingest_document AS free
    WHERE free.tenant_id = job.tenant_id AND free.job_id = job.job_id AND {_FREE}
)
ORDER BY coalesce(lease_count, 0), number LIMIT {_CANDIDATE_COUNT}
"""  # noqa: S608
_CLAIM = f"""
UPDATE rag.ingest_document SET
    lease_token = nextval('rag.ingest_lease'),
    lease_until = now() + make_interval(secs => $3),
    attempt_count = attempt_count + 1,
    abandoned_count = abandoned_count + (lease_until IS NOT NULL)::integer
WHERE (tenant_id, job_id, ordinal) = (
    SELECT tenant_id, job_id, ordinal
    FROM rag.ingest_document AS free
    WHERE tenant_id = $1 AND job_id = $2 AND {_FREE}
    ORDER BY ordinal LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
)
RETURNING tenant_id, job_id, ordinal, collection, document_id, header::text AS header, byte_count,
    attempt_count, abandoned_count, lease_token
"""  # noqa: S608
_HELD = "tenant_id = $1 AND job_id = $2 AND ordinal = $3 AND lease_token = $4 AND outcome IS NULL"
_LOAD = f"SELECT content FROM rag.ingest_document WHERE {_HELD}"  # noqa: S608
_EXTEND = f"""
UPDATE rag.ingest_document SET lease_until = now() + make_interval(secs => $5) WHERE {_HELD}
"""  # noqa: S608
_PUT_BACK = f"""
UPDATE rag.ingest_document
SET lease_until = NULL, lease_token = NULL, retry_at = now() + make_interval(secs => $5)
WHERE {_HELD}
"""  # noqa: S608
_FORGET = """
DELETE FROM rag.ingest_job
WHERE completed_at < now() - make_interval(secs => $1)
    OR (state = 'receiving' AND touched_at < now() - make_interval(secs => $2))
"""


class PostgresJobs:
    """The jobs of all tenants, and the documents they have still to take in.

    Every method may raise `StoreUnavailable`.

    Args:
        pool: Connections to the database.
    """

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def begin(self, tenant_id: str, options: IngestOptions) -> str:
        """Begins a job that nobody works on before it is released, and returns its id."""
        async with self._pool.writing(tenant_id) as connection:
            job_id: str = await connection.fetchval(
                _BEGIN, tenant_id, options.collection, chunking_json(options.chunking)
            )
        return job_id

    async def add(
        self, tenant_id: str, job_id: str, ordinal: int, document: IncomingDocument
    ) -> None:
        """Keeps a document for a job; one that was refused is done with at once.

        Raises:
            IngestJobNotFound: The job is gone: it was received for too long.
        """
        refused = document.fault is not None
        async with self._pool.writing(tenant_id) as connection:
            job = await connection.fetchrow(_GROW, tenant_id, job_id, int(refused))
            if job is None:
                raise IngestJobNotFound(job_id)
            await connection.execute(
                _ADD,
                tenant_id,
                job_id,
                ordinal,
                job["collection"],
                document.document_id,
                header_json(document),
                len(document.content),
                None if refused else document.content,
                "failed" if refused else None,
                job["done_count"] if refused else None,
                failure_json(document.fault),
            )

    async def release(self, tenant_id: str, job_id: str) -> IngestJob:
        """Says that all documents of a job are kept.

        Raises:
            IngestJobNotFound: The job is gone.
        """
        async with self._pool.writing(tenant_id) as connection:
            return _job(await connection.fetchrow(_RELEASE, tenant_id, job_id), job_id)

    async def abandon(self, tenant_id: str, job_id: str) -> None:
        """Drops a job that was not released, with all it holds."""
        async with self._pool.writing(tenant_id) as connection:
            await connection.execute(_ABANDON, tenant_id, job_id)

    async def waiting_bytes(self, tenant_id: str) -> int:
        """Returns how many bytes a tenant's jobs hold that they have still to take in."""
        async with self._pool.reading(tenant_id) as connection:
            count: int = await connection.fetchval(_WAITING_BYTES, tenant_id)
        return count

    async def get(self, tenant_id: str, job_id: str) -> IngestJob:
        """Returns a job.

        Raises:
            IngestJobNotFound: There is none, or it is still being received.
        """
        async with self._pool.reading(tenant_id) as connection:
            return _job(await connection.fetchrow(_GET, tenant_id, job_id), job_id)

    async def list_jobs(
        self, tenant_id: str, *, limit: int, before: int | None = None, active_only: bool = False
    ) -> tuple[IngestJob, ...]:
        """Returns jobs by descending number, below `before`."""
        async with self._pool.reading(tenant_id) as connection:
            rows = await connection.fetch(_LIST, tenant_id, before, active_only, limit)
        return tuple(job_of(row) for row in rows)

    async def list_results(
        self, tenant_id: str, job_id: str, *, limit: int, after: int = 0
    ) -> tuple[JobResult, ...]:
        """Returns results by number, above `after`."""
        async with self._pool.reading(tenant_id) as connection:
            rows = await connection.fetch(_RESULTS, tenant_id, job_id, after, limit)
        return tuple(result_of(row) for row in rows)

    async def cancel(self, tenant_id: str, job_id: str) -> IngestJob:
        """Ends a job, and what it is not done with.

        Raises:
            IngestJobNotFound: There is none.
        """
        async with self._pool.writing(tenant_id) as connection:
            job = await hold_job(connection, tenant_id, job_id)
            if job is None or job["state"] == "receiving":
                raise IngestJobNotFound(job_id)
            if job["state"] == "active":
                await end_unfinished(connection, job, None)
                job = await connection.fetchrow(_CANCEL, tenant_id, job_id)
            return _job(job, job_id)

    async def drop_documents(
        self,
        tenant_id: str,
        collection: str,
        document_ids: Sequence[str] | None,
        *,
        access: Access = SERVICE,
    ) -> int:
        """Ends the documents of a collection that no job is done with, and returns how many.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            document_ids: Which ones; None for all.
            access: Which of them the caller may read; others stay.
        """
        chosen = None if document_ids is None else list(document_ids)
        count = 0
        async with self._pool.writing(tenant_id) as connection:
            for row in await connection.fetch(_JOBS_WITH, tenant_id, collection, chosen):
                job = await hold_job(connection, tenant_id, row["job_id"])
                if job is not None and job["state"] == "active":
                    count += await end_unfinished(connection, job, chosen, access)
        return count

    async def claim(self, *, lease_seconds: float) -> ClaimedDocument | None:
        """Claims a document of any tenant, of those with the fewest under way; None without one.

        Of documents with the same id only the first that came in is given away.
        """
        async with self._pool.connection() as connection:
            for job in await connection.fetch(_CANDIDATES):
                row = await connection.fetchrow(
                    _CLAIM, job["tenant_id"], job["job_id"], lease_seconds
                )
                if row is not None:
                    return claimed_of(row, job["chunking"])
        return None

    async def load_content(self, lease: JobLease) -> bytes:
        """Returns the content of a claimed document.

        Raises:
            IngestCancelled: The lease is not held any more.
        """
        async with self._pool.reading_once(lease.tenant_id) as connection:
            content: bytes | None = await connection.fetchval(_LOAD, *_key(lease))
        if content is None:
            raise IngestCancelled
        return content

    async def extend(self, lease: JobLease, *, lease_seconds: float) -> bool:
        """Makes a lease last longer from now on; returns whether it is held."""
        async with self._pool.writing(lease.tenant_id) as connection:
            tag: str = await connection.execute(_EXTEND, *_key(lease), lease_seconds)
        return tag == "UPDATE 1"

    async def finish(self, lease: JobLease, done: DocumentDone) -> bool:
        """Notes what became of a document; returns whether the lease was held."""
        async with self._pool.writing(lease.tenant_id) as connection:
            return await note_result(connection, lease, done)

    async def put_back(self, lease: JobLease, *, pause_seconds: float) -> None:
        """Gives a document back, to be claimed again after a pause."""
        async with self._pool.writing(lease.tenant_id) as connection:
            await connection.execute(_PUT_BACK, *_key(lease), pause_seconds)

    async def forget(self, *, retention_seconds: float, silence_seconds: float) -> int:
        """Removes jobs that ended too long ago, or whose sender has been silent too long.

        Returns:
            How many.
        """
        async with self._pool.system() as connection:
            tag: str = await connection.execute(_FORGET, retention_seconds, silence_seconds)
        return int(tag.rpartition(" ")[2])

    @asynccontextmanager
    async def alone(self, task: str) -> AsyncIterator[bool]:
        """Yields whether no other process has entered the same context, which it then cannot.

        A process that dies leaves it.
        """
        key = _ALONE_LOCK, crc32(task.encode()) & 0x7FFF_FFFF
        async with self._pool.connection() as connection:
            entered: bool = await connection.fetchval(
                "SELECT pg_try_advisory_lock($1::integer, $2::integer)", *key
            )
            try:
                yield entered
            finally:
                if entered:
                    await _leave(connection, key)


async def _leave(connection: Connection, key: tuple[int, int]) -> None:
    # Connections go back to the pool with what was done to them.
    left = False
    try:
        with suppress(ServiceError, asyncpg.PostgresError, asyncpg.InterfaceError):
            left = await connection.fetchval(
                "SELECT pg_advisory_unlock($1::integer, $2::integer)", *key
            )
    finally:
        if not left:
            connection.terminate()


def _key(lease: JobLease) -> tuple[str, str, int, int]:
    return lease.tenant_id, lease.job_id, lease.ordinal, lease.token


def _job(row: asyncpg.Record | None, job_id: str) -> IngestJob:
    if row is None:
        raise IngestJobNotFound(job_id)
    return job_of(row)
