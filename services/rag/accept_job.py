"""Keeps documents as they are received, for a job to take in."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from services.common.errors import ServiceError
from services.rag.byte_budget import ByteBudget
from services.rag.core.errors import IngestBacklogFull
from services.rag.core.intake import IncomingDocument, IngestAccepted, IngestOptions
from services.rag.jobs_port import IngestJobs

__all__ = ["JobAcceptance"]

_CHECK_BYTES = 16 * 1024 * 1024


class JobAcceptance:
    """Makes jobs of calls that do not wait for their documents to be taken in.

    Args:
        jobs: Keeps jobs and documents.
        budget: Content that may be held in memory.
        backlog_bytes: Most content that a tenant's jobs may hold.
        released: Called when there is a job to work on.
    """

    def __init__(
        self,
        jobs: IngestJobs,
        *,
        budget: ByteBudget,
        backlog_bytes: int,
        released: Callable[[], None],
    ) -> None:
        self._jobs = jobs
        self._budget = budget
        self._backlog_bytes = backlog_bytes
        self._released = released

    async def accept(
        self, tenant_id: str, options: IngestOptions, documents: AsyncIterator[IncomingDocument]
    ) -> IngestAccepted:
        """Keeps all documents, or none.

        Args:
            tenant_id: Owner of the collection.
            options: How the documents are to be taken in.
            documents: The documents.

        Raises:
            IngestBacklogFull: The tenant's jobs hold too much already.
            ServiceError: The documents broke off.
        """
        job_id = await self._jobs.begin(tenant_id, options)
        try:
            document_count, refused_count = await self._keep(tenant_id, job_id, documents)
            await self._jobs.release(tenant_id, job_id)
        except BaseException:
            # What cannot be removed now is removed when it is old.
            with suppress(ServiceError):
                await asyncio.shield(self._jobs.abandon(tenant_id, job_id))
            raise
        self._released()
        return IngestAccepted(
            job_id=job_id, document_count=document_count, refused_count=refused_count
        )

    async def _keep(
        self, tenant_id: str, job_id: str, documents: AsyncIterator[IncomingDocument]
    ) -> tuple[int, int]:
        document_count = refused_count = 0
        unchecked_bytes = _CHECK_BYTES
        async for document in documents:
            byte_count = len(document.content)
            kept_bytes = byte_count + _label_bytes(document)
            unchecked_bytes += kept_bytes
            if unchecked_bytes >= _CHECK_BYTES:
                unchecked_bytes = 0
                await self._check_backlog(tenant_id, kept_bytes)
            await self._budget.acquire(byte_count)
            try:
                await self._jobs.add(tenant_id, job_id, document_count, document)
            finally:
                self._budget.release(byte_count)
            document_count += 1
            refused_count += document.fault is not None
        return document_count, refused_count

    async def _check_backlog(self, tenant_id: str, byte_count: int) -> None:
        if await self._jobs.waiting_bytes(tenant_id) + byte_count > self._backlog_bytes:
            raise IngestBacklogFull(tenant_id, self._backlog_bytes)


def _label_bytes(document: IncomingDocument) -> int:
    """Returns about how many bytes are kept of a document beside its content."""
    return sum(len(key) + len(value) for key, value in document.metadata.items())
