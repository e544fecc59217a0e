"""Removes what has had its time: expired documents, and jobs that ended long ago."""

import logging

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.rag.invalidate import InvalidationDelivery
from services.rag.jobs_port import IngestJobs
from services.rag.store_port import DocumentStore

__all__ = ["Sweep"]

_logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 30.0
_ROUND_SIZE = 100
# A sender says something every few seconds, or has gone without a word.
_SILENCE_SECONDS = 3600.0


class Sweep:
    """Removes what has had its time.

    Args:
        store: Has the documents.
        jobs: Has the jobs.
        delivery: Tells the cache of what was removed.
        clock: Waits between one round and the next.
        retention_seconds: How long jobs are kept after their end.
    """

    def __init__(
        self,
        store: DocumentStore,
        jobs: IngestJobs,
        *,
        delivery: InvalidationDelivery,
        clock: Clock,
        retention_seconds: float,
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._delivery = delivery
        self._clock = clock
        self._retention_seconds = retention_seconds

    async def run(self) -> None:
        """Sweeps from time to time; never returns."""
        while True:
            try:
                await self.sweep()
            except ServiceError as error:
                _logger.info("not swept", extra={"cause": error.message})
            except Exception:
                # What expires later must go as well.
                _logger.exception("sweeping failed")
            await self._clock.sleep(_INTERVAL_SECONDS)

    async def sweep(self) -> None:
        """Removes what is due, unless another process is doing so.

        Raises:
            StoreUnavailable: Not all of it could be removed.
        """
        async with self._jobs.alone("sweep") as alone:
            if not alone:
                return
            while await self._store.delete_expired(limit=_ROUND_SIZE):
                self._delivery.wake()
            await self._jobs.forget(
                retention_seconds=self._retention_seconds, silence_seconds=_SILENCE_SECONDS
            )
