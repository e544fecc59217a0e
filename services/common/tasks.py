"""Loops that run beside a service for as long as it does."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["in_background"]


@asynccontextmanager
async def in_background(*loops: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Runs loops while the context is open, then cancels them and waits for their end.

    Args:
        loops: Coroutines that never return.
    """
    tasks = [asyncio.create_task(loop) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
