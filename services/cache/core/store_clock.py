"""What time it is by the shared store's clock, at the earliest.

Invalidations are dated by that clock; a value dated too early is at worst computed once more, one
dated too late might outlive its invalidation. So what is told here is a lower bound: the store has
sent its reply after it read its clock, and no clock is off by more than the drift allowed for.
"""

from collections.abc import Callable

__all__ = ["StoreClock"]

# Clocks that are disciplined by NTP are slewed by at most this much.
_DRIFT_RATIO = 0.0005
# Before the store's first reply there is only this machine's own clock to go by.
_UNKNOWN_MARGIN_MS = 60_000


class StoreClock:
    """Tells the store's time from its last reply.

    Args:
        wall_ms: Tells this machine's time, milliseconds since the Unix epoch.
    """

    def __init__(self, wall_ms: Callable[[], float]) -> None:
        self._wall_ms = wall_ms
        self._noted_ms: float | None = None
        self._noted_at = 0.0

    def note(self, store_ms: float, received_at: float) -> None:
        """Learns the store's time from a reply; the last one counts, as clocks may be set.

        Args:
            store_ms: What the store's clock showed, milliseconds since the Unix epoch.
            received_at: When the reply came, seconds on the monotonic clock.
        """
        self._noted_ms = store_ms
        self._noted_at = received_at

    def now_ms(self, monotonic: float) -> int:
        """Returns what the store's clock shows at least, milliseconds since the Unix epoch.

        Args:
            monotonic: Seconds on the monotonic clock.
        """
        if self._noted_ms is None:
            return int(self._wall_ms()) - _UNKNOWN_MARGIN_MS
        elapsed_seconds = max(0.0, monotonic - self._noted_at)
        return int(self._noted_ms + elapsed_seconds * 1000 * (1.0 - _DRIFT_RATIO))
