"""Finds out in the background whether the shared store is there, and brings it back into use.

Recovery neither needs traffic nor is paid for by a caller.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar

from services.cache.ports import SharedStore, StoreFailure, Write
from services.cache.store_health import StoreHealth
from services.common.clock import Clock

__all__ = ["RecoveryHandler", "StoreWatch", "is_recovering"]

RecoveryHandler = Callable[[], Awaitable[None]]
"""Brings what this process knows of the store up to date."""

_logger = logging.getLogger(__name__)

_CHECK_INTERVAL_SECONDS = 1.0
# While failures come in, the store is checked more often: callers in a hurry give up before their
# wait says anything about the store, and would otherwise meet a frozen one for long.
_SUSPICIOUS_INTERVAL_SECONDS = 0.1
# With the longest pause of the breaker, less than the ten seconds a recovery may take.
_RECOVERY_LIMIT_SECONDS = 3.0
_PROBE = Write(key=b"pannier:2:probe", data=b"1", ttl_ms=1000)

_recovering: ContextVar[bool] = ContextVar("pannier_cache_recovering", default=False)


def is_recovering() -> bool:
    """Returns whether the running task does the work of a recovery handler."""
    return _recovering.get()


class StoreWatch:
    """Watches the store.

    Args:
        store: The shared store.
        health: Is told what is found out.
        databases: Numbers of the databases in use.
        timeout_seconds: How long the store has to answer.
        clock: Time.
    """

    def __init__(
        self,
        store: SharedStore,
        health: StoreHealth,
        *,
        databases: Iterable[int],
        timeout_seconds: float,
        clock: Clock,
    ) -> None:
        self._store = store
        self._health = health
        self._databases = tuple(dict.fromkeys(databases))
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._handlers: list[RecoveryHandler] = []

    def on_recovered(self, handler: RecoveryHandler) -> None:
        """Registers a handler; see `SharedLevel.on_recovered`."""
        self._handlers.append(handler)

    async def settle(self) -> None:
        """Checks the store until it is known whether it is there."""
        while not await self._check() and self._health.available:
            pass

    async def run(self) -> None:
        """Checks the store from time to time; never returns."""
        while True:
            await self._clock.sleep(self._until_next_check_seconds())
            if self._health.probe_due():
                await self._probe()
            elif self._health.available:
                await self._check()
                if self._health.refusing:
                    await self._try_writing()

    def _until_next_check_seconds(self) -> float:
        if not self._health.available:
            return max(0.0, self._health.retry_at - self._clock.monotonic())
        return _SUSPICIOUS_INTERVAL_SECONDS if self._health.suspicious else _CHECK_INTERVAL_SECONDS

    async def _check(self) -> bool:
        started = self._clock.monotonic()
        try:
            await self._store.check(timeout_seconds=self._timeout_seconds)
        except StoreFailure as failure:
            self._health.failed(failure, started, in_haste=False)
            return False
        self._health.succeeded(started)
        return True

    async def _try_writing(self) -> None:
        """Finds out whether a store that refused to write takes values again."""
        try:
            for database in self._databases:
                taken = await self._store.write(
                    database, [_PROBE], timeout_seconds=self._timeout_seconds
                )
                if not all(taken):
                    return
        except StoreFailure:
            return
        self._health.refusing = False

    async def _probe(self) -> None:
        try:
            await self._store.check(timeout_seconds=self._timeout_seconds)
            self._health.probe_succeeded()
            await self._recover()
        except StoreFailure as failure:
            self._health.probe_failed(failure)
        else:
            self._health.recovered()

    async def _recover(self) -> None:
        """Runs the handlers.

        Raises:
            StoreFailure: One has not done its work.
        """
        token = _recovering.set(True)
        try:
            async with asyncio.timeout(_RECOVERY_LIMIT_SECONDS), asyncio.TaskGroup() as group:
                for handler in self._handlers:
                    group.create_task(_awaited(handler))
        except TimeoutError as error:
            raise StoreFailure("recovery took too long") from error
        except ExceptionGroup as failures:
            _, mistakes = failures.split(StoreFailure)
            if mistakes is not None:
                _logger.exception("what was missed cannot be learned", exc_info=mistakes)
            raise StoreFailure("recovery failed") from failures
        finally:
            _recovering.reset(token)


async def _awaited(handler: RecoveryHandler) -> None:
    await handler()
