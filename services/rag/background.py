"""Work that an answer gives rise to and that nobody waits for."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from typing import Any

from opentelemetry.trace import Link, Tracer, get_current_span, use_span

from services.common.errors import ServiceError
from services.common.identity import current_identity
from services.common.metrics import Metrics
from services.common.tracing import mark_failed

__all__ = ["BACKGROUND_KINDS", "BackgroundWork"]

_logger = logging.getLogger(__name__)

BACKGROUND_KINDS: Mapping[str, int] = {"refresh": 4, "verification": 2, "report": 64, "summary": 4}
"""Kinds of work, and how many of each are under way at the most."""


class BackgroundWork:
    """Runs work beside the calls that gave rise to it, for their tenants.

    The work has no part in a call's deadline, and it does not end with the call. It has a trace of
    its own, linked to what gave rise to it. What finds no room is dropped: it would only have made
    things better later on.

    Args:
        metrics: Receives what becomes of the work.
        tracer: Makes a span for each piece of it.
    """

    def __init__(self, metrics: Metrics, *, tracer: Tracer) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts: Counter[str] = Counter()

    def start(self, kind: str, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Starts work; returns whether there was room for it."""
        if self._counts[kind] >= BACKGROUND_KINDS[kind]:
            self._metrics.count("rag_background_work_total", kind, "dropped")
            return False
        context = Context()
        context.run(current_identity.set, current_identity.get())
        self._counts[kind] += 1
        cause = get_current_span().get_span_context()
        links = [Link(cause)] if cause.is_valid else []
        task = asyncio.create_task(self._run(kind, work, links), context=context)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._end(kind, done))
        return True

    async def close(self) -> None:
        """Ends all work that is under way."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(
        self, kind: str, work: Callable[[], Coroutine[Any, Any, None]], links: list[Link]
    ) -> None:
        span = self._tracer.start_span(f"background.{kind}", links=links)
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                await work()
        except ServiceError as error:
            mark_failed(span, error.error_reason)
            self._metrics.count("rag_background_work_total", kind, "error")
            _logger.info("background work failed", extra={"kind": kind, "cause": error.message})
        except Exception as error:
            mark_failed(span, error)
            self._metrics.count("rag_background_work_total", kind, "error")
            _logger.exception("background work failed", extra={"kind": kind})
        else:
            self._metrics.count("rag_background_work_total", kind, "success")
        finally:
            span.end()

    def _end(self, kind: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._counts[kind] -= 1
