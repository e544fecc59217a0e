"""The level inside the process: the most recently used values, bounded by bytes.

Holds encoded bytes only. A caller gets a message of its own each time, so that nobody can change
what another one will be given.
"""

from dataclasses import dataclass

from cachebox import LRUCache

__all__ = ["LocalLevel", "LocalValue"]

# The objects around a payload: key, value, tuple slots and the map's own entry (measured).
_ENTRY_OVERHEAD_BYTES = 300


@dataclass(frozen=True, slots=True)
class LocalValue:
    """A value of the local level.

    Attributes:
        payload: The value's own encoding.
        created_ms: When it was stored, milliseconds since the Unix epoch.
        expires_at: When the local level forgets it, seconds on the monotonic clock.
    """

    payload: bytes
    created_ms: int
    expires_at: float


def _size_bytes(_key: bytes, value: LocalValue) -> int:
    return len(value.payload) + _ENTRY_OVERHEAD_BYTES


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
        """Returns a value that is still valid.

        Args:
            key: Its key.
            now: Seconds on the monotonic clock.
        """
        value: LocalValue | None = self._values.get(key, None)
        if value is None or now < value.expires_at:
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

    @property
    def entry_count(self) -> int:
        """Values held, those that have expired unnoticed included."""
        return len(self._values)

    @property
    def size_bytes(self) -> int:
        """Bytes held, an estimate of the objects around the payloads included."""
        return int(self._values.current_size())
