"""Between messages and values of CorpusService, with the checks of its requests."""

import re
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.errors import ServiceError, StatusCode
from services.common.validation import Violations
from services.rag.core.intake import (
    DocumentDone,
    DocumentProgress,
    IncomingDocument,
    IngestEvent,
    IngestOutcome,
    IngestStage,
    IngestTotals,
)
from services.rag.core.model import CollectionStats, DocumentSummary
from services.rag.models import split_identity

__all__ = [
    "check_document_id",
    "collection_of",
    "header_of",
    "to_collection",
    "to_document",
    "to_ingest_response",
]

MAXIMUM_PART_BYTES = 1_048_576
MAXIMUM_DOCUMENT_ID_LENGTH = 512
MAXIMUM_METADATA_COUNT = 64

_COLLECTION = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_STAGES = {
    IngestStage.RECEIVED: pb.INGEST_STAGE_RECEIVED,
    IngestStage.CHUNKED: pb.INGEST_STAGE_CHUNKED,
    IngestStage.EMBEDDING: pb.INGEST_STAGE_EMBEDDING,
}
_OUTCOMES = {
    IngestOutcome.CREATED: pb.INGEST_OUTCOME_CREATED,
    IngestOutcome.UPDATED: pb.INGEST_OUTCOME_UPDATED,
    IngestOutcome.UNCHANGED: pb.INGEST_OUTCOME_UNCHANGED,
    IngestOutcome.FAILED: pb.INGEST_OUTCOME_FAILED,
}
_RETRYABLE = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.ABORTED,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.INTERNAL,
    }
)


def collection_of(options: pb.IngestOptions) -> str:
    """Reads where documents are to go.

    Raises:
        InvalidRequest: The name has a form that is not allowed.
    """
    violations = Violations()
    violations.require(
        _COLLECTION.fullmatch(options.collection) is not None,
        "options.collection",
        "Must have 1 to 64 characters of a-z, 0-9, '-', '_', '.' and begin with a letter or digit.",
    )
    violations.raise_found()
    return options.collection


def check_document_id(document_id: str, violations: Violations, *, field: str) -> None:
    """Checks the form of a document's id."""
    violations.check_text(
        field, document_id, minimum_length=1, maximum_length=MAXIMUM_DOCUMENT_ID_LENGTH
    )
    printable = document_id[:MAXIMUM_DOCUMENT_ID_LENGTH].isprintable()
    violations.require(printable, field, "Must not hold control characters or line breaks.")


def header_of(header: pb.DocumentHeader) -> IncomingDocument:
    """Reads the description of a document; its content is still to come.

    Metadata of too many entries is not looked into.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    violations = Violations()
    check_document_id(header.document_id, violations, field="header.document_id")
    for field, limit in (("source_uri", 2000), ("title", 500), ("media_type", 100)):
        value = getattr(header, field)
        violations.check_text(f"header.{field}", value, maximum_length=limit)
        violations.check_plain(f"header.{field}", value[:limit])
    if len(header.metadata) > MAXIMUM_METADATA_COUNT:
        violations.add("header.metadata", f"At most {MAXIMUM_METADATA_COUNT} entries are allowed.")
        violations.raise_found()
    for key, value in header.metadata.items():
        violations.check_text("header.metadata", key, minimum_length=1, maximum_length=100)
        violations.check_text(f"header.metadata[{key[:100]!r}]", value, maximum_length=2000)
        violations.check_plain("header.metadata", key + value)
    violations.raise_found()
    return IncomingDocument(
        document_id=header.document_id,
        source_uri=header.source_uri or header.document_id,
        title=header.title.strip(),
        media_type=header.media_type.strip(),
        metadata=dict(header.metadata),
    )


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
        return pb.IngestDocumentsResponse(result=_to_result(event))
    return pb.IngestDocumentsResponse(completed=_to_completed(event))


def _to_result(done: DocumentDone) -> pb.DocumentResult:
    return pb.DocumentResult(
        document_id=done.document_id,
        outcome=_OUTCOMES[done.outcome],
        chunk_count=done.chunk_count,
        computed_embedding_count=done.computed_embedding_count,
        failure=None if done.failure is None else _to_failure(done.failure),
    )


def _to_failure(error: ServiceError) -> pb.DocumentFailure:
    return pb.DocumentFailure(
        reason=error.error_reason,
        message=error.message,
        metadata=error.metadata,
        retryable=error.status_code in _RETRYABLE,
    )


def _to_completed(totals: IngestTotals) -> pb.IngestCompleted:
    counts = {outcome: totals.counts.get(outcome, 0) for outcome in IngestOutcome}
    return pb.IngestCompleted(
        created_count=counts[IngestOutcome.CREATED],
        updated_count=counts[IngestOutcome.UPDATED],
        unchanged_count=counts[IngestOutcome.UNCHANGED],
        failed_count=counts[IngestOutcome.FAILED],
        chunk_count=totals.chunk_count,
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
        create_time=_timestamp(summary.created_at),
        update_time=_timestamp(summary.updated_at),
        text=text,
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


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
