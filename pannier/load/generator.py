"""Asks questions when they are due, whatever becomes of those before: an open loop."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from pannier.load.outcome import CANCELLED, Outcome
from pannier.load.tally import Tally
from pannier.load.traffic import Ask

__all__ = ["Generator", "Send"]

Send = Callable[[Ask], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """Asks questions when they are due.

    Attributes:
        send: Asks a question and returns what became of it; raises nothing but CancelledError.
        tally: Counts.
        monotonic: Tells the time in seconds.
        max_in_flight: Questions under way at once; those due beyond are counted and not sent.
        drain_seconds: How long those under way have to end after the last was asked.
        grace_seconds: How long they have when the run is broken off.
    """

    send: Send
    tally: Tally
    monotonic: Callable[[], float]
    max_in_flight: int
    drain_seconds: float
    grace_seconds: float

    async def run(self, plan: Iterable[tuple[float, Ask]], *, began: float) -> None:
        """Asks all questions of a plan, then waits for their answers.

        When it is cancelled it asks no more, gives those under way their grace and raises
        CancelledError then. Cancelled once more, or while it waits, it breaks them off at once.

        Args:
            plan: Questions in the order they are due, with the seconds since `began`.
            began: When the run began, monotonic seconds.
        """
        under_way: set[asyncio.Task[None]] = set()
        try:
            for due_after, ask in plan:
                due = began + due_after
                # Also 0: a generator that is late lets others work before it goes on.
                await asyncio.sleep(max(0.0, due - self.monotonic()))
                self._ask(ask, due, under_way)
        except BaseException:
            await _end(under_way, self.grace_seconds)
            raise
        await _end(under_way, self.drain_seconds)

    def _ask(self, ask: Ask, due: float, under_way: set[asyncio.Task[None]]) -> None:
        now = self.monotonic()
        if len(under_way) >= self.max_in_flight:
            self.tally.note_refused(mode=ask.mode, tenant=ask.tenant, now=now)
            return
        self.tally.note_sent(mode=ask.mode, tenant=ask.tenant, kind=ask.kind, due=due, now=now)
        task = asyncio.create_task(self._follow(ask, due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    async def _follow(self, ask: Ask, due: float) -> None:
        outcome = Outcome(error="CLIENT_FAILURE")
        try:
            outcome = await self.send(ask)
        except asyncio.CancelledError:
            outcome = Outcome(error=CANCELLED)
            raise
        finally:
            self.tally.note_ended(
                mode=ask.mode, tenant=ask.tenant, due=due, now=self.monotonic(), outcome=outcome
            )


async def _end(under_way: set[asyncio.Task[None]], seconds: float) -> None:
    """Waits for what is under way, and cancels what is left after so many seconds."""
    try:
        if under_way:
            await asyncio.wait(under_way, timeout=seconds)
    finally:
        left = tuple(under_way)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
