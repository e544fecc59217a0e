"""The answers of this replica that their callers may go on reading after a lost connection."""

import asyncio
from collections import Counter

from services.common.metrics import Metrics
from services.rag.answer_stream import AnswerStream, Owner

__all__ = ["StreamRegistry"]


class StreamRegistry:
    """Keeps answers while they are worked on and for some time after that, within bounds.

    What has ended makes room for what is new, first that of the tenant with the most.

    Args:
        metrics: Receives how much is kept.
        limit_count: How many answers are kept at the most.
        limit_bytes: How many bytes their events take at the most.
        retention_seconds: For how long an answer is kept after its end.
    """

    def __init__(
        self, metrics: Metrics, *, limit_count: int, limit_bytes: int, retention_seconds: float
    ) -> None:
        self._metrics = metrics
        self._limit_count = limit_count
        self._limit_bytes = limit_bytes
        self._retention_seconds = retention_seconds
        # In the order in which they were asked for.
        self._streams: dict[str, AnswerStream] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self.size_bytes = 0
        self._measure()

    def __len__(self) -> int:
        return len(self._streams)

    def has_room(self) -> bool:
        """Makes room for one more; returns whether there is."""
        while len(self._streams) >= self._limit_count and self._drop_ended():
            pass
        return len(self._streams) < self._limit_count

    def add(self, stream: AnswerStream) -> None:
        """Keeps an answer from now on."""
        self._streams[stream.query_id] = stream
        self._measure()

    def find(self, query_id: str, owner: Owner) -> AnswerStream | None:
        """Returns an answer that the owner may read."""
        stream = self._streams.get(query_id)
        return stream if stream is not None and stream.owner == owner else None

    def expire_later(self, stream: AnswerStream) -> None:
        """Keeps an answer that has ended for its time."""
        if stream.query_id in self._streams:
            self._expiries[stream.query_id] = asyncio.get_running_loop().call_later(
                self._retention_seconds, self.drop, stream
            )

    def drop(self, stream: AnswerStream) -> None:
        """Forgets an answer."""
        if self._streams.pop(stream.query_id, None) is None:
            return
        expiry = self._expiries.pop(stream.query_id, None)
        if expiry is not None:
            expiry.cancel()
        stream.log.close()
        self._measure()

    def resize(self, size_bytes: int) -> None:
        """Notes that events have come or gone, and keeps within the bound."""
        self.size_bytes += size_bytes
        while self.size_bytes > self._limit_bytes and self._streams:
            if not self._drop_ended():
                max(self._streams.values(), key=lambda each: each.log.size_bytes).log.drop_oldest()
        self._metrics.set_gauge("rag_resumable_bytes", self.size_bytes)

    def close(self) -> None:
        """Forgets all answers."""
        for stream in tuple(self._streams.values()):
            self.drop(stream)

    def _drop_ended(self) -> bool:
        """Forgets an answer that has ended and that nobody reads; returns whether there was one."""
        counts = Counter(each.owner.tenant_id for each in self._streams.values())
        victim = max(
            (each for each in self._streams.values() if each.log.is_finished and not each.readers),
            key=lambda each: counts[each.owner.tenant_id],
            default=None,
        )
        if victim is not None:
            self.drop(victim)
        return victim is not None

    def _measure(self) -> None:
        self._metrics.set_gauge("rag_resumable_answers", len(self._streams))
        self._metrics.set_gauge("rag_resumable_bytes", self.size_bytes)
