"""The compute of one server, which its active requests share."""

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from services.common.clock import Clock

# How soon a request notices that the share it gets has changed.
_NOTICE_SECONDS = 0.05
_TIMER_SECONDS = 0.001
_ROUNDING = 1e-6


class Machine:
    """Work at rates that fall when several requests are active.

    With k active requests each of them works at 1 / k^contention of its rate: 0 means that they do
    not disturb each other, 1 that the throughput of the machine is constant.

    Args:
        clock: Time.
        contention: The exponent.
        beat_seconds: How often work is looked at. Tokens that come closer to each other leave
            together: a timer and a write for each would cost more than all the rest of an answer.
    """

    def __init__(self, clock: Clock, contention: float, beat_seconds: float) -> None:
        self._clock = clock
        self._contention = contention
        self._beat_seconds = beat_seconds
        self._active = 0
        self._divisor = 1.0
        self._at = clock.monotonic()
        self._worked_seconds = 0.0

    @contextmanager
    def use(self) -> Iterator[None]:
        """Be active."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    async def work(
        self, units: int, rate: float, slowdown: Callable[[], float]
    ) -> AsyncIterator[int]:
        """Do so many units of work.

        Args:
            units: How many.
            rate: Units per second when nothing else is active.
            slowdown: Tells by what to divide the rate now; may raise to end the work.

        Yields:
            How many are done, each time that it has changed; the last is `units`.
        """
        done = 0
        progress = 0.0
        worked = self._update()
        while done < units:
            current = rate / slowdown()
            seconds = min((done + 1 - progress) / current * self._divisor, _NOTICE_SECONDS)
            if done and seconds < self._beat_seconds:
                seconds = self._until_beat()
            await self._clock.sleep(_round_up(seconds))
            now = self._update()
            progress += (now - worked) * current
            worked = now
            due = min(units, math.floor(progress + _ROUNDING))
            if due > done:
                done = due
                yield done

    def _until_beat(self) -> float:
        """One beat or more, until a beat of the whole server: so all requests wake at once."""
        now = self._clock.monotonic()
        beats = math.ceil(now / self._beat_seconds) + 1
        return beats * self._beat_seconds - now

    def _change(self, count: int) -> None:
        self._update()
        self._active += count
        self._divisor = max(1, self._active) ** self._contention

    def _update(self) -> float:
        """Seconds of work that a request which is always active has had so far."""
        now = self._clock.monotonic()
        self._worked_seconds += (now - self._at) / self._divisor
        self._at = now
        return self._worked_seconds


def _round_up(seconds: float) -> float:
    """What a timer makes of it anyway; a shorter one would only be set again and again."""
    return math.ceil(seconds / _TIMER_SECONDS) * _TIMER_SECONDS
