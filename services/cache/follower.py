"""Keeping something in step with the shared store: together, in the background, within bounds."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from enum import Enum

from services.cache.background import context_of_span
from services.cache.ports import StoreFailure
from services.common.clock import Clock

__all__ = ["Follower", "Knowledge"]

_logger = logging.getLogger(__name__)

_LONGEST_AGE_SECONDS = 5.0


class Knowledge(Enum):
    """How good what is known is.

    Attributes:
        IN_STEP: As the store had it at most 5 s ago, and nobody has said that it changed since.
        BEHIND: As the store once had it; the store cannot be asked now.
        PENDING: Nothing is known yet; the store is being asked.
        NONE: Nothing is known, and the store cannot be asked.
    """

    IN_STEP = "in_step"
    BEHIND = "behind"
    PENDING = "pending"
    NONE = "none"

    @property
    def degraded(self) -> bool:
        """Whether the store could not be asked."""
        return self in (Knowledge.BEHIND, Knowledge.NONE)


class Follower:
    """Follows the store's state of one thing.

    Callers who need it at the same time wait for one step, which no caller's end ends and no
    caller's deadline shortens.

    Args:
        follow: Makes one step; raises StoreFailure where the store cannot be asked; anything
            else it raises is a mistake, which fails the step too and is logged.
        clock: Time.
    """

    def __init__(self, follow: Callable[[], Awaitable[None]], *, clock: Clock) -> None:
        self._follow = follow
        self._clock = clock
        self._known = False
        self._in_step_at = -math.inf
        self._behind = False
        self._is_faulty = False
        self._step: asyncio.Task[bool] | None = None

    @property
    def is_current(self) -> bool:
        """Whether what is known may be used without asking."""
        return not self._behind and self.age_seconds <= _LONGEST_AGE_SECONDS

    @property
    def age_seconds(self) -> float:
        """Time since the store was last asked with success; infinite before."""
        return self._clock.monotonic() - self._in_step_at

    def fall_behind(self) -> None:
        """Notes that something has changed."""
        self._behind = True

    def begin(self) -> None:
        """Begins a step, if none is under way, and does not wait for it."""
        if self._step is None:
            # Without the deadline of whoever comes first, which is not everybody's.
            self._step = asyncio.create_task(self._take_steps(), context=context_of_span())

    def step(self) -> "asyncio.Task[bool]":
        """Begins a step, or joins the one under way; its result is whether it succeeded."""
        self.begin()
        assert self._step is not None  # noqa: S101 - just begun
        return self._step

    async def ready(self, wait_seconds: float) -> Knowledge:
        """Gets in step where that is needed.

        Args:
            wait_seconds: How long to wait for it at most.
        """
        if self.is_current:
            return Knowledge.IN_STEP
        step = self.step()
        await asyncio.wait({step}, timeout=max(0.0, wait_seconds))
        if step.done() and not step.cancelled() and step.result():
            return Knowledge.IN_STEP
        if self._known:
            return Knowledge.BEHIND
        return Knowledge.NONE if step.done() else Knowledge.PENDING

    async def close(self) -> None:
        """Ends a step under way."""
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait({self._step})

    async def _take_steps(self) -> bool:
        try:
            while True:
                self._behind = False
                started = self._clock.monotonic()
                await self._follow()
                self._known = True
                self._in_step_at = started
                self._is_faulty = False
                # What was said to change meanwhile may have come too late for this step.
                if not self._behind:
                    return True
        except StoreFailure:
            self._behind = True
            return False
        except Exception:
            self._behind = True
            # Once: the same mistake is made at each step until what causes it is gone.
            if not self._is_faulty:
                self._is_faulty = True
                _logger.exception("a step to keep up with the shared store has failed")
            return False
        finally:
            self._step = None
