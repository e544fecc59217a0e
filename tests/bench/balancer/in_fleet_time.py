"""Runs the balancer in the fleet's time: `python in_fleet_time.py 10`, in the folder of its source.

Where the fleet is ten times faster than life, so must be all that the balancer knows of time: its
time limits, but also what it expects of a fleet it has not met, how soon it forgets, how long a
tenant's share lasts. So nothing of it is changed; the clocks that it reads run faster, and so do
the timers of its event loop and the durations that backends report. It pays for this with an event
loop that is slower than the one it has in life.
"""

import asyncio
import runpy
import selectors
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from services.balancer.adapters import wire
from services.common import clock, server, server_call

T = TypeVar("T")


class _FleetSelector(selectors.DefaultSelector):
    """Waits in the time of the wall for what the loop expects in the fleet's."""

    def __init__(self, time_scale: float) -> None:
        super().__init__()
        self._time_scale = time_scale

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Waits for files."""
        return super().select(None if timeout is None else timeout / self._time_scale)


class _FleetLoop(asyncio.SelectorEventLoop):
    """An event loop whose seconds are the fleet's."""

    def __init__(self, time_scale: float) -> None:
        super().__init__(_FleetSelector(time_scale))
        self._time_scale = time_scale

    def time(self) -> float:
        """Returns the fleet's time."""
        return super().time() * self._time_scale


def _quicken(time_scale: float) -> None:
    """Makes the time of this process run faster, apart from that of day."""

    class FleetClock(clock.SystemClock):
        """Tells the fleet's time."""

        def monotonic(self) -> float:
            """Returns its seconds."""
            return time.monotonic() * time_scale

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=lambda: _FleetLoop(time_scale)) as runner:
            return runner.run(coroutine)

    def set_deadline(remaining_seconds: float) -> None:
        in_time(remaining_seconds * time_scale)

    in_time: Callable[[float], None] = server_call.set_deadline
    server_call.set_deadline = set_deadline
    server.SystemClock = FleetClock  # type: ignore[misc]
    server.uvloop.run = run  # type: ignore[assignment]
    # Backends count in nanoseconds of the wall.
    wire._NANOSECONDS = 1e-9 * time_scale


if __name__ == "__main__":
    _quicken(float(sys.argv.pop(1)))
    runpy.run_module("services.balancer", run_name="__main__", alter_sys=True)
