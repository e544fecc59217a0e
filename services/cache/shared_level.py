"""The level that all replicas share, and the decision whether to ask it at all.

Nothing here fails: a store that is away or too slow costs its caller one bounded wait and, once the
breaker has opened, nothing. Whether it is back is found out in the background, so that recovery
neither needs traffic nor is paid for by a caller.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.cache.core.breaker import Breaker, BreakerPolicy, Phase
from services.cache.core.layers import Layer
from services.cache.ports import SharedStore, StoreFailure, StoreTimeout, Write
from services.cache.recorder import Recorder
from services.common.clock import Clock

__all__ = ["SharedLevel", "StoreCondition"]

_logger = logging.getLogger(__name__)

_CHECK_INTERVAL_SECONDS = 1.0
# While failures come in, the store is checked more often: callers in a hurry give up before their
# wait says anything about the store, and would otherwise meet a frozen one for long.
_SUSPICIOUS_INTERVAL_SECONDS = 0.1
# Kept back from the caller's deadline, so that a late store shows as a miss and not as an error.
_DEADLINE_MARGIN_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCondition:
    """How the shared store has been.

    Attributes:
        available: Whether it is in use.
        failure_count: Failed calls.
        outage_count: Times it was taken out of use.
        changed_at: When `available` last changed, seconds since the Unix epoch; None if never.
        last_failure: What the last failure said; empty where there was none.
    """

    available: bool = True
    failure_count: int = 0
    outage_count: int = 0
    changed_at: float | None = None
    last_failure: str = ""


class SharedLevel:
    """Asks the shared store while it is worth it.

    Args:
        store: The shared store.
        databases: Database of each layer.
        timeout_seconds: How long a caller waits for the store at most.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
        clock: Time.
        recorder: Is told of failures and changes.
        policy: When the store is taken out of use.
    """

    def __init__(
        self,
        store: SharedStore,
        *,
        databases: Mapping[Layer, int],
        timeout_seconds: float,
        remaining_seconds: Callable[[], float | None],
        clock: Clock,
        recorder: Recorder,
        policy: BreakerPolicy,
    ) -> None:
        self._store = store
        self._databases = databases
        self._timeout_seconds = timeout_seconds
        self._remaining_seconds = remaining_seconds
        self._clock = clock
        self._recorder = recorder
        self._breaker = Breaker(policy=policy)
        self._failure_count = 0
        self._outage_count = 0
        self._changed_at: float | None = None
        self._last_failure = ""
        recorder.store_available(available=True)

    @property
    def condition(self) -> StoreCondition:
        """How the store has been."""
        return StoreCondition(
            available=self.available,
            failure_count=self._failure_count,
            outage_count=self._outage_count,
            changed_at=self._changed_at,
            last_failure=self._last_failure,
        )

    @property
    def available(self) -> bool:
        """Whether the store is in use."""
        return self._breaker.admits_calls

    async def read(self, layer: Layer, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """Reads values.

        Args:
            layer: Their layer.
            keys: Their keys, at least one.

        Returns:
            One entry per key, in order, None where there is none; or None where the store could
            not be asked.
        """
        timeout_seconds = self._wait_seconds()
        if timeout_seconds <= 0 or not self.available:
            return None
        try:
            found = await self._store.read(
                self._databases[layer], keys, timeout_seconds=timeout_seconds
            )
        except StoreFailure as failure:
            self._note_failure(failure, timeout_seconds)
            return None
        self._note_success()
        return found

    async def write(self, layer: Layer, writes: Sequence[Write]) -> list[bool] | None:
        """Writes values.

        Args:
            layer: Their layer.
            writes: The values, at least one.

        Returns:
            One entry per value, in order: whether it was taken; or None where the store could not
            be asked.
        """
        timeout_seconds = self._wait_seconds()
        if timeout_seconds <= 0 or not self.available:
            return None
        try:
            taken = await self._store.write(
                self._databases[layer], writes, timeout_seconds=timeout_seconds
            )
        except StoreFailure as failure:
            self._note_failure(failure, timeout_seconds)
            return None
        self._note_success()
        return taken

    async def settle(self) -> None:
        """Checks the store until it is known whether it is there; for the start of the process."""
        for _ in range(self._breaker.policy.failure_threshold):
            if await self._check():
                return

    async def watch(self) -> None:
        """Checks the store from time to time; never returns."""
        while True:
            await self._clock.sleep(self._until_next_check_seconds())
            self._breaker = self._breaker.probing(self._clock.monotonic())
            if self._breaker.phase is not Phase.OPEN:
                await self._check()

    def _until_next_check_seconds(self) -> float:
        if self._breaker.phase is Phase.OPEN:
            return max(0.0, self._breaker.retry_at - self._clock.monotonic())
        if self._breaker.failure_count:
            return _SUSPICIOUS_INTERVAL_SECONDS
        return _CHECK_INTERVAL_SECONDS

    async def _check(self) -> bool:
        try:
            await self._store.check(timeout_seconds=self._timeout_seconds)
        except StoreFailure as failure:
            self._note_failure(failure, self._timeout_seconds)
            return False
        self._note_success()
        return True

    def _wait_seconds(self) -> float:
        remaining = self._remaining_seconds()
        if remaining is None:
            return self._timeout_seconds
        return min(self._timeout_seconds, remaining - _DEADLINE_MARGIN_SECONDS)

    def _note_success(self) -> None:
        self._enter(self._breaker.succeeded())

    def _note_failure(self, failure: StoreFailure, timeout_seconds: float) -> None:
        self._failure_count += 1
        self._last_failure = failure.cause
        self._recorder.store_failed()
        # A caller's haste says nothing about the store.
        if isinstance(failure, StoreTimeout) and timeout_seconds < self._timeout_seconds:
            return
        self._enter(self._breaker.failed(self._clock.monotonic()))

    def _enter(self, following: Breaker) -> None:
        was_available = self.available
        self._breaker = following
        if self.available == was_available:
            return
        self._changed_at = self._clock.now()
        self._recorder.store_available(available=self.available)
        if self.available:
            _logger.info("shared store is in use again")
        else:
            self._outage_count += 1
            _logger.warning("shared store is out of use", extra={"cause": self._last_failure})
