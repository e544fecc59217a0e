"""What comes in with a document and what becomes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType

from services.common.errors import ServiceError, StatusCode

__all__ = [
    "Chunking",
    "ChunkingStrategy",
    "DocumentDone",
    "DocumentProgress",
    "IncomingDocument",
    "IngestAccepted",
    "IngestEvent",
    "IngestOptions",
    "IngestOutcome",
    "IngestStage",
    "IngestTotals",
    "is_retryable",
]

_RETRYABLE = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.ABORTED,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.INTERNAL,
    }
)


def is_retryable(failure: ServiceError) -> bool:
    """Returns whether the same document may succeed later."""
    return failure.status_code in _RETRYABLE


class ChunkingStrategy(Enum):
    """Where documents are cut; the values are part of fingerprints."""

    STRUCTURE = "structure"
    SEMANTIC = "semantic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunking:
    """How documents are cut, as it was asked for.

    Attributes:
        strategy: Where.
        target_token_count: Size that chunks are cut to; 0 for the service's.
        maximum_token_count: Largest chunk; 0 for the service's.
    """

    strategy: ChunkingStrategy = ChunkingStrategy.STRUCTURE
    target_token_count: int = 0
    maximum_token_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """How an ingestion goes.

    Attributes:
        collection: Where documents go.
        chunking: How they are cut.
        background: Whether a job takes them in after the call.
    """

    collection: str
    chunking: Chunking = field(default_factory=Chunking)
    background: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingDocument:
    """A document as it was received.

    Attributes:
        document_id: Identity inside the collection.
        source_uri: Where it came from.
        title: Given title; empty to take the document's own.
        media_type: What the sender says it is; may be empty.
        metadata: The caller's own labels.
        tags: The caller's own tags, sorted.
        readers: Who may read it, sorted; empty for everyone of the tenant.
        language: ISO 639-1 code; empty to judge by the text.
        expires_at: When it ceases to be found; None for never.
        expected_content_digest: Version that it may replace; empty for any.
        content: The bytes.
        fault: What went wrong while it was received; its content is then incomplete.
    """

    document_id: str
    source_uri: str
    title: str = ""
    media_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tags: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    language: str = ""
    expires_at: datetime | None = None
    expected_content_digest: str = ""
    content: bytes = b""
    fault: ServiceError | None = None


class IngestStage(Enum):
    """How far a document is."""

    RECEIVED = "received"
    CHUNKED = "chunked"
    EMBEDDING = "embedding"


class IngestOutcome(Enum):
    """What became of a document; the values label metrics."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentProgress:
    """A document has reached a stage."""

    document_id: str
    stage: IngestStage
    chunk_count: int = 0
    embedded_chunk_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentDone:
    """A document is done with.

    Attributes:
        document_id: The document.
        outcome: What became of it.
        chunk_count: Chunks it has now; 0 where it failed.
        computed_embedding_count: Chunks whose vectors were computed now.
        pending_vector_count: Chunks whose vectors have still to be made.
        warnings: What a reader should know of how it was read.
        failure: Why it failed; None where it did not.
    """

    document_id: str
    outcome: IngestOutcome
    chunk_count: int = 0
    computed_embedding_count: int = 0
    pending_vector_count: int = 0
    warnings: tuple[str, ...] = ()
    failure: ServiceError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestTotals:
    """All documents are done with."""

    counts: Mapping[IngestOutcome, int]
    chunk_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestAccepted:
    """All documents are kept, and a job takes them in.

    Attributes:
        job_id: The job.
        document_count: Documents received.
        refused_count: Documents among them that were refused at once.
    """

    job_id: str
    document_count: int
    refused_count: int


IngestEvent = DocumentProgress | DocumentDone | IngestTotals | IngestAccepted
