"""Knows how many documents and chunks there are, for those who look at metrics."""

import logging

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.common.metrics import Metrics
from services.rag.store_port import DocumentStore

__all__ = ["IndexWatch"]

_logger = logging.getLogger(__name__)


class IndexWatch:
    """Counts what is stored from time to time.

    Args:
        store: Has the documents.
        clock: Waits between one count and the next.
        metrics: Shows the counts, the last ones while the store is away.
        interval_seconds: How long to wait.
    """

    def __init__(
        self, store: DocumentStore, *, clock: Clock, metrics: Metrics, interval_seconds: float
    ) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._interval_seconds = interval_seconds

    async def watch(self) -> None:
        """Counts again and again; never returns."""
        while True:
            try:
                counts = await self._store.count_all()
            except ServiceError as error:
                _logger.info("index not counted", extra={"cause": error.message})
            except Exception:
                # Later counts may succeed.
                _logger.exception("counting the index failed")
            else:
                self._metrics.set_gauge("rag_index_documents", counts.document_count)
                self._metrics.set_gauge("rag_index_chunks", counts.chunk_count)
            await self._clock.sleep(self._interval_seconds)
