"""What is left of the time that the running call may take."""

import asyncio
from contextvars import ContextVar

__all__ = ["remaining_seconds", "set_deadline"]

_deadline: ContextVar[tuple[asyncio.AbstractEventLoop, float] | None] = ContextVar(
    "deadline", default=None
)


def remaining_seconds() -> float | None:
    """Returns what is left of the running call's deadline; None outside of a call."""
    deadline = _deadline.get()
    if deadline is None:
        return None
    loop, ends = deadline
    return ends - loop.time()


def set_deadline(remaining: float) -> None:
    """Says how long the running task, and those it starts, may go on, seconds from now."""
    loop = asyncio.get_running_loop()
    _deadline.set((loop, loop.time() + remaining))
