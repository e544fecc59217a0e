"""The events of one answer: appended by the one who works on it, read by those who wait for it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import ServiceError
from services.rag.core.stream_errors import QueryEventsLost

__all__ = ["EVENT_BYTES", "EventLog", "Reader"]

EVENT_BYTES = 800
"""What an event takes in memory beside its content (measured: 600 for a word, 950 for progress)."""


@dataclass(eq=False, slots=True)
class Reader:
    """One who reads a log; ends in `error` where that is set."""

    error: ServiceError | None = None


class EventLog:
    """Numbers events and keeps them for their readers.

    Whoever appends never waits. Beyond the limit the oldest events are dropped, and a reader that
    has not got them yet ends.

    Args:
        query_id: Whose events they are.
        limit_bytes: How much is kept at the most.
        keeps: Whether events are kept that have been read; else there is one reader.
        on_resized: Told by how many bytes the log has grown or shrunk; None where nobody is.
    """

    def __init__(
        self,
        query_id: str,
        *,
        limit_bytes: int,
        keeps: bool,
        on_resized: Callable[[int], None] | None = None,
    ) -> None:
        self._query_id = query_id
        self._limit_bytes = limit_bytes
        self._keeps = keeps
        self._on_resized = on_resized
        self._events: deque[tuple[pb.StreamQueryResponse, int]] = deque()
        self._waiting: set[asyncio.Future[None]] = set()
        self._error: BaseException | None = None
        self._is_closed = False
        self.last_sequence = 0
        self.size_bytes = 0
        self.is_finished = False

    def append(self, event: pb.StreamQueryResponse) -> None:
        """Adds an event and gives it its number; not any more once the log was closed."""
        if self._is_closed:
            return
        self.last_sequence += 1
        event.sequence = self.last_sequence
        size = event.ByteSize() + EVENT_BYTES
        self._events.append((event, size))
        self._resize(size)
        while self.size_bytes > self._limit_bytes and len(self._events) > 1:
            self.drop_oldest()
        self._wake()

    def finish(self, error: BaseException | None = None) -> None:
        """Says that there will be no more events, and what readers end in."""
        self.is_finished = True
        self._error = error
        self._wake()

    def drop_oldest(self) -> None:
        """Drops the oldest event, if there is one."""
        if self._events:
            self._resize(-self._events.popleft()[1])

    def close(self) -> None:
        """Drops all events, those to come included."""
        self._is_closed = True
        self._events.clear()
        self._resize(-self.size_bytes)

    def stop(self, reader: Reader, error: ServiceError) -> None:
        """Has a reader end in an error."""
        reader.error = error
        self._wake()

    async def read(
        self, reader: Reader, after_sequence: int = 0
    ) -> AsyncGenerator[pb.StreamQueryResponse, None]:
        """Yields the events after one of them, those to come included.

        Raises:
            QueryEventsLost: The next event has been dropped.
            ServiceError: What the reader was stopped with.
            BaseException: What the log was finished with.
        """
        position = after_sequence
        while True:
            while position < self.last_sequence and reader.error is None:
                index = position - (self.last_sequence - len(self._events))
                if index < 0:
                    raise QueryEventsLost(
                        self._query_id, self.last_sequence - len(self._events) + 1
                    )
                event = self._events[index][0]
                position += 1
                if not self._keeps:
                    self.drop_oldest()
                yield event
            if reader.error is not None:
                raise reader.error
            if self.is_finished:
                if self._error is not None:
                    raise self._error
                return
            await self._change()

    async def _change(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)

    def _wake(self) -> None:
        for each in self._waiting:
            if not each.done():
                each.set_result(None)

    def _resize(self, size: int) -> None:
        self.size_bytes += size
        if self._on_resized is not None:
            self._on_resized(size)
