"""Knows whether the document store can be reached, for those who ask whether rag is ready."""

import logging

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.rag.store_port import DocumentStore

__all__ = ["StoreWatch"]

_logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 5.0


class StoreWatch:
    """Asks the store for a sign of life from time to time.

    Args:
        store: The store, open.
        clock: Waits between one sign and the next.
    """

    def __init__(self, store: DocumentStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.reachable = True

    async def watch(self) -> None:
        """Asks again and again; never returns."""
        while True:
            await self._clock.sleep(_INTERVAL_SECONDS)
            try:
                await self._store.ping()
            except ServiceError as error:
                self._note(reachable=False, cause=error.message)
            else:
                self._note(reachable=True)

    def _note(self, *, reachable: bool, cause: str = "") -> None:
        if reachable != self.reachable:
            self.reachable = reachable
            _logger.warning("document store", extra={"reachable": reachable, "cause": cause})
