"""One answer on its way: worked on in a task of its own, told of by numbered events."""

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass

from opentelemetry.trace import SpanContext, get_current_span

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import ServiceError
from services.common.tracing import current_trace_id
from services.rag.answer_convert import to_citation
from services.rag.convert import to_query_response
from services.rag.core.answer import Answer, AnswerEvent, PassagesFound
from services.rag.core.options import Question
from services.rag.core.passages import RankedPassage
from services.rag.core.stream_errors import AnswerOutOfTime
from services.rag.counted_answers import CountedAnswers
from services.rag.event_log import EventLog, Reader
from services.rag.recorder import Progress, Recorder
from services.rag.stream_convert import (
    to_failed,
    to_heartbeat,
    to_progress,
    to_retrieved,
    to_started,
)

__all__ = ["AnswerStream", "Owner"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who may read an answer."""

    tenant_id: str
    user_id: str


class AnswerStream:
    """One answer on its way; must be made within the call that asks for it.

    Args:
        answers: Answers the question.
        question: The question.
        recorder: Of this question alone; knows its id.
        log: Receives the events.
        owner: Who asks.
        is_resumable: Whether others than the first reader may read.
        heartbeat_seconds: After how long without an event one says that work goes on.
        time_limit_seconds: How long the answer may take; None where nothing limits it.
    """

    def __init__(
        self,
        answers: CountedAnswers,
        question: Question,
        recorder: Recorder,
        log: EventLog,
        *,
        owner: Owner,
        is_resumable: bool,
        heartbeat_seconds: float,
        time_limit_seconds: float | None,
    ) -> None:
        self.query_id = recorder.query_id
        self.owner = owner
        self.is_resumable = is_resumable
        self.log = log
        self.readers: list[Reader] = []
        self.span_context: SpanContext = get_current_span().get_span_context()
        self._recorder = recorder
        self._heartbeat_seconds = heartbeat_seconds
        self._time_limit_seconds = time_limit_seconds
        self._trace_id = current_trace_id()
        self._texts: list[str] = []
        self._passages: tuple[RankedPassage, ...] = ()
        self._shows_passage_texts = question.shows_passage_texts
        self._is_over = False
        self._stop_error: ServiceError | None = None
        self._loop = asyncio.get_running_loop()
        started = to_started(
            question, trace_id=self._trace_id, query_id=self.query_id, resumable=is_resumable
        )
        self._append(pb.StreamQueryResponse(started=started))
        recorder.listen(self._on_progress)
        self._timer = self._loop.call_later(heartbeat_seconds, self._beat)
        self.task = asyncio.create_task(
            self._run(answers, question), name=f"answer {self.query_id}"
        )
        # A task that is cancelled before it has begun runs none of its own code.
        self.task.add_done_callback(lambda _: self._finish(asyncio.CancelledError()))

    def cancel(self, error: ServiceError | None = None) -> None:
        """Ends the work; readers, if there still are any, are told why."""
        self._stop_error = error
        self.task.cancel()

    async def _run(self, answers: CountedAnswers, question: Question) -> None:
        error: BaseException | None = None
        limit = asyncio.timeout(self._time_limit_seconds)
        self._recorder.is_out_of_time = limit.expired
        try:
            async with limit:
                await self._answer(answers, question)
        except asyncio.CancelledError as cancelled:
            error = self._stop_error or cancelled
            raise
        except ServiceError as failure:
            error = failure
            # Kept with the events, and with it all that its stack refers to.
            error.__traceback__ = error.__cause__ = error.__context__ = None
        except Exception as failure:
            error = AnswerOutOfTime() if limit.expired() else failure
            if error is failure and not self.readers:
                # Otherwise the call that reads reports it.
                _logger.exception("answer failed", extra={"query_id": self.query_id})
        finally:
            self._finish(error)

    async def _answer(self, answers: CountedAnswers, question: Question) -> None:
        events = answers.answer(
            self.owner.tenant_id, question, self._recorder, partial_answers=True
        )
        async with aclosing(events):
            async for event in events:
                self._tell(event)
        if not self._is_over:
            raise RuntimeError("the answer ended without being complete")

    def _tell(self, event: AnswerEvent) -> None:
        if isinstance(event, str):
            self._texts.append(event)
            self._append(pb.StreamQueryResponse(text_delta=event))
        elif isinstance(event, PassagesFound):
            self._passages = event.passages
            retrieved = to_retrieved(
                event.passages, self._recorder, shows_passage_texts=self._shows_passage_texts
            )
            self._append(pb.StreamQueryResponse(retrieved=retrieved))
        elif isinstance(event, Answer):
            completed = to_query_response(
                event,
                self._recorder,
                trace_id=self._trace_id,
                shows_passage_texts=self._shows_passage_texts,
            )
            completed.query_id = self.query_id
            self._append(pb.StreamQueryResponse(completed=completed))
            self._is_over = True
        else:
            citation = to_citation(event, self._passages)
            self._append(pb.StreamQueryResponse(citation=citation))

    def _finish(self, error: BaseException | None) -> None:
        """Says how the answer has ended, as an event and as what its readers end in."""
        if self.log.is_finished:
            return
        self._timer.cancel()
        if self._is_over:
            error = None
        elif error is not None and not isinstance(error, asyncio.CancelledError):
            told = error if isinstance(error, ServiceError) else _internal(self._trace_id)
            failed = to_failed(told, "".join(self._texts))
            self._append(pb.StreamQueryResponse(failed=failed))
            self._is_over = True
        self.log.finish(error)
        self._texts, self._passages = [], ()

    def _on_progress(self, progress: Progress) -> None:
        self._append(pb.StreamQueryResponse(progress=to_progress(progress)))

    def _beat(self) -> None:
        quiet_seconds = self._loop.time() - self._last_event_time
        left = self._heartbeat_seconds - quiet_seconds
        if left <= 0:
            heartbeat = to_heartbeat(self._recorder.elapsed_seconds())
            self._append(pb.StreamQueryResponse(heartbeat=heartbeat))
            left = self._heartbeat_seconds
        self._timer = self._loop.call_later(left, self._beat)

    def _append(self, event: pb.StreamQueryResponse) -> None:
        if not self._is_over:
            self._last_event_time = self._loop.time()
            self.log.append(event)


def _internal(trace_id: str) -> ServiceError:
    return ServiceError(f"An internal error occurred. Report it with the request id {trace_id}.")
