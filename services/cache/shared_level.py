"""The level that all replicas share, and the decision how far to use it.

Values are read and written without ever failing: a store that is away or too slow costs its caller
one bounded wait and, once the breaker has opened, nothing. Scripts, maps and streams fail, at once
where the breaker is open; their callers know what to do without. Whether the store is back is found
out in the background; see `services.cache.store_watch`.

What is dropped is not queued: written after an invalidation that this process has not heard of, it
would bring back what was invalidated.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TypeVar

from services.cache.core.breaker import BreakerPolicy, Phase
from services.cache.core.layers import Layer
from services.cache.ports import (
    Script,
    SharedStore,
    StoreFailure,
    StoreRefusal,
    StoreTimeout,
    StreamEntry,
    Write,
)
from services.cache.recorder import Recorder
from services.cache.store_health import StoreCondition, StoreHealth
from services.cache.store_watch import RecoveryHandler, StoreWatch, is_recovering
from services.common.clock import Clock

__all__ = ["RecoveryHandler", "SharedLevel", "StoreCondition"]

T = TypeVar("T")

# Kept back from the caller's deadline, so that a late store shows as a miss and not as an error.
_DEADLINE_MARGIN_SECONDS = 0.01
# A caller for whom the store was late once is not kept waiting by its next call as well.
_IMPATIENCE_SECONDS = 0.25
_impatient_until: ContextVar[float] = ContextVar("pannier_cache_impatient_until", default=0.0)


class SharedLevel:
    """Asks the shared store while it is worth it.

    Args:
        store: The shared store.
        databases: Database of each layer.
        timeout_seconds: How long a caller waits for the store at most.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
        clock: Time.
        recorder: Is told of failures and changes.
        policy: When the store is used how far.
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
        self._health = StoreHealth(policy=policy, clock=clock, recorder=recorder)
        self._watch = StoreWatch(
            store,
            self._health,
            databases=databases.values(),
            timeout_seconds=timeout_seconds,
            clock=clock,
        )

    @property
    def condition(self) -> StoreCondition:
        """How the store has been."""
        return self._health.condition

    @property
    def phase(self) -> Phase:
        """How far it is used; while RECOVERING, the local level is not to be trusted."""
        return self._health.phase

    @property
    def available(self) -> bool:
        """Whether the store is in use."""
        return self._health.available

    @property
    def writable(self) -> bool:
        """Whether the store takes values: in use, not slow, and not known to refuse them."""
        return self._health.writable

    def database_of(self, layer: Layer) -> int:
        """Returns the number of the database that a layer lives in."""
        return self._databases[layer]

    def on_recovered(self, handler: RecoveryHandler) -> None:
        """Registers what is to be done after the store answers again and before it is used again.

        All handlers run side by side, for a few seconds at most; only their own calls go through to
        the store meanwhile. Where one raises or is too late, the store is left alone for another
        while.

        Args:
            handler: Is awaited at each recovery.
        """
        self._watch.on_recovered(handler)

    async def read(self, layer: Layer, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """Reads values.

        Args:
            layer: Their layer.
            keys: Their keys, at least one.

        Returns:
            One entry per key, in order, None where there is none; or None where the store could
            not be asked.
        """
        database = self.database_of(layer)
        try:
            return await self._ask(
                lambda timeout_seconds: self._store.read(
                    database, keys, timeout_seconds=timeout_seconds
                )
            )
        except StoreFailure:
            return None

    async def write(self, layer: Layer, writes: Sequence[Write]) -> list[bool] | None:
        """Writes values.

        Args:
            layer: Their layer.
            writes: The values, at least one.

        Returns:
            One entry per value, in order: whether it was taken; or None where the store was not
            asked, since it is away or slow, or did not answer.
        """
        if self.phase is Phase.SLOW:
            return None
        database = self.database_of(layer)
        try:
            taken = await self._ask(
                lambda timeout_seconds: self._store.write(
                    database, writes, timeout_seconds=timeout_seconds
                ),
                writes=True,
            )
        except StoreRefusal:
            return [False] * len(writes)
        except StoreFailure:
            return None
        self._health.refusing = not all(taken)
        return taken

    async def run(
        self,
        layer: Layer,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | int] = (),
    ) -> object:
        """Runs a script; also while the store is slow.

        Args:
            layer: Its layer.
            script: What to run.
            keys: All keys it touches, at least one; all of one hash slot.
            arguments: What else it is told.

        Returns:
            What the script returns; see `SharedStore.run`.

        Raises:
            StoreRefusal: The store answers, but does not let it write.
            StoreFailure: The store is out of use or did not do it; whether it ran is not known.
        """
        database = self.database_of(layer)
        return await self._ask(
            lambda timeout_seconds: self._store.run(
                database, script, keys, arguments, timeout_seconds=timeout_seconds
            ),
            writes=True,
        )

    async def read_map(self, layer: Layer, key: bytes) -> dict[bytes, bytes]:
        """Reads a whole hash, in as many round trips as it takes.

        Args:
            layer: Its layer.
            key: The hash; empty where there is none.

        Raises:
            StoreFailure: The store is out of use or did not answer.
        """
        database = self.database_of(layer)
        return await self._ask(
            lambda timeout_seconds: self._store.read_map(
                database, key, timeout_seconds=timeout_seconds
            ),
            timed=False,
        )

    async def read_stream(
        self, layer: Layer, key: bytes, after_id: bytes, *, wait_seconds: float, limit: int
    ) -> list[StreamEntry]:
        """Reads what was appended to a stream, and waits for it where there is nothing yet.

        Args:
            layer: Its layer.
            key: The stream; one that does not exist is waited for.
            after_id: The last entry known; `b"0"` for all.
            wait_seconds: How long to wait, 0 for not at all; less where the caller has less time.
            limit: Most entries to return.

        Raises:
            StoreFailure: The store is out of use or did not answer.
        """
        database = self.database_of(layer)
        remaining = self._remaining_seconds()
        if remaining is not None:
            reserved = _DEADLINE_MARGIN_SECONDS + self._timeout_seconds
            wait_seconds = min(wait_seconds, max(0.0, remaining - reserved))
        return await self._ask(
            lambda _: self._store.read_stream(
                database, key, after_id, wait_seconds=wait_seconds, limit=limit
            ),
            timed=False,
        )

    async def settle(self) -> None:
        """Checks the store until it is known whether it is there; for the start of the process."""
        await self._watch.settle()

    async def watch(self) -> None:
        """Checks the store from time to time; never returns."""
        await self._watch.run()

    async def _ask(
        self,
        command: Callable[[float], Awaitable[T]],
        *,
        writes: bool = False,
        timed: bool = True,
    ) -> T:
        """Sends a command if the store is in use, and draws the conclusions.

        Args:
            command: Is given the time it may take, seconds.
            writes: Whether a refusal is none of the store's ability to be read.
            timed: Whether its duration says something about the store.
        """
        timeout_seconds = self._wait_seconds()
        if timeout_seconds <= 0:
            raise StoreTimeout("no time left to ask")
        if not self.available and not (self.phase is Phase.RECOVERING and is_recovering()):
            raise StoreFailure("out of use")
        started = self._clock.monotonic()
        if started < _impatient_until.get():
            raise StoreTimeout("late for the same caller before")
        try:
            answer = await command(timeout_seconds)
        except StoreFailure as failure:
            self._conclude(failure, started, timeout_seconds, writes=writes)
            raise
        self._health.succeeded(started if timed else None)
        return answer

    def _conclude(
        self, failure: StoreFailure, started: float, timeout_seconds: float, *, writes: bool
    ) -> None:
        late = isinstance(failure, StoreTimeout)
        in_haste = late and timeout_seconds < self._timeout_seconds
        if writes and isinstance(failure, StoreRefusal):
            self._health.refused(failure, started)
            return
        if late and not in_haste:
            _impatient_until.set(self._clock.monotonic() + _IMPATIENCE_SECONDS)
        self._health.failed(failure, started, in_haste=in_haste)

    def _wait_seconds(self) -> float:
        remaining = self._remaining_seconds()
        if remaining is None:
            return self._timeout_seconds
        return min(self._timeout_seconds, remaining - _DEADLINE_MARGIN_SECONDS)
