"""Time as an argument.

Everything that needs the time takes a `Clock`, so that tests can hand in one they control.
"""

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Tells the time and waits."""

    def monotonic(self) -> float:
        """Returns seconds from an arbitrary origin; never goes back."""
        ...

    def now(self) -> float:
        """Returns seconds since the Unix epoch, UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits.

        Args:
            seconds: How long, 0 or more.
        """
        ...


class SystemClock:
    """The clock of the operating system."""

    def monotonic(self) -> float:
        """Returns seconds from an arbitrary origin; never goes back."""
        return time.monotonic()

    def now(self) -> float:
        """Returns seconds since the Unix epoch, UTC."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Waits `seconds`."""
        await asyncio.sleep(seconds)
