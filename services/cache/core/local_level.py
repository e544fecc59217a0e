"""The level inside the process: the most recently used values, bounded by bytes.

Holds encoded bytes only. A caller gets a message of its own each time, so that nobody can change
what another one will be given.
"""

from dataclasses import dataclass

from cachebox import LRUCache

from services.cache.core.model import Scope

__all__ = ["LocalLevel", "LocalValue"]

# The objects around a payload: key, value, scope, numbers, and the map's own entry (measured).
_ENTRY_OVERHEAD_BYTES = 720
# A tag is a text of 24 characters in a tuple (measured).
_TAG_BYTES = 87


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalValue:
    """A value of the local level, with everything that decides whether it may still be given.

    Attributes:
        payload: The value's own encoding.
        created_ms: When its computation began, by the store's clock, milliseconds since the Unix
            epoch.
        expires_ms: When it ends to be valid, by the same clock.
        local_until: When the local level forgets it, seconds on the monotonic clock.
        scope: What it belongs to.
        tags: What it depends on.
        delta_ms: How long its computation took, milliseconds; 0 where that is not known.
    """

    payload: bytes
    created_ms: int
    expires_ms: int
    local_until: float
    scope: Scope
    tags: tuple[str, ...] = ()
    delta_ms: int = 0


def _size_bytes(_key: bytes, value: LocalValue) -> int:
    return len(value.payload) + _ENTRY_OVERHEAD_BYTES + _TAG_BYTES * len(value.tags)


class LocalLevel:
    """A bounded map of recently used values.

    Args:
        limit_bytes: Most bytes it may hold; 0 to hold nothing.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.eviction_count = 0
        self.expiry_count = 0
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
        self.expiry_count += 1
        return None

    def put(self, key: bytes, value: LocalValue) -> None:
        """Keeps a value, at the cost of those not used for longest; drops what can never fit."""
        if _size_bytes(key, value) > self.limit_bytes:
            self._values.pop(key, None)
            return
        count_before = len(self._values)
        replaced = self._values.insert(key, value)
        added = 1 if replaced is None else 0
        self.eviction_count += count_before + added - len(self._values)

    def discard(self, key: bytes) -> None:
        """Forgets a value, if it is there."""
        self._values.pop(key, None)

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
