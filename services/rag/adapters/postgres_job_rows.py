"""From documents of jobs to rows, and from rows to what they say."""

from datetime import datetime
from typing import Any

import asyncpg
import orjson

from services.common.errors import RelayedError, ServiceError, StatusCode
from services.rag.core.ingest_job import (
    ClaimedDocument,
    IngestJob,
    IngestJobState,
    JobLease,
    JobResult,
)
from services.rag.core.intake import (
    Chunking,
    ChunkingStrategy,
    DocumentDone,
    IncomingDocument,
    IngestOutcome,
)

__all__ = [
    "chunking_json",
    "claimed_of",
    "failure_json",
    "header_json",
    "job_of",
    "result_of",
]


def chunking_json(chunking: Chunking) -> str:
    """Writes how documents are to be cut."""
    return _json(
        {
            "strategy": chunking.strategy.value,
            "target_token_count": chunking.target_token_count,
            "maximum_token_count": chunking.maximum_token_count,
        }
    )


def header_json(document: IncomingDocument) -> str:
    """Writes all of a document but its id and content."""
    expires_at = document.expires_at
    return _json(
        {
            "source_uri": document.source_uri,
            "title": document.title,
            "media_type": document.media_type,
            "metadata": dict(document.metadata),
            "tags": document.tags,
            "readers": document.readers,
            "language": document.language,
            "expires_at": None if expires_at is None else expires_at.isoformat(),
            "expected_content_digest": document.expected_content_digest,
        }
    )


def failure_json(failure: ServiceError | None) -> str | None:
    """Writes why a document failed; None where it did not."""
    if failure is None:
        return None
    return _json(
        {
            "code": failure.status_code.value,
            "reason": failure.error_reason,
            "message": failure.message,
            "metadata": failure.metadata,
        }
    )


def job_of(row: asyncpg.Record) -> IngestJob:
    """Reads a row of `rag.ingest_job`; a job still being received counts as active."""
    state = row["state"]
    return IngestJob(
        job_id=row["job_id"],
        number=row["number"],
        collection=row["collection"],
        state=IngestJobState.ACTIVE if state == "receiving" else IngestJobState(state),
        document_count=row["document_count"],
        counts={each: row[f"{each.value}_count"] for each in IngestOutcome},
        chunk_count=row["chunk_count"],
        created_at=row["created_at"],
        completed_at=row["completed_at"],
    )


def result_of(row: asyncpg.Record) -> JobResult:
    """Reads what became of a document."""
    done = DocumentDone(
        document_id=row["document_id"],
        outcome=IngestOutcome(row["outcome"]),
        chunk_count=row["chunk_count"],
        computed_embedding_count=row["computed_embedding_count"],
        pending_vector_count=row["pending_vector_count"],
        warnings=tuple(row["warnings"]),
        failure=_failure(row["failure"]),
    )
    return JobResult(row["done_number"], done)


def claimed_of(row: asyncpg.Record, chunking: str) -> ClaimedDocument:
    """Reads a document that was claimed.

    Args:
        row: The document.
        chunking: `chunking` of its job.
    """
    header = orjson.loads(row["header"])
    expires_at = header["expires_at"]
    return ClaimedDocument(
        lease=JobLease(
            tenant_id=row["tenant_id"],
            job_id=row["job_id"],
            ordinal=row["ordinal"],
            token=row["lease_token"],
        ),
        collection=row["collection"],
        chunking=_chunking(chunking),
        document=IncomingDocument(
            document_id=row["document_id"],
            source_uri=header["source_uri"],
            title=header["title"],
            media_type=header["media_type"],
            metadata=header["metadata"],
            tags=tuple(header["tags"]),
            readers=tuple(header["readers"]),
            language=header["language"],
            expires_at=None if expires_at is None else datetime.fromisoformat(expires_at),
            expected_content_digest=header["expected_content_digest"],
        ),
        byte_count=row["byte_count"],
        attempt_count=row["attempt_count"],
        abandoned_count=row["abandoned_count"],
    )


def _chunking(text: str) -> Chunking:
    said = orjson.loads(text)
    return Chunking(
        strategy=ChunkingStrategy(said["strategy"]),
        target_token_count=said["target_token_count"],
        maximum_token_count=said["maximum_token_count"],
    )


def _failure(text: str | None) -> ServiceError | None:
    if text is None:
        return None
    said = orjson.loads(text)
    return RelayedError(
        said["message"],
        code=StatusCode(said["code"]),
        reason=said["reason"],
        metadata=said["metadata"],
    )


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value).decode()
