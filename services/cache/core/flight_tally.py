"""Counts of single-flight: who was given the right to compute, and who waited for whom."""

from collections import Counter
from enum import Enum

import numpy as np

from services.cache.core.sketches import Bins, Counts

__all__ = ["FlightEvent", "FlightTally"]

_TIMES = Bins.spanning(1e-6, 1e3)


class FlightEvent(Enum):
    """What happens to leases, and to callers who want the same answer.

    Attributes:
        LEASED: A caller was given the right to compute an answer.
        REFRESH_LEASED: The same, for an answer that is there but expires soon.
        FILLED: A lease ended with an answer.
        RELEASED: A lease was given back.
        REJECTED: An answer was refused, since its lease had been lost.
        EXPIRED: A lease ended by itself.
        COALESCED: A caller got the answer that another one was computing.
        WAIT_ENDED: A caller waited in vain.
        NEGATIVE: A caller was told of a failure that is remembered.
    """

    LEASED = "leased"
    REFRESH_LEASED = "refresh_leased"
    FILLED = "filled"
    RELEASED = "released"
    REJECTED = "rejected"
    EXPIRED = "expired"
    COALESCED = "coalesced"
    WAIT_ENDED = "wait_ended"
    NEGATIVE = "negative"


class FlightTally:
    """Running counts since the process started.

    Attributes:
        events: How often each event came.
        waiting_count: Callers waiting now.
        held_count: Leases held now through this replica.
    """

    def __init__(self) -> None:
        self.events: Counter[FlightEvent] = Counter()
        self.waiting_count = 0
        self.held_count = 0
        self._waits: Counts = np.zeros(_TIMES.count, np.int64)

    def add_wait(self, seconds: float) -> None:
        """Counts how long a caller has waited for another one's answer."""
        self._waits[_TIMES.index(seconds)] += 1

    @property
    def lease_count(self) -> int:
        """Leases given out, those for a refresh included."""
        return self.events[FlightEvent.LEASED] + self.events[FlightEvent.REFRESH_LEASED]

    @property
    def wait_times(self) -> tuple[float, ...] | None:
        """p50, p90, p95 and p99 of the waits in seconds; None before the first."""
        return _TIMES.quantiles(self._waits)
