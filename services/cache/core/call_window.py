"""Counts the calls of the last seconds, in slots of one second."""

from collections import deque
from dataclasses import dataclass

__all__ = ["CallWindow", "WindowCounts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCounts:
    """What has happened within a window.

    Attributes:
        call_count: All calls.
        failure_count: Those that failed.
        slow_count: Those that took too long, failed or not.
        slow_second_count: Seconds of the window that had slow calls.
    """

    call_count: int = 0
    failure_count: int = 0
    slow_count: int = 0
    slow_second_count: int = 0


@dataclass(slots=True)
class _Second:
    number: int
    call_count: int = 0
    failure_count: int = 0
    slow_count: int = 0


class CallWindow:
    """The calls of the last seconds.

    Args:
        length_seconds: How far back it reaches, whole seconds.
    """

    def __init__(self, length_seconds: int) -> None:
        self._length_seconds = length_seconds
        self._seconds: deque[_Second] = deque()

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Counts a call that has ended.

        Args:
            now: Seconds on a monotonic clock.
            failed: Whether it failed.
            slow: Whether it took too long.
        """
        number = int(now)
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(_Second(number))
        second = self._seconds[-1]
        second.call_count += 1
        second.failure_count += failed
        second.slow_count += slow

    def counts(self, now: float) -> WindowCounts:
        """Returns what has happened within the window that ends now."""
        oldest = int(now) - self._length_seconds
        while self._seconds and self._seconds[0].number <= oldest:
            self._seconds.popleft()
        return WindowCounts(
            call_count=sum(second.call_count for second in self._seconds),
            failure_count=sum(second.failure_count for second in self._seconds),
            slow_count=sum(second.slow_count for second in self._seconds),
            slow_second_count=sum(second.slow_count > 0 for second in self._seconds),
        )

    def clear(self) -> None:
        """Forgets everything."""
        self._seconds.clear()
