"""Takes times of calls."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import ceil

__all__ = ["Times", "one_by_one", "open_loop"]

# A timer of the loop goes off up to this much late by its own resolution.
_TIMER_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Times:
    """Times of calls in seconds.

    Attributes:
        seconds: One for each call that succeeded.
        failures: What went wrong with the others.
        wall_seconds: From the first call until the end of the last.
    """

    seconds: tuple[float, ...]
    failures: tuple[str, ...] = ()
    wall_seconds: float = 0.0

    def ms(self, ratio: float) -> float:
        """Returns what a share of the calls did not exceed, in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[max(ceil(ratio * len(ordered)) - 1, 0)] * 1000 if ordered else float("nan")

    @property
    def text(self) -> str:
        """Median, 95th and 99th percentile."""
        return (
            f"p50 {self.ms(0.5):.1f} ms, p95 {self.ms(0.95):.1f} ms, p99 {self.ms(0.99):.1f} ms"
            f"{f', {len(self.failures)} failed' if self.failures else ''}"
        )


async def one_by_one(call: Callable[[int], Awaitable[object]], count: int) -> Times:
    """Times calls, each after the one before."""
    times = []
    begun = time.perf_counter()
    for number in range(count):
        started = time.perf_counter()
        await call(number)
        times.append(time.perf_counter() - started)
    return Times(tuple(times), wall_seconds=time.perf_counter() - begun)


async def open_loop(
    call: Callable[[int], Awaitable[object]], *, per_second: float, seconds: float
) -> Times:
    """Begins calls at a steady rate, whether those before have ended or not.

    A call's time counts from when it was due, so that a pause of the caller shows in all of them,
    but not the resolution of the timer that begins it.
    """
    times: list[float] = []
    failures: list[str] = []

    async def timed(number: int, due: float) -> None:
        try:
            await call(number)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            failures.append(repr(error))
        else:
            times.append(time.perf_counter() - due)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(per_second * seconds)):
            due = begun + number / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            now = time.perf_counter()
            group.create_task(timed(number, now if now - due <= _TIMER_SECONDS else due))
    return Times(tuple(times), tuple(failures), time.perf_counter() - begun)
