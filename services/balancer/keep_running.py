"""Loops that must not end: without them nobody would check backends or look at the queue."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from services.common.clock import Clock

__all__ = ["keep_running"]

_logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
# One that has run for so long has not failed for the same reason as before.
_LONG_SECONDS = 300.0


async def keep_running(run: Callable[[], Awaitable[None]], *, clock: Clock) -> None:
    """Runs a loop, and runs it anew whenever it ends by a fault, until cancelled.

    Nothing that happens to it is expected; each time is logged as an error.

    Args:
        run: Begins the loop.
        clock: Measures the pauses before it begins anew: 1 s, then twice as long each time.
    """
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        began_at = clock.monotonic()
        extra = {"loop": getattr(run, "__qualname__", "loop")}
        try:
            await run()
        except (Exception, asyncio.CancelledError):
            # It may fail as it is told to end; and what it waits for may be cancelled without that.
            if _is_to_end():
                raise
            _logger.exception("background loop failed, begins anew", extra=extra)
        else:
            _logger.error("background loop ended, begins anew", extra=extra)
        if clock.monotonic() - began_at > _LONG_SECONDS:
            pause_seconds = _FIRST_PAUSE_SECONDS
        await clock.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


def _is_to_end() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
