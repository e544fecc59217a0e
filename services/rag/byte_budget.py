"""A number of bytes that everyone together may hold."""

import asyncio
from collections import deque

__all__ = ["ByteBudget"]


class ByteBudget:
    """Lets bytes be held up to a limit; who comes first is served first.

    Args:
        limit_bytes: Most bytes held at a time.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._free_bytes = limit_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held_bytes(self) -> int:
        """Bytes held now."""
        return self._limit_bytes - self._free_bytes

    async def acquire(self, byte_count: int) -> None:
        """Takes bytes, after waiting for them where they are not free.

        Args:
            byte_count: How many; whoever asks for more than the limit gets all of it.
        """
        wanted = self._within_limit(byte_count)
        if not self._waiting and wanted <= self._free_bytes:
            self._free_bytes -= wanted
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, granted))
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.cancelled():
                self._free_bytes += wanted
            # Without this one, those behind it may have room.
            self._grant()
            raise

    def release(self, byte_count: int) -> None:
        """Gives back what was acquired.

        Args:
            byte_count: As it was for `acquire`.
        """
        self._free_bytes += self._within_limit(byte_count)
        self._grant()

    def _within_limit(self, byte_count: int) -> int:
        return min(byte_count, self._limit_bytes)

    def _grant(self) -> None:
        while self._waiting:
            wanted, granted = self._waiting[0]
            if not granted.cancelled():
                if wanted > self._free_bytes:
                    return
                self._free_bytes -= wanted
                granted.set_result(None)
            self._waiting.popleft()
