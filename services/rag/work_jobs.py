"""Works off the documents of jobs, side by side with other replicas.

A document is claimed under a lease that is extended while the work goes on. Where a process dies,
the lease expires and another one begins anew; what it finds stored already counts as unchanged.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace

from services.common.clock import Clock
from services.common.errors import ServiceError, StatusCode
from services.common.identity import Identity, current_identity
from services.rag.core.errors import IngestCancelled, UnexpectedFailure
from services.rag.core.ingest_job import ClaimedDocument, pause_before_retry
from services.rag.core.intake import (
    DocumentDone,
    DocumentProgress,
    IngestOutcome,
    is_retryable,
)
from services.rag.ingest import Ingestion
from services.rag.invalidate import InvalidationDelivery
from services.rag.jobs_port import IngestJobs
from services.rag.statistics import RagStatistics

__all__ = ["JobLimits", "JobWork"]

_logger = logging.getLogger(__name__)

# How soon work is seen that other processes have accepted.
_INTERVAL_SECONDS = 2.0
# A document at which so many processes have died is not given to another one.
_MOST_ABANDONED = 3
# An hour or so, at the longest pauses.
_MOST_ATTEMPTS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """Sizes of the work.

    Attributes:
        document_concurrency: Documents worked on at the same time, of all jobs.
        lease_seconds: How long a claim lasts without a sign of life.
    """

    document_concurrency: int
    lease_seconds: float


class JobWork:
    """Takes in the documents of jobs.

    Args:
        jobs: Has the documents.
        ingestion: Takes them in.
        clock: Waits where there is nothing to do.
        statistics: Counts documents.
        delivery: Tells the cache of changes.
        limits: Sizes of the work.
    """

    def __init__(
        self,
        jobs: IngestJobs,
        ingestion: Ingestion,
        *,
        clock: Clock,
        statistics: RagStatistics,
        delivery: InvalidationDelivery,
        limits: JobLimits,
    ) -> None:
        self._jobs = jobs
        self._ingestion = ingestion
        self._clock = clock
        self._statistics = statistics
        self._delivery = delivery
        self._limits = limits
        self._released = asyncio.Event()

    def wake(self) -> None:
        """Says that there is something new to do."""
        self._released.set()

    async def run(self) -> None:
        """Works as long as there is work, and waits for more; never returns."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._limits.document_concurrency):
                group.create_task(self._work())

    async def _work(self) -> None:
        failure_count = 0
        while True:
            # Before the look: what comes in meanwhile is looked for again.
            self._released.clear()
            try:
                worked = await self._work_on_next()
            except ServiceError as error:
                failure_count += 1
                if failure_count == 1:
                    _logger.warning("jobs wait", extra={"cause": error.message})
                await self._clock.sleep(pause_before_retry(failure_count))
            except Exception:
                # Jobs must go on, whatever is wrong with one document.
                failure_count += 1
                _logger.exception("work on a job failed")
                await self._clock.sleep(pause_before_retry(failure_count))
            else:
                failure_count = 0
                if not worked:
                    await self._wait()

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_INTERVAL_SECONDS):
                await self._released.wait()

    async def _work_on_next(self) -> bool:
        """Takes in a document; returns whether there was one.

        Raises:
            ServiceError: It could not be taken in now, which is likely to be so for others too.
        """
        claimed = await self._jobs.claim(lease_seconds=self._limits.lease_seconds)
        if claimed is None:
            return False
        # Others may have more to claim.
        self._released.set()
        current_identity.set(Identity(claimed.lease.tenant_id))
        try:
            done = await self._under_lease(claimed)
        except asyncio.CancelledError:
            # Another process need not wait until the lease expires.
            with suppress(ServiceError):
                await asyncio.shield(self._jobs.put_back(claimed.lease, pause_seconds=0.0))
            raise
        if done is not None:
            await self._conclude(claimed, done)
        return True

    async def _take_in(self, claimed: ClaimedDocument) -> DocumentDone | None:
        """Takes in a document; returns None where the lease was lost meanwhile."""
        if claimed.abandoned_count >= _MOST_ABANDONED:
            return _failed(claimed, UnexpectedFailure())
        budget, byte_count = self._ingestion.content_budget, claimed.byte_count
        await budget.acquire(byte_count)
        try:
            target = await self._ingestion.target(
                claimed.lease.tenant_id, claimed.collection, claimed.chunking
            )
            content = await self._jobs.load_content(claimed.lease)
            document = replace(claimed.document, content=content)
            del content
            return await self._ingestion.take_in(target, document, _unheard, lease=claimed.lease)
        except IngestCancelled:
            return None
        except ServiceError as error:
            return _failed(claimed, error)
        finally:
            budget.release(byte_count)

    async def _conclude(self, claimed: ClaimedDocument, done: DocumentDone) -> None:
        failure = done.failure
        if isinstance(failure, IngestCancelled):
            return
        if failure is not None and _passes(failure) and claimed.attempt_count < _MOST_ATTEMPTS:
            pause_seconds = pause_before_retry(claimed.attempt_count)
            await self._jobs.put_back(claimed.lease, pause_seconds=pause_seconds)
            raise failure
        # What was stored is noted already, and the note held then.
        stored = done.outcome in (IngestOutcome.CREATED, IngestOutcome.UPDATED)
        if await self._jobs.finish(claimed.lease, done) or stored:
            self._statistics.add_document(done)
            self._delivery.wake()

    async def _under_lease(self, claimed: ClaimedDocument) -> DocumentDone | None:
        """Takes in a document while its lease is held; returns None where it was lost."""
        work = asyncio.create_task(self._take_in(claimed))
        keeping = asyncio.create_task(self._keep(claimed))
        try:
            await asyncio.wait([work, keeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost = not work.done()
            work.cancel()
            keeping.cancel()
            await asyncio.wait([work, keeping])
        return None if lost else work.result()

    async def _keep(self, claimed: ClaimedDocument) -> None:
        """Extends a lease again and again; returns when it is lost."""
        held = True
        while held:
            await self._clock.sleep(self._limits.lease_seconds / 3)
            with suppress(ServiceError):
                held = await self._jobs.extend(
                    claimed.lease, lease_seconds=self._limits.lease_seconds
                )


def _passes(failure: ServiceError) -> bool:
    """Returns whether a failure has to do with the time and not with the document."""
    return is_retryable(failure) and failure.status_code is not StatusCode.INTERNAL


def _failed(claimed: ClaimedDocument, failure: ServiceError) -> DocumentDone:
    return DocumentDone(
        document_id=claimed.document.document_id, outcome=IngestOutcome.FAILED, failure=failure
    )


async def _unheard(_progress: DocumentProgress) -> None:
    """Nobody follows the chunks of a document that is taken in behind a job."""
