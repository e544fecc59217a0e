"""Documents that are taken in after the call that sent them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from services.rag.core.intake import Chunking, DocumentDone, IncomingDocument, IngestOutcome

__all__ = [
    "ClaimedDocument",
    "IngestJob",
    "IngestJobState",
    "JobLease",
    "JobResult",
    "Settlement",
    "pause_before_retry",
]

_LONGEST_PAUSE_SECONDS = 60.0


class IngestJobState(Enum):
    """How far a job is."""

    ACTIVE = "active"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestJob:
    """A job as it is.

    Attributes:
        job_id: Identity inside the tenant.
        number: Place in the order in which all tenants' jobs began.
        collection: Where its documents go.
        state: How far it is.
        document_count: Documents it was given.
        counts: Documents it is done with, by what became of them.
        chunk_count: Chunks of those created and updated.
        created_at: When all its documents had been received.
        completed_at: When it ended; None before.
    """

    job_id: str
    number: int
    collection: str
    state: IngestJobState
    document_count: int
    counts: Mapping[IngestOutcome, int]
    chunk_count: int
    created_at: datetime
    completed_at: datetime | None

    @property
    def done_count(self) -> int:
        """Documents it is done with."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLease:
    """The right to take in a document of a job, until it expires or the job is cancelled.

    Attributes:
        tenant_id: Owner of the job.
        job_id: The job.
        ordinal: Place of the document in the job, from 0.
        token: Distinguishes this lease from every other one.
    """

    tenant_id: str
    job_id: str
    ordinal: int
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDocument:
    """A document of a job, to be taken in by whoever has claimed it.

    Attributes:
        lease: The right to do so.
        collection: Where it goes.
        chunking: How it is to be cut.
        document: What its header says; the content has still to be loaded.
        byte_count: Size of the content.
        attempt_count: How often it was claimed, this time included.
        abandoned_count: How often a lease on it expired, as happens when a process dies.
    """

    lease: JobLease
    collection: str
    chunking: Chunking
    document: IncomingDocument
    byte_count: int
    attempt_count: int
    abandoned_count: int


@dataclass(frozen=True, slots=True)
class JobResult:
    """What became of a document of a job; results are numbered from 1 in the order they came."""

    number: int
    done: DocumentDone


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What is noted with a job in the transaction that stores a document of it.

    Attributes:
        lease: Must still be held, else nothing is stored.
        computed_embedding_count: Vectors that were computed now.
        warnings: What a reader should know of how the document was read.
    """

    lease: JobLease
    computed_embedding_count: int = 0
    warnings: tuple[str, ...] = ()


def pause_before_retry(attempt_count: int) -> float:
    """Returns how long to wait after so many attempts, in seconds: twice as long each time."""
    return min(float(2 ** min(attempt_count - 1, 10)), _LONGEST_PAUSE_SECONDS)
