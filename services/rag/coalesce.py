"""Lets callers who want the same at the same time share one computation."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from opentelemetry.trace import SpanContext, get_current_span

__all__ = ["Coalescer"]

T = TypeVar("T")


@dataclass(slots=True)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    span_context: SpanContext
    waiting_count: int = 0


class Coalescer(Generic[T]):
    """Computations under way, by what they compute.

    A computation goes on while anyone waits for it, whoever has begun it, and ends with the last.
    It is part of the trace of who has begun it; the spans of the others are linked to that.
    """

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    async def run(self, key: Hashable, compute: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Returns the result of the computation of that key: one under way, else a new one.

        Args:
            key: What is computed.
            compute: Begins to compute it.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(
                asyncio.create_task(compute()), get_current_span().get_span_context()
            )
            flight.task.add_done_callback(lambda _: self._end(key, flight))
        else:
            span = get_current_span()
            span.add_link(flight.span_context)
            span.set_attribute("app.coalesced", True)  # noqa: FBT003 - the name says it
        flight.waiting_count += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting_count -= 1
            if not flight.waiting_count and not flight.task.done():
                self._end(key, flight)
                flight.task.cancel()

    def _end(self, key: Hashable, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
