"""What the use cases need of the place where jobs and received documents are kept."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from services.rag.core.filters import SERVICE, Access
from services.rag.core.ingest_job import (
    ClaimedDocument,
    IngestJob,
    JobLease,
    JobResult,
)
from services.rag.core.intake import DocumentDone, IncomingDocument, IngestOptions

__all__ = ["IngestJobs"]


class IngestJobs(Protocol):
    """The jobs of all tenants. Every method may raise `StoreUnavailable`."""

    async def begin(self, tenant_id: str, options: IngestOptions) -> str:
        """Begins a job that nobody works on before it is released, and returns its id."""
        ...

    async def add(
        self, tenant_id: str, job_id: str, ordinal: int, document: IncomingDocument
    ) -> None:
        """Keeps a document for a job; one that was refused is done with at once.

        Raises:
            IngestJobNotFound: The job is gone: it was received for too long.
        """
        ...

    async def release(self, tenant_id: str, job_id: str) -> IngestJob:
        """Says that all documents of a job are kept; raises `IngestJobNotFound`."""
        ...

    async def abandon(self, tenant_id: str, job_id: str) -> None:
        """Drops a job that was not released, with all it holds."""
        ...

    async def waiting_bytes(self, tenant_id: str) -> int:
        """Returns how many bytes of contents a tenant's jobs hold."""
        ...

    async def get(self, tenant_id: str, job_id: str) -> IngestJob:
        """Returns a job; raises `IngestJobNotFound`."""
        ...

    async def list_jobs(
        self, tenant_id: str, *, limit: int, before: int | None = None, active_only: bool = False
    ) -> tuple[IngestJob, ...]:
        """Returns jobs by descending number, below `before`."""
        ...

    async def list_results(
        self, tenant_id: str, job_id: str, *, limit: int, after: int = 0
    ) -> tuple[JobResult, ...]:
        """Returns results by number, above `after`."""
        ...

    async def cancel(self, tenant_id: str, job_id: str) -> IngestJob:
        """Ends a job, and what it is not done with; raises `IngestJobNotFound`."""
        ...

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
        ...

    async def claim(self, *, lease_seconds: float) -> ClaimedDocument | None:
        """Claims a document of any tenant, of those with the fewest under way; None without one.

        Of documents with the same id only the first that came in is given away.
        """
        ...

    async def load_content(self, lease: JobLease) -> bytes:
        """Returns the content of a claimed document; raises `IngestCancelled`."""
        ...

    async def extend(self, lease: JobLease, *, lease_seconds: float) -> bool:
        """Makes a lease last longer from now on; returns whether it is held."""
        ...

    async def finish(self, lease: JobLease, done: DocumentDone) -> bool:
        """Notes what became of a document; returns whether the lease was held."""
        ...

    async def put_back(self, lease: JobLease, *, pause_seconds: float) -> None:
        """Gives a document back, to be claimed again after a pause."""
        ...

    async def forget(self, *, retention_seconds: float, silence_seconds: float) -> int:
        """Removes jobs that ended too long ago, or whose sender has been silent too long.

        Returns:
            How many.
        """
        ...

    def alone(self, task: str) -> AbstractAsyncContextManager[bool]:
        """Yields whether no other process has entered the same context, which it then cannot."""
        ...
