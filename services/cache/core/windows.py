"""Counts of the last minute, the last five, the last hour, and of all time.

Events are added to one vector of counts. Every 5 s it is added to three rings and emptied; a ring
keeps the sum of its slots, takes away what becomes too old, and needs no second look at an event.
The memory depends on the number of counts alone.
"""

import numpy as np

from services.cache.core.sketches import Counts

__all__ = ["SPANS_SECONDS", "Windows"]

_TICK_SECONDS = 5
# Slots of each ring, and ticks of each slot.
_RINGS = ((12, 1), (10, 6), (12, 60))

SPANS_SECONDS: tuple[float | None, ...] = (
    *(float(slots * ticks * _TICK_SECONDS) for slots, ticks in _RINGS),
    None,
)
"""Length of each window in the order of `Windows.sums`; None for all time."""


class _Ring:
    """The sum of the last slots, the one that is being filled included."""

    def __init__(self, slot_count: int, ticks_per_slot: int, width: int, tick: int) -> None:
        self._ticks_per_slot = ticks_per_slot
        self._slots = np.zeros((slot_count, width), np.int64)
        self._newest = tick // ticks_per_slot
        self.total: Counts = np.zeros(width, np.int64)

    def add(self, counts: Counts) -> None:
        """Adds to the newest slot."""
        self._slots[self._newest % len(self._slots)] += counts
        self.total += counts

    def advance(self, tick: int) -> None:
        """Forgets the slots that are too old at a time."""
        newest = tick // self._ticks_per_slot
        slot_count = len(self._slots)
        for number in range(max(self._newest + 1, newest - slot_count + 1), newest + 1):
            slot = self._slots[number % slot_count]
            self.total -= slot
            slot.fill(0)
        self._newest = newest


class Windows:
    """A vector of counts, summed up over sliding windows.

    An event counts in a window while it is younger than the window less one slot, and no more when
    it is older than the window; in between it depends on where slots begin.

    Args:
        width: How many counts there are.
        now: Seconds on the monotonic clock.
    """

    def __init__(self, width: int, now: float) -> None:
        self._tick = _tick(now)
        self._recent: Counts = np.zeros(width, np.int64)
        self._life: Counts = np.zeros(width, np.int64)
        self._rings = tuple(_Ring(*ring, width, self._tick) for ring in _RINGS)

    def at(self, now: float) -> Counts:
        """Returns the vector to which events of this moment are added.

        Args:
            now: Seconds on the monotonic clock, not before the last call's.
        """
        tick = _tick(now)
        if tick > self._tick:
            self._settle(tick)
        return self._recent

    def sums(self, now: float) -> tuple[Counts, ...]:
        """Returns the sums over each window, in the order of `SPANS_SECONDS`."""
        recent = self.at(now)
        return (*(ring.total + recent for ring in self._rings), self._life + recent)

    def _settle(self, tick: int) -> None:
        for ring in self._rings:
            ring.add(self._recent)
            ring.advance(tick)
        self._life += self._recent
        self._recent.fill(0)
        self._tick = tick


def _tick(now: float) -> int:
    return int(now // _TICK_SECONDS)
