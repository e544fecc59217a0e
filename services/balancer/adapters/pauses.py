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
    """Limits the time that a block takes, without that in which the process stood still.

    A context manager that may be entered again when it has been left: the limit is that of each
    block. One timer serves them all, which is looked after when it is due and not with each block;
    `close` must follow the last one. In the block, the running task may be cancelled to end it.

    Args:
        limit_seconds: Longest time to be awake in a block.
        pauses: Know when the process was not.

    Raises:
        TimeoutError: It took longer.
    """

    __slots__ = (
        "_began_at",
        "_cancelling_count",
        "_expired",
        "_limit_seconds",
        "_paused_before_seconds",
        "_paused_seconds",
        "_pauses",
        "_task",
        "_timer",
    )

    def __init__(self, limit_seconds: float, pauses: Pauses) -> None:
        self._limit_seconds = limit_seconds
        self._pauses = pauses
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - who awaits is in a task
        loop = asyncio.get_running_loop()
        self._task = task
        self._cancelling_count = task.cancelling()
        self._began_at = loop.time()
        self._paused_before_seconds = self._pauses.total_seconds
        self._paused_seconds = 0.0
        if self._timer is None:
            self._timer = loop.call_later(self._limit_seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._task is None:
            # Between two blocks; the next one sets the timer again.
            return
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
            self._expired = True
            self._task.cancel()

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._expired and task is not None:
            self._expired = False
            # As in asyncio.timeout: where others cancel the task too, theirs is the last word.
            others_do_not = task.uncancel() <= self._cancelling_count
            if others_do_not and error_type is asyncio.CancelledError:
                raise TimeoutError from error

    def close(self) -> None:
        """Ends the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
