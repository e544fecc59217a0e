"""Loops that run beside a service for as long as it does."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["in_background"]

_logger = logging.getLogger(__name__)


@asynccontextmanager
async def in_background(*loops: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Runs loops while the context is open, then cancels them and waits for their end.

    A loop that ends by a fault of its own is logged when it happens: the service goes on without
    it, and nobody else would tell.

    Args:
        loops: Coroutines that never return.
    """
    tasks = [
        asyncio.create_task(loop, name=getattr(loop, "__qualname__", "loop")) for loop in loops
    ]
    for task in tasks:
        task.add_done_callback(_report)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _report(task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        _logger.error("background loop failed", exc_info=error, extra={"loop": task.get_name()})
