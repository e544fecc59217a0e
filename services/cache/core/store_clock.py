"""What time it is by the shared store's clock, at the earliest.

Invalidations are dated by that clock; a value dated too early is at worst computed once more, one
dated too late might outlive its invalidation. So what is told here is a lower bound: the store has
sent its reply after it read its clock, and no clock is off by more than the drift allowed for.

Replies overtake each other on their ways, and the first of two may be taken up last. It says less
than the other one did, which therefore still counts: a value dated by it could be older than the
first note of its tenant, which the other reply has brought, and so be taken for invalidated.
"""

from collections.abc import Callable

__all__ = ["StoreClock"]

# Clocks that are disciplined by NTP are slewed by at most this much.
_DRIFT_RATIO = 0.0005
# The store tells whole milliseconds.
_RESOLUTION_MS = 1.0
# Before the store's first reply there is only this machine's own clock to go by.
_UNKNOWN_MARGIN_MS = 60_000


class StoreClock:
    """Tells the store's time from its replies.

    Args:
        wall_ms: Tells this machine's time, milliseconds since the Unix epoch.
    """

    def __init__(self, wall_ms: Callable[[], float]) -> None:
        self._wall_ms = wall_ms
        self._noted_ms: float | None = None
        self._noted_at = 0.0

    def note(self, store_ms: float, *, sent_at: float, received_at: float) -> None:
        """Learns the store's time from a reply.

        What was known before goes on counting where it says more and the reply does not contradict
        it; where it does, the store's clock was set back.

        Args:
            store_ms: What the store's clock showed, milliseconds since the Unix epoch.
            sent_at: When the store was asked, seconds on the monotonic clock.
            received_at: When the reply came.
        """
        longest_ms = _RESOLUTION_MS + (received_at - sent_at) * 1000
        latest_ms = store_ms + longest_ms * (1.0 + _DRIFT_RATIO)
        if self._noted_ms is not None:
            known_ms = self._at_least_ms(self._noted_ms, received_at)
            if store_ms <= known_ms <= latest_ms:
                return
        self._noted_ms = store_ms
        self._noted_at = received_at

    def now_ms(self, monotonic: float) -> int:
        """Returns what the store's clock shows at least, milliseconds since the Unix epoch.

        Args:
            monotonic: Seconds on the monotonic clock.
        """
        if self._noted_ms is None:
            return int(self._wall_ms()) - _UNKNOWN_MARGIN_MS
        return int(self._at_least_ms(self._noted_ms, monotonic))

    def _at_least_ms(self, noted_ms: float, monotonic: float) -> float:
        elapsed_seconds = max(0.0, monotonic - self._noted_at)
        return noted_ms + elapsed_seconds * 1000 * (1.0 - _DRIFT_RATIO)
