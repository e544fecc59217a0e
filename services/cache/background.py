"""Work that outlives the call it began with."""

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace

__all__ = ["Background", "context_of_span"]

T = TypeVar("T")

_logger = logging.getLogger(__name__)


def context_of_span() -> Context:
    """Makes a context that holds the current span and nothing else of the call it belongs to."""
    context = Context()
    context.run(otel_context.attach, trace.set_span_in_context(trace.get_current_span()))
    return context


class Background:
    """Tasks that are bound neither to a call's deadline nor to its end.

    Each remembers only the span it began under, so that a trace shows what was done on a call's
    account.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Starts a piece of work."""
        task = asyncio.get_running_loop().create_task(work, context=context_of_span())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def detach(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts a piece of work that nobody waits for; a mistake in it is logged."""
        self.start(work).add_done_callback(_report)

    async def close(self) -> None:
        """Cancels what is under way and waits for its end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _logger.error("work in the background has failed", exc_info=error)
