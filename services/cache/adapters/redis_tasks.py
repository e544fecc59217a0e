"""Work that goes on after those who wanted it have stopped waiting."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["OwnTasks", "all_of", "first_of", "heed_cancellation"]

T = TypeVar("T")


class OwnTasks:
    """Tasks that are kept until they end; whether they fail is the concern of those who wait."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts a task and returns it, for those who want to wait for it."""
        task = asyncio.ensure_future(work)
        self._keep(task)
        return task

    def start_aside(self, work: Coroutine[Any, Any, object]) -> None:
        """Starts a task that nobody waits for but `finish`."""
        self._keep(asyncio.ensure_future(work))

    async def finish(self) -> None:
        """Waits for all tasks."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Somebody has seen it, or has stopped waiting for it.
            task.exception()


async def all_of(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Runs calls side by side and waits for all of them, also where some fail.

    No call is cancelled for another's failure: its connection would be lost.

    Raises:
        Exception: What the first failed call in order raised.
    """
    tasks = [asyncio.ensure_future(call) for call in calls]
    if tasks:
        await asyncio.wait(tasks)
    failures = [task.exception() for task in tasks]
    for failure in failures:
        if failure is not None:
            raise failure
    return [task.result() for task in tasks]


async def first_of(tasks: Iterable[asyncio.Task[T]]) -> T:
    """Returns what the first task that succeeds comes to; the others go on.

    Raises:
        Exception: None succeeds; what one of the last raised.
    """
    pending = set(tasks)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled() and task.exception() is None:
                return task.result()
        if not pending:
            return done.pop().result()


def heed_cancellation() -> None:
    """Ends the running task if it was to end while the client library wrote.

    Before Python 3.12 `asyncio.wait_for`, which the library writes with, forgets a cancellation
    that comes when all is written: whoever has left would wait for the reply to the end.

    Raises:
        CancelledError: It was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
