"""Work that is begun before it is known whether anybody will want what comes of it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

__all__ = ["begun_early"]

T = TypeVar("T")


@asynccontextmanager
async def begun_early(work: Coroutine[Any, Any, T]) -> AsyncIterator["asyncio.Task[T]"]:
    """Does something beside what is done in the block, and lends what may be awaited there.

    It ends with the block at the latest.

    Args:
        work: What is done.
    """
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            # Where nobody has asked for it, nobody need know of a failure.
            task.exception()
