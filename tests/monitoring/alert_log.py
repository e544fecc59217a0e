"""When alerts of a Prometheus were pending, firing and over."""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import httpx

from tests.kit.prometheus import Server

__all__ = ["AlertLog", "AlertTimes"]

_POLL_SECONDS = 0.25


@dataclass(slots=True)
class AlertTimes:
    """When an alert came and went, in seconds since the log began; None for not yet.

    Attributes:
        pending: When its condition held first.
        firing: When it fired first.
        ended: When it was last seen to be over after that.
        labels: What it was about when it fired first.
    """

    pending: float | None = None
    firing: float | None = None
    ended: float | None = None
    labels: dict[str, str] = field(default_factory=dict)


class AlertLog:
    """Watches the alerts of a Prometheus.

    Args:
        prometheus: The server.

    Attributes:
        alerts: What was seen, by the alert's name.
    """

    def __init__(self, prometheus: Server) -> None:
        self.alerts: dict[str, AlertTimes] = {}
        self._prometheus = prometheus
        self._began = time.monotonic()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            try:
                reply = await self._prometheus.get("/api/v1/alerts")
            except httpx.TransportError:
                # Busy with more than it can do; the next one tells.
                reply = None
            if reply is not None:
                self._note(reply["data"]["alerts"])
                self._changed.set()
                self._changed = asyncio.Event()
            await asyncio.sleep(_POLL_SECONDS)

    def seconds(self) -> float:
        """Returns the time since the log began."""
        return time.monotonic() - self._began

    async def wait_until_fired(self, names: Collection[str], *, timeout_seconds: float) -> bool:
        """Waits until alerts have fired; returns whether all did in time."""
        return await self._wait(lambda each: each.firing is not None, names, timeout_seconds)

    async def wait_until_over(self, names: Collection[str], *, timeout_seconds: float) -> bool:
        """Waits until alerts that have fired do so no more; returns whether all ended in time."""
        return await self._wait(lambda each: each.ended is not None, names, timeout_seconds)

    async def _wait(
        self, holds: Callable[[AlertTimes], bool], names: Collection[str], timeout_seconds: float
    ) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                while not all(name in self.alerts and holds(self.alerts[name]) for name in names):
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _note(self, active: list[dict[str, object]]) -> None:
        now = self.seconds()
        seen: dict[str, set[str]] = {}
        for each in active:
            labels = each["labels"]
            assert isinstance(labels, dict)
            name, state = labels["alertname"], str(each["state"])
            times = self.alerts.setdefault(name, AlertTimes())
            seen.setdefault(name, set()).add(state)
            if times.pending is None:
                times.pending = now
            if state == "firing" and times.firing is None:
                times.firing, times.labels = now, dict(labels)
        for name, times in self.alerts.items():
            firing = "firing" in seen.get(name, ())
            if firing:
                times.ended = None
            elif times.firing is not None and times.ended is None:
                times.ended = now
