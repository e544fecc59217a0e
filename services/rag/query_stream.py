"""Answers as streams of events, which their callers may take up again after a lost connection."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from opentelemetry.trace import get_current_span

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import FieldViolation, InvalidRequest, ShuttingDown
from services.common.metrics import Metrics
from services.rag.answer_stream import AnswerStream, Owner
from services.rag.core.options import Question
from services.rag.core.stream_errors import QueryNotFound, QueryReaderReplaced
from services.rag.counted_answers import CountedAnswers
from services.rag.event_log import EventLog, Reader
from services.rag.recorder import Recorder
from services.rag.stream_registry import StreamRegistry

__all__ = ["QueryStreams", "StreamLimits"]

_READER_COUNT = 2
# What one answer may take of the memory for all.
_SHARE = 8
# Kept back from the deadline, so that the failure can still be told.
_RESERVE_SECONDS = 0.1
_RESERVE_RATIO = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """Bounds of streams.

    Attributes:
        heartbeat_seconds: After how long without an event one says that work goes on.
        grace_seconds: How long a resumable answer is worked on that nobody reads.
        retention_seconds: How long it is kept after its end.
        kept_count: Most resumable answers.
        kept_bytes: Most memory of their events.
    """

    heartbeat_seconds: float
    grace_seconds: float
    retention_seconds: float
    kept_count: int
    kept_bytes: int


class QueryStreams:
    """Answers questions as streams of events.

    Args:
        answers: Answers questions.
        make_recorder: Makes the recorder of a question.
        metrics: Receives what is counted.
        limits: Bounds.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        *,
        answers: CountedAnswers,
        make_recorder: Callable[[], Recorder],
        metrics: Metrics,
        limits: StreamLimits,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._answers = answers
        self._make_recorder = make_recorder
        self._metrics = metrics
        self._limits = limits
        self._remaining_seconds = remaining_seconds
        self._registry = StreamRegistry(
            metrics,
            limit_count=limits.kept_count,
            limit_bytes=limits.kept_bytes,
            retention_seconds=limits.retention_seconds,
        )
        self._under_way: set[AnswerStream] = set()
        self._grace_timers: dict[AnswerStream, asyncio.TimerHandle] = {}
        self._drain_timer: asyncio.TimerHandle | None = None

    @property
    def resumable_count(self) -> int:
        """Answers that can be gone on with, under way or ended."""
        return len(self._registry)

    @property
    def under_way_count(self) -> int:
        """Answers that are worked on."""
        return len(self._under_way)

    async def open(
        self, question: Question, *, tenant: str, user: str, resumable: bool
    ) -> AsyncGenerator[pb.StreamQueryResponse, None]:
        """Answers a question; the first event is `started`, the last `completed` or `failed`.

        Args:
            question: The question.
            tenant: Who asks.
            user: Who of the tenant; empty where that is not known.
            resumable: Whether the answer is gone on with for a while when the reader leaves early;
                else all that works on it has ended when this generator has.

        Raises:
            ServiceError: After `failed`: what the answer has failed with.
        """
        stream = self._start(question, Owner(tenant, user), resumable=resumable)
        async with aclosing(self._read(stream, 0)) as events:
            async for event in events:
                yield event

    async def resume(
        self, query_id: str, *, after_sequence: int, tenant: str, user: str
    ) -> AsyncGenerator[pb.StreamQueryResponse, None]:
        """Goes on with an answer, as `open` would have.

        Raises:
            QueryNotFound: The caller has no such answer here.
            InvalidRequest: The answer does not have as many events yet.
            QueryEventsLost: The events asked for are not kept any more.
            QueryReaderReplaced: Two others read the answer now.
            ServiceError: After `failed`: what the answer has failed with.
        """
        stream = self._registry.find(query_id, Owner(tenant, user))
        if stream is None:
            self._metrics.count("rag_resumes_total", "not_found")
            raise QueryNotFound(query_id)
        if after_sequence > stream.log.last_sequence:
            rule = f"Must be at most {stream.log.last_sequence}, the number of the last event."
            raise InvalidRequest(FieldViolation("after_sequence", rule))
        outcome = "ended" if stream.log.is_finished else "under_way"
        self._metrics.count("rag_resumes_total", outcome)
        get_current_span().add_link(stream.span_context)
        async with aclosing(self._read(stream, after_sequence)) as events:
            async for event in events:
                yield event

    def drain(self, within_seconds: float) -> None:
        """Ends what nobody reads now, and what is not complete later; begins nothing resumable.

        Args:
            within_seconds: How long the others may take. They then fail with SHUTTING_DOWN.
        """
        self._drain_timer = asyncio.get_running_loop().call_later(within_seconds, self._stop_all)
        for stream in tuple(self._under_way):
            if not stream.readers:
                self._give_up(stream)

    async def close(self) -> None:
        """Ends everything and waits for its end."""
        if self._drain_timer is not None:
            self._drain_timer.cancel()
        tasks = [each.task for each in self._under_way]
        self._stop_all()
        if tasks:
            await asyncio.wait(tasks)
        self._registry.close()

    def _start(self, question: Question, owner: Owner, *, resumable: bool) -> AnswerStream:
        recorder = self._make_recorder()
        is_resumable = resumable and self._drain_timer is None and self._registry.has_room()
        log = EventLog(
            recorder.query_id,
            limit_bytes=self._limits.kept_bytes // _SHARE,
            keeps=is_resumable,
            on_resized=self._registry.resize if is_resumable else None,
        )
        stream = AnswerStream(
            self._answers,
            question,
            recorder,
            log,
            owner=owner,
            is_resumable=is_resumable,
            heartbeat_seconds=self._limits.heartbeat_seconds,
            time_limit_seconds=self._time_limit_seconds(),
        )
        self._under_way.add(stream)
        if is_resumable:
            self._registry.add(stream)
        stream.task.add_done_callback(lambda _: self._end(stream))
        return stream

    def _end(self, stream: AnswerStream) -> None:
        self._under_way.discard(stream)
        self._stop_grace(stream)
        if stream.readers or not stream.task.cancelled():
            self._registry.expire_later(stream)
        else:
            self._registry.drop(stream)

    async def _read(
        self, stream: AnswerStream, after_sequence: int
    ) -> AsyncGenerator[pb.StreamQueryResponse, None]:
        reader = Reader()
        self._attach(stream, reader)
        try:
            async with aclosing(stream.log.read(reader, after_sequence)) as events:
                async for event in events:
                    yield event
        finally:
            self._detach(stream, reader)
            if stream.log.is_finished or not stream.is_resumable:
                # Nothing of the answer is left behind when its call ends.
                await asyncio.wait([stream.task])

    def _attach(self, stream: AnswerStream, reader: Reader) -> None:
        self._stop_grace(stream)
        if len(stream.readers) >= _READER_COUNT:
            # The oldest: most likely its connection is lost, and nobody has noticed yet.
            stream.log.stop(stream.readers.pop(0), QueryReaderReplaced(stream.query_id))
        stream.readers.append(reader)

    def _detach(self, stream: AnswerStream, reader: Reader) -> None:
        if reader in stream.readers:
            stream.readers.remove(reader)
        if stream.readers or stream.log.is_finished:
            return
        if stream.is_resumable and self._drain_timer is None:
            self._grace_timers[stream] = asyncio.get_running_loop().call_later(
                self._limits.grace_seconds, self._give_up, stream
            )
        else:
            self._give_up(stream)

    def _give_up(self, stream: AnswerStream) -> None:
        self._registry.drop(stream)
        stream.cancel()

    def _stop_grace(self, stream: AnswerStream) -> None:
        timer = self._grace_timers.pop(stream, None)
        if timer is not None:
            timer.cancel()

    def _stop_all(self) -> None:
        for stream in tuple(self._under_way):
            stream.cancel(ShuttingDown())

    def _time_limit_seconds(self) -> float | None:
        remaining = self._remaining_seconds()
        if remaining is None:
            return None
        return max(0.0, remaining - min(_RESERVE_SECONDS, _RESERVE_RATIO * remaining))
