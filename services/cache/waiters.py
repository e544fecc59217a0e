"""A caller who wants an answer that somebody may be computing."""

import asyncio

from opentelemetry import trace

from services.cache.core.fills import LiveText
from services.cache.core.flights import Missed, Outcome, WaitEnded
from services.cache.core.model import Control, Hit
from services.cache.lease_origins import link_to_holder
from services.cache.look_up import Faults

__all__ = ["Waiter"]


# What a caller must have left of its time to do something without an answer.
_MARGIN_SECONDS = 0.05


class Waiter:
    """One caller in the line for one answer.

    Args:
        control: Which answers it accepts.
        lease_seconds: How long its lease is to last.
        wait_seconds: How long it waits for another caller's answer.
        remaining_seconds: How long it can stay at all.
        streaming: Whether it follows the text of an answer that is being computed.
        came_ms: When it came, by the store's clock at the earliest, milliseconds since the Unix
            epoch.

    Attributes:
        outcome: What came of it; None while it waits.
        waits_since: When it was known that somebody else computes the answer, seconds on the
            loop's clock; None before.
        text: The text it follows.
        has_begun: Whether it has been sent some of that text, and so follows no other.
        faults: Why values that were there did not count.
        span: That of its call.
    """

    def __init__(
        self,
        *,
        control: Control,
        lease_seconds: float,
        wait_seconds: float,
        remaining_seconds: float,
        streaming: bool,
        came_ms: int,
    ) -> None:
        self.control = control
        self._came_ms = came_ms
        self.lease_seconds = lease_seconds
        self.streaming = streaming
        self.outcome: Outcome | None = None
        self.waits_since: float | None = None
        self.text: LiveText | None = None
        self.has_begun = False
        self.faults = Faults()
        self.span = trace.get_current_span()
        self._leader = ""
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + remaining_seconds
        self._wait_seconds = wait_seconds
        self._news = asyncio.Event()
        self._settled_at: float | None = None
        self._timer = self._loop.call_at(self._ends_at, self.settle, Missed())

    async def news(self) -> None:
        """Waits until there is an outcome, or text."""
        await self._news.wait()
        self._news.clear()

    def settle(self, outcome: Outcome) -> None:
        """Ends the wait; only the first outcome counts."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        self._settled_at = self._loop.time()
        self._timer.cancel()
        if self.text is not None:
            self.text.leave(self._news.set)
        self._news.set()

    def may_have(self, hit: Hit) -> bool:
        """Returns whether an answer is for it: not one for those who came before it."""
        return hit.handed_over_ms is None or self._came_ms <= hit.handed_over_ms

    @property
    def waited_seconds(self) -> float | None:
        """How long it has waited for somebody else; None where it has not."""
        if self.waits_since is None:
            return None
        until = self._loop.time() if self._settled_at is None else self._settled_at
        return until - self.waits_since

    def begin_waiting(self, leader: str) -> None:
        """Learns that somebody else computes the answer; from now on its patience is limited.

        Args:
            leader: Token of the lease that the answer is computed under.
        """
        if self.outcome is not None:
            return
        if leader != self._leader:
            self._leader = leader
            link_to_holder(self.span, leader)
        if self.waits_since is not None:
            return
        self.waits_since = self._loop.time()
        ends_at = min(self.waits_since + self._wait_seconds, self._ends_at - _MARGIN_SECONDS)
        self._reset_timer(ends_at)

    def offer_text(self, text: LiveText) -> None:
        """Lets it follow a text, unless it has been sent some of another one."""
        if not self.streaming or self.has_begun or self.outcome is not None:
            return
        if self.text is not None:
            self.text.leave(self._news.set)
        self.text = text
        text.listen(self._news.set)
        self._news.set()

    def begin_text(self) -> None:
        """Has it follow its text to the end, however long that takes."""
        self.has_begun = True
        if self.outcome is None:
            self._reset_timer(self._ends_at - _MARGIN_SECONDS)

    @property
    def is_void(self) -> bool:
        """Whether it has been sent text of which nothing will come."""
        return self.has_begun and self.text is not None and self.text.closed

    def _reset_timer(self, ends_at: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_at(ends_at, self.settle, WaitEnded())
