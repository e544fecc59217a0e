"""How late the event loop is: what a blocking call or too much work does to everybody else."""

import asyncio

from services.common.clock import Clock
from services.common.metrics import Metrics

__all__ = ["LoopLag"]

_INTERVAL_SECONDS = 0.25
# A machine that has slept for hours has nothing more to say.
_MOST_LAG_SECONDS = 60.0


class LoopLag:
    """Observes four times a second how late a timer runs, also while the loop stands still.

    Args:
        metrics: Receives `service_event_loop_lag_seconds`.
        clock: Measures the lag; the loop's own time stands still during a turn.
    """

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins, on the running loop."""
        self._due = self._clock.monotonic() + _INTERVAL_SECONDS
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL_SECONDS, self._run)

    def stop(self) -> None:
        """Ends it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        # uvloop counts whole milliseconds, so that a timer can be early by less than one.
        lag_seconds = max(0.0, self._clock.monotonic() - self._due)
        self._observe(lag_seconds)
        # The timers that a blocked loop has not even set would have been late as well: without
        # them, ten seconds that stand still are one among a thousand good samples.
        missed = min(lag_seconds, _MOST_LAG_SECONDS) - _INTERVAL_SECONDS
        while missed > 0:
            self._observe(missed)
            missed -= _INTERVAL_SECONDS
        self.start()

    def _observe(self, lag_seconds: float) -> None:
        self._metrics.observe("service_event_loop_lag_seconds", lag_seconds)
