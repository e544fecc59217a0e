"""How late this process was run, for tests of time limits on a machine with other work to do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

_TICK_SECONDS = 0.01


class Lateness:
    """What the event loop was late by in all.

    A wait that is told to end after 100 ms and ends after 400, 300 of which the loop was held up or
    not run at all, was 100 ms long for what is tested.
    """

    def __init__(self) -> None:
        self._late_seconds = 0.0
        self._ticked = 0.0

    @property
    def seconds(self) -> float:
        """The sum so far."""
        overdue = asyncio.get_running_loop().time() - self._ticked - 2 * _TICK_SECONDS
        return self._late_seconds + max(0.0, overdue)

    async def watch(self) -> None:
        """Adds up, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._ticked = loop.time()
            await asyncio.sleep(_TICK_SECONDS)
            self._late_seconds += max(0.0, loop.time() - self._ticked - 2 * _TICK_SECONDS)


@asynccontextmanager
async def measured_lateness() -> AsyncIterator[Lateness]:
    """Measures while the context is open."""
    lateness = Lateness()
    watching = asyncio.create_task(lateness.watch())
    await asyncio.sleep(0)
    try:
        yield lateness
    finally:
        watching.cancel()


@pytest.fixture
async def lateness() -> AsyncIterator[Lateness]:
    """How late this process is in a test, all that it starts included."""
    async with measured_lateness() as measured:
        yield measured
