"""Work that is begun before it is known whether anybody will want what comes of it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

__all__ = ["BegunEarly"]

T = TypeVar("T")


class BegunEarly(Generic[T]):
    """Does something beside what is done in its block, where it may be awaited.

    It ends with the block at the latest.

    Args:
        work: What is done.

    Attributes:
        task: What may be awaited; None outside of the block.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.task: asyncio.Task[T] | None = None
        self._work = work

    async def __aenter__(self) -> asyncio.Task[T]:
        """Begins it."""
        self.task = asyncio.create_task(self._work)
        return self.task

    async def __aexit__(self, *_: object) -> None:
        """Ends it; where nobody has asked for it, nobody need know of a failure."""
        task, self.task = self.task, None
        if task is None:
            return
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
