"""Lets callers who want the same at the same time share one computation."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Coalescer"]

T = TypeVar("T")


@dataclass(slots=True)
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    waiting_count: int = 0


class Coalescer(Generic[T]):
    """Computations under way, by what they compute.

    A computation goes on while anyone waits for it, whoever has begun it, and ends with the last.
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
            flight = self._flights[key] = _Flight(asyncio.create_task(compute()))
            flight.task.add_done_callback(lambda _: self._end(key, flight))
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
