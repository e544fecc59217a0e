"""What stands between a backend and a caller who may be slower.

A backend's slot is worth more than a caller's patience: the backend is read as fast as it writes,
up to a limit, so that its slot falls free when it is done, however slowly the caller reads. What
has gathered meanwhile goes out as one message. A caller who reads nothing at all keeps the slot no
longer than for a while.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from services.balancer.core.requests import (
    Completed,
    Delta,
    LogprobsDelta,
    Resumed,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallsDelta,
)

__all__ = ["Event", "EventBuffer"]

Event = Started | Resumed | Delta | Completed

# An answer of ordinary length; beyond it the backend is read no faster than the caller reads.
_LIMIT_CHARACTERS = 64 * 1024
_PATIENCE_SECONDS = 60.0
# What a token with its probability takes in memory, as characters of text.
_TOKEN_CHARACTERS = 64


class EventBuffer:
    """A queue of events between one writer and one reader.

    Args:
        limit_characters: Text, or what takes as much memory, to hold before the writer has to wait.
        patience_seconds: How long the writer waits while nothing is read.
    """

    def __init__(
        self,
        limit_characters: int = _LIMIT_CHARACTERS,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._limit_characters = limit_characters
        self._patience_seconds = patience_seconds
        self._events: deque[Event] = deque()
        self._held_characters = 0
        self._something = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ended = False

    @property
    def has_room(self) -> bool:
        """Whether whoever adds an event need not wait."""
        return self._room.is_set()

    async def put(self, event: Event) -> None:
        """Adds an event; waits while too much is held, unless it weighs nothing.

        Raises:
            TimeoutError: Too much is held, and nothing was read for a long time.
        """
        characters = _characters(event)
        if characters and not self._room.is_set():
            async with asyncio.timeout(self._patience_seconds):
                await self._room.wait()
        self._held_characters += characters
        if self._held_characters > self._limit_characters:
            self._room.clear()
        self._add(event)
        self._something.set()

    def _add(self, event: Event) -> None:
        last = self._events[-1] if self._events else None
        # Strings of one kind that wait together are one string; the sum stays below the limit.
        if isinstance(last, TextDelta) and isinstance(event, TextDelta):
            self._events[-1] = TextDelta(last.text + event.text)
        elif isinstance(last, ThinkingDelta) and isinstance(event, ThinkingDelta):
            self._events[-1] = ThinkingDelta(last.text + event.text)
        else:
            self._events.append(event)

    def end(self) -> None:
        """Says that nothing more will come."""
        self._ended = True
        self._something.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yields the events in order until the end."""
        while True:
            while self._events:
                event = self._events.popleft()
                self._held_characters -= _characters(event)
                if self._held_characters <= self._limit_characters:
                    self._room.set()
                yield event
            if self._ended:
                return
            self._something.clear()
            await self._something.wait()


def _characters(event: Event) -> int:
    """Says what an event takes in memory; those that come once or twice count for nothing."""
    match event:
        case TextDelta() | ThinkingDelta():
            return len(event.text)
        case LogprobsDelta():
            return sum(_TOKEN_CHARACTERS * (1 + len(each.top)) for each in event.tokens)
        case ToolCallsDelta():
            return sum(len(each.arguments_json) for each in event.calls)
        case _:
            return 0
