"""Limits of time that do not count the time in which this process stood still.

A process that is frozen, starved of processors or moved to another machine finds, when it goes on,
that all its limits have passed. Most of what it waited for has come meanwhile and only has to be
read; and where the servers stood still with it, they are not to blame either.
"""

import asyncio
from types import TracebackType
from typing import Self

from services.common.clock import Clock

__all__ = ["AwakeTimeout", "Pauses"]

_INTERVAL_SECONDS = 0.1
# Of an event loop that is merely busy, a timer is late by some milliseconds.
_USUAL_LATENESS_SECONDS = 0.05
# What an event loop's timers are precise to.
_RESOLUTION_SECONDS = 0.001
# After a pause so much time is left at least, to read what has come meanwhile.
_GRACE_SECONDS = 0.25


class Pauses:
    """Adds up how long this process has stood still, while the context is open.

    Args:
        clock: Measures it; the loop's own time stands still during a turn.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._past_seconds = 0.0
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = None

    @property
    def total_seconds(self) -> float:
        """All pauses so far, with the one that is just over; shorter by up to 150 ms each."""
        return self._past_seconds + self._overdue_seconds()

    def _overdue_seconds(self) -> float:
        if self._due is None:
            return 0.0
        late_seconds = self._clock.monotonic() - self._due
        return late_seconds if late_seconds > _USUAL_LATENESS_SECONDS else 0.0

    def _begin(self) -> None:
        self._due = self._clock.monotonic() + _INTERVAL_SECONDS
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL_SECONDS, self._run)

    def _run(self) -> None:
        self._past_seconds += self._overdue_seconds()
        self._begin()


class AwakeTimeout:
    """As `asyncio.timeout`, without the time in which the process stood still.

    Args:
        limit_seconds: Longest time to be awake in the block.
        pauses: Know when it was not.

    Raises:
        TimeoutError: It took longer.
    """

    __slots__ = (
        "_began_at",
        "_limit_seconds",
        "_paused_before_seconds",
        "_paused_seconds",
        "_pauses",
        "_scope",
        "_timer",
    )

    def __init__(self, limit_seconds: float, pauses: Pauses) -> None:
        self._limit_seconds = limit_seconds
        self._pauses = pauses
        self._paused_seconds = 0.0
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()
        loop = asyncio.get_running_loop()
        self._began_at = loop.time()
        self._paused_before_seconds = self._pauses.total_seconds
        self._timer = loop.call_later(self._limit_seconds, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        paused_seconds = self._pauses.total_seconds - self._paused_before_seconds
        awake_seconds = loop.time() - self._began_at - paused_seconds
        left_seconds = self._limit_seconds - awake_seconds
        if paused_seconds - self._paused_seconds >= _GRACE_SECONDS:
            self._paused_seconds = paused_seconds
            left_seconds = max(left_seconds, _GRACE_SECONDS)
        if left_seconds >= _RESOLUTION_SECONDS:
            self._timer = loop.call_later(left_seconds, self._look)
        else:
            self._scope.reschedule(loop.time())

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(error_type, error, traceback)
