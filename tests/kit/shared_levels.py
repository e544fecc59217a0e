"""The shared level of the cache by itself, and a store that fails as told."""

from collections.abc import Sequence
from typing import Any

from services.cache.core.breaker import BreakerPolicy, Phase
from services.cache.core.layers import Layer
from services.cache.ports import Script, SharedStore, StoreFailure, StreamEntry, Write
from services.cache.shared_level import SharedLevel
from services.common.clock import SystemClock

__all__ = ["FailingStore", "QuietRecorder", "make_level"]


class QuietRecorder:
    """Keeps what the shared level tells a recorder."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.availabilities: list[bool] = []
        self.failure_count = 0

    def store_failed(self) -> None:
        self.failure_count += 1

    def store_available(self, *, available: bool) -> None:
        self.availabilities.append(available)

    def store_phase(self, phase: Phase) -> None:
        self.phases.append(phase)


def make_level(store: SharedStore, **changes: Any) -> SharedLevel:
    """Returns a shared level in front of a store, with the service's own times."""
    options = {
        "databases": {layer: int(layer is Layer.INFERENCE) for layer in Layer},
        "timeout_seconds": 0.1,
        "remaining_seconds": lambda: None,
        "clock": SystemClock(),
        "recorder": QuietRecorder(),
        "policy": BreakerPolicy(),
    } | changes
    return SharedLevel(store, **options)


class FailingStore:
    """Answers everything, or fails while `failure` is set; keeps what it was asked.

    Attributes:
        failure: What every call raises.
        write_failure: What writes and scripts raise.
        seconds: How long every call takes on the clock.
        calls: Name and time-out of each call, checks left out.
    """

    def __init__(self, clock: Any = None) -> None:
        self.failure: StoreFailure | None = None
        self.write_failure: StoreFailure | None = None
        self.seconds = 0.0
        self.calls: list[tuple[str, float]] = []
        self.check_count = 0
        self._clock = clock

    @property
    def call_names(self) -> list[str]:
        return [name for name, _ in self.calls]

    async def read(
        self, database: int, keys: Sequence[bytes], *, timeout_seconds: float
    ) -> list[bytes | None]:
        await self._meet("read", timeout_seconds)
        return [None] * len(keys)

    async def write(
        self, database: int, writes: Sequence[Write], *, timeout_seconds: float
    ) -> list[bool]:
        await self._meet("write", timeout_seconds, writes=True)
        return [True] * len(writes)

    async def run(
        self,
        database: int,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | int],
        *,
        timeout_seconds: float,
    ) -> object:
        await self._meet("run", timeout_seconds, writes=True)
        return database

    async def read_map(
        self, database: int, key: bytes, *, timeout_seconds: float
    ) -> dict[bytes, bytes]:
        await self._meet("read_map", timeout_seconds)
        return {b"field": b"%d" % database}

    async def read_stream(
        self, database: int, key: bytes, after_id: bytes, *, wait_seconds: float, limit: int
    ) -> list[StreamEntry]:
        await self._meet("read_stream", wait_seconds)
        return []

    async def check(self, *, timeout_seconds: float) -> None:
        self.check_count += 1
        await self._meet("", timeout_seconds)

    async def _meet(self, name: str, seconds: float, *, writes: bool = False) -> None:
        if name:
            self.calls.append((name, seconds))
        if self.seconds:
            await self._clock.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        if writes and self.write_failure is not None:
            raise self.write_failure
