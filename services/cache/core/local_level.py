"""The level inside the process: the most recently used values, bounded by bytes.

Holds encoded bytes only. A caller gets a message of its own each time, so that nobody can change
what another one will be given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cachebox import LRUCache

from services.cache.core.model import Scope

__all__ = ["Departure", "LocalLevel", "LocalValue"]

# The objects around a payload: key, value, scope, numbers, and the map's own entry (measured).
_ENTRY_OVERHEAD_BYTES = 752
# A tag is a text of 24 characters in a tuple (measured).
_TAG_BYTES = 87
_TIDIED_COUNT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalValue:
    """A value of the local level, with everything that decides whether it may still be given.

    Attributes:
        payload: The value's own encoding.
        created_ms: When its computation began, by the store's clock, milliseconds since the Unix
            epoch.
        expires_ms: When it ends to be valid, by the same clock.
        kept_at: When the local level got it, seconds on the monotonic clock.
        local_until: When the local level forgets it, by the same clock.
        scope: What it belongs to.
        tags: What it depends on.
        delta_ms: How long its computation took, milliseconds; 0 where that is not known.
    """

    payload: bytes
    created_ms: int
    expires_ms: int
    kept_at: float
    local_until: float
    scope: Scope
    tags: tuple[str, ...] = ()
    delta_ms: int = 0


class Departure(Enum):
    """Why a value has left the local level by itself; the values are labels of metrics.

    Attributes:
        CAPACITY: It was pushed out although it would still have counted.
        EXPIRED: Its time was up, whether that was noticed when it was asked for or when its room
            was needed.
    """

    CAPACITY = "capacity"
    EXPIRED = "expired"


DepartureHandler = Callable[[Departure, float], None]
"""Is told why a value has left and for how long it counted, seconds."""


def _size_bytes(_key: bytes, value: LocalValue) -> int:
    return len(value.payload) + _ENTRY_OVERHEAD_BYTES + _TAG_BYTES * len(value.tags)


def _tell_nobody(_departure: Departure, _seconds: float) -> None:
    return


class LocalLevel:
    """A bounded map of recently used values.

    Args:
        limit_bytes: Most bytes it may hold; 0 to hold nothing.

    Attributes:
        limit_bytes: The same.
        eviction_count: Values pushed out before their time was up.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.eviction_count = 0
        self._tell: DepartureHandler = _tell_nobody
        # The library takes a limit of 0 for none at all.
        self._values: LRUCache[bytes, LocalValue] = LRUCache(
            max(1, limit_bytes), getsizeof=_size_bytes
        )

    def get(self, key: bytes, now: float) -> LocalValue | None:
        """Returns a value whose time is not up; whether it was invalidated is for others to say.

        Args:
            key: Its value key.
            now: Seconds on the monotonic clock.
        """
        value: LocalValue | None = self._values.get(key, None)
        if value is None or now < value.local_until:
            return value
        del self._values[key]
        self._leave(value, now)
        return None

    def put(self, key: bytes, value: LocalValue) -> None:
        """Keeps a value, at the cost of those not used for longest; drops what can never fit."""
        room_bytes = self.limit_bytes - _size_bytes(key, value)
        self._values.pop(key, None)
        self._tidy(value.kept_at)
        if room_bytes < 0:
            return
        # The library would make room by itself, but not say of what.
        while self._values.current_size() > room_bytes:
            _, oldest = self._values.popitem()
            self._leave(oldest, value.kept_at)
        self._values.insert(key, value)

    def discard(self, key: bytes) -> None:
        """Forgets a value, if it is there; of no concern to those who are told of departures."""
        self._values.pop(key, None)

    def on_departure(self, handler: DepartureHandler) -> None:
        """Has someone told of each value that is evicted or expires."""
        self._tell = handler

    def _tidy(self, now: float) -> None:
        """Removes some of what has expired unnoticed: a level that is full is one in want of room.

        With each value that comes, two of those not used for longest may go.
        """
        for _ in range(_TIDIED_COUNT):
            oldest = self._values.least_recently_used() if len(self._values) else None
            if oldest is None:
                return
            value = self._values.peek(oldest)
            if now < value.local_until:
                return
            del self._values[oldest]
            self._leave(value, now)

    def _leave(self, value: LocalValue, now: float) -> None:
        departure = Departure.CAPACITY if now < value.local_until else Departure.EXPIRED
        if departure is Departure.CAPACITY:
            self.eviction_count += 1
        self._tell(departure, max(0.0, min(now, value.local_until) - value.kept_at))

    def values(self) -> list[LocalValue]:
        """Returns what is held at this moment, expired values included."""
        return list(self._values.values())

    @property
    def entry_count(self) -> int:
        """Values held, those that have expired unnoticed included."""
        return len(self._values)

    @property
    def size_bytes(self) -> int:
        """Bytes held, an estimate of the objects around the payloads included."""
        return int(self._values.current_size())
