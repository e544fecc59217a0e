"""What comes in with a document and what becomes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from services.common.errors import ServiceError

__all__ = [
    "DocumentDone",
    "DocumentProgress",
    "IncomingDocument",
    "IngestEvent",
    "IngestOutcome",
    "IngestStage",
    "IngestTotals",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingDocument:
    """A document as it was received.

    Attributes:
        document_id: Identity inside the collection.
        source_uri: Where it came from.
        title: Given title; empty to take the document's own.
        media_type: What the sender says it is; may be empty.
        metadata: The caller's own labels.
        content: The bytes.
        fault: What went wrong while it was received; its content is then incomplete.
    """

    document_id: str
    source_uri: str
    title: str = ""
    media_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
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
        failure: Why it failed; None where it did not.
    """

    document_id: str
    outcome: IngestOutcome
    chunk_count: int = 0
    computed_embedding_count: int = 0
    failure: ServiceError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestTotals:
    """All documents are done with."""

    counts: Mapping[IngestOutcome, int]
    chunk_count: int


IngestEvent = DocumentProgress | DocumentDone | IngestTotals
