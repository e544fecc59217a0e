"""From values to the messages of CorpusService."""

from collections.abc import Mapping

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.errors import ServiceError
from services.rag.core.documents import CollectionStats, DocumentSummary, StoredChunk
from services.rag.core.ingest_job import IngestJob, IngestJobState
from services.rag.core.intake import (
    DocumentDone,
    DocumentProgress,
    IngestAccepted,
    IngestEvent,
    IngestOutcome,
    IngestStage,
    is_retryable,
)
from services.rag.core.receipts import DeletionReceipt
from services.rag.models import split_identity
from services.rag.times_convert import to_duration, to_timestamp

__all__ = [
    "to_chunk",
    "to_collection",
    "to_completed",
    "to_deletion_receipt",
    "to_document",
    "to_ingest_job",
    "to_ingest_response",
    "to_result",
]

_STAGES = {
    IngestStage.RECEIVED: pb.INGEST_STAGE_RECEIVED,
    IngestStage.CHUNKED: pb.INGEST_STAGE_CHUNKED,
    IngestStage.EMBEDDING: pb.INGEST_STAGE_EMBEDDING,
}
_TOLD = {
    None: pb.CACHE_INVALIDATION_UNSPECIFIED,
    False: pb.CACHE_INVALIDATION_QUEUED,
    True: pb.CACHE_INVALIDATION_DONE,
}
_JOB_STATES = {
    IngestJobState.ACTIVE: pb.INGEST_JOB_STATE_ACTIVE,
    IngestJobState.COMPLETED: pb.INGEST_JOB_STATE_COMPLETED,
    IngestJobState.CANCELLED: pb.INGEST_JOB_STATE_CANCELLED,
}
_OUTCOMES = {
    IngestOutcome.CREATED: pb.INGEST_OUTCOME_CREATED,
    IngestOutcome.UPDATED: pb.INGEST_OUTCOME_UPDATED,
    IngestOutcome.UNCHANGED: pb.INGEST_OUTCOME_UNCHANGED,
    IngestOutcome.FAILED: pb.INGEST_OUTCOME_FAILED,
}


def to_ingest_response(event: IngestEvent) -> pb.IngestDocumentsResponse:
    """Writes an event of an ingestion."""
    if isinstance(event, DocumentProgress):
        return pb.IngestDocumentsResponse(
            progress=pb.IngestProgress(
                document_id=event.document_id,
                stage=_STAGES[event.stage],
                chunk_count=event.chunk_count,
                embedded_chunk_count=event.embedded_chunk_count,
            )
        )
    if isinstance(event, DocumentDone):
        return pb.IngestDocumentsResponse(result=to_result(event))
    if isinstance(event, IngestAccepted):
        return pb.IngestDocumentsResponse(
            accepted=pb.IngestAccepted(
                job_id=event.job_id,
                document_count=event.document_count,
                refused_count=event.refused_count,
            )
        )
    return pb.IngestDocumentsResponse(completed=to_completed(event.counts, event.chunk_count))


def to_result(done: DocumentDone) -> pb.DocumentResult:
    """Writes what became of a document."""
    return pb.DocumentResult(
        document_id=done.document_id,
        outcome=_OUTCOMES[done.outcome],
        chunk_count=done.chunk_count,
        computed_embedding_count=done.computed_embedding_count,
        failure=None if done.failure is None else _to_failure(done.failure),
        pending_vector_count=done.pending_vector_count,
        warnings=done.warnings,
    )


def _to_failure(error: ServiceError) -> pb.DocumentFailure:
    return pb.DocumentFailure(
        reason=error.error_reason,
        message=error.message,
        metadata=error.metadata,
        retryable=is_retryable(error),
    )


def to_completed(totals: Mapping[IngestOutcome, int], chunk_count: int) -> pb.IngestCompleted:
    """Sums up an ingestion."""
    counts = {outcome: totals.get(outcome, 0) for outcome in IngestOutcome}
    return pb.IngestCompleted(
        created_count=counts[IngestOutcome.CREATED],
        updated_count=counts[IngestOutcome.UPDATED],
        unchanged_count=counts[IngestOutcome.UNCHANGED],
        failed_count=counts[IngestOutcome.FAILED],
        chunk_count=chunk_count,
    )


def to_document(summary: DocumentSummary, *, text: str = "") -> pb.Document:
    """Writes a stored document."""
    return pb.Document(
        collection=summary.collection,
        document_id=summary.document_id,
        title=summary.title,
        source_uri=summary.source_uri,
        media_type=summary.media_type,
        content_digest=summary.content_digest,
        character_count=summary.character_count,
        chunk_count=summary.chunk_count,
        metadata=summary.metadata,
        create_time=to_timestamp(summary.created_at),
        update_time=to_timestamp(summary.updated_at),
        text=text,
        tags=summary.tags,
        readers=summary.readers,
        language=summary.language,
        expire_time=None if summary.expires_at is None else to_timestamp(summary.expires_at),
        page_count=summary.page_count,
        version=summary.version,
        pending_vector_count=summary.pending_vector_count,
    )


def to_chunk(chunk: StoredChunk) -> pb.Chunk:
    """Writes a stored chunk."""
    return pb.Chunk(
        chunk_id=chunk.chunk_id,
        ordinal=chunk.ordinal,
        char_start=chunk.char_start,
        char_end=chunk.char_end,
        page_start=chunk.page_start,
        page_end=chunk.page_end,
        heading_path=chunk.heading_path,
        header=chunk.header,
        text=chunk.text,
        token_count=chunk.token_estimate,
        text_digest=chunk.text_digest,
        embedded=chunk.has_vector,
    )


def to_deletion_receipt(
    receipt: DeletionReceipt, *, dropped_count: int, told: bool | None
) -> pb.DeletionReceipt:
    """Writes what a deletion did.

    Args:
        receipt: What the store says of it.
        dropped_count: Documents of jobs that were dropped.
        told: Whether the cache knows of it; None where it has nothing to know.
    """
    return pb.DeletionReceipt(
        document_count=receipt.document_count,
        chunk_count=receipt.chunk_count,
        posting_count=receipt.posting_count,
        embedding_count=receipt.embedding_count,
        dropped_document_count=dropped_count,
        conversation_count=receipt.conversation_count,
        cache_invalidation=_TOLD[told],
        collection_version=receipt.collection_version,
        duration=to_duration(receipt.duration_seconds),
    )


def to_ingest_job(job: IngestJob) -> pb.IngestJob:
    """Writes a job."""
    return pb.IngestJob(
        job_id=job.job_id,
        collection=job.collection,
        state=_JOB_STATES[job.state],
        document_count=job.document_count,
        totals=to_completed(job.counts, job.chunk_count),
        create_time=to_timestamp(job.created_at),
        complete_time=None if job.completed_at is None else to_timestamp(job.completed_at),
    )


def to_collection(stats: CollectionStats) -> pb.Collection:
    """Writes a collection."""
    return pb.Collection(
        name=stats.name,
        document_count=stats.document_count,
        chunk_count=stats.chunk_count,
        embedding_model=split_identity(stats.embedding_model or "")[0],
        embedding_dimension=stats.embedding_dimension or 0,
    )
