"""How often something has happened of late."""

from dataclasses import dataclass
from typing import Self

__all__ = ["EventWindow"]

# The span slides in tenths: what is counted spans between 0.9 and 1 times what was asked for.
_SECTION_COUNT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWindow:
    """Events of a sliding span of time, in constant memory.

    Attributes:
        span_seconds: How long an event is remembered.
        sections: Number of a tenth of the span, counted from the clock's zero, with the events in
            it; ascending, those without events left out.
    """

    span_seconds: float
    sections: tuple[tuple[int, int], ...] = ()

    def add(self, now: float) -> Self:
        """Returns the window with one more event.

        Args:
            now: Seconds of the monotonic clock, not before the last event.
        """
        number = self._number(now)
        kept = self._kept(number)
        if kept and kept[-1][0] >= number:
            kept = (*kept[:-1], (kept[-1][0], kept[-1][1] + 1))
        else:
            kept = (*kept, (number, 1))
        return type(self)(span_seconds=self.span_seconds, sections=kept)

    def count(self, now: float) -> int:
        """Returns how many events the span that ends now has seen.

        Args:
            now: Seconds of the monotonic clock.
        """
        return sum(count for _, count in self._kept(self._number(now)))

    def _number(self, now: float) -> int:
        return int(now / self.span_seconds * _SECTION_COUNT)

    def _kept(self, number: int) -> tuple[tuple[int, int], ...]:
        oldest = number - _SECTION_COUNT
        if not self.sections or self.sections[0][0] > oldest:
            return self.sections
        return tuple(each for each in self.sections if each[0] > oldest)
