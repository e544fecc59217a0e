"""Values that are kept for a while, as many as fit a size."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["TimedCache"]

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class TimedCache(Generic[Key, Value]):
    """Keeps values by key; the one unused longest goes first.

    Args:
        retention_seconds: How long a value is kept.
        limit_bytes: Most memory for all values, as they are said to take.
    """

    def __init__(self, *, retention_seconds: float, limit_bytes: int) -> None:
        self._retention_seconds = retention_seconds
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[Key, tuple[Value, float, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key, *, now: float) -> Value | None:
        """Returns a value that is not older than it may be; `now` in monotonic seconds."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, expires_at, _ = entry
        if now >= expires_at:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: Key, value: Value, *, size_bytes: int, now: float) -> None:
        """Keeps a value, unless it is larger than all may be together."""
        if key in self._entries:
            self._drop(key)
        if size_bytes > self._limit_bytes:
            return
        self._entries[key] = value, now + self._retention_seconds, size_bytes
        self._bytes += size_bytes
        while self._bytes > self._limit_bytes:
            self._drop(next(iter(self._entries)))

    @property
    def size_bytes(self) -> int:
        """What the values take together."""
        return self._bytes

    def _drop(self, key: Key) -> None:
        self._bytes -= self._entries.pop(key)[2]
