"""RagService over gRPC: read the request, call, write the response."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from opentelemetry.trace import Tracer, get_current_span

from pannier.rag.v1 import rag_service_pb2 as pb
from pannier.rag.v1.rag_service_pb2_grpc import RagServiceServicer
from services.common.clock import Clock
from services.common.identity import current_identity
from services.common.tracing import current_trace_id
from services.common.validation import Violations
from services.rag import convert
from services.rag.answer import Answerer
from services.rag.answer_convert import to_citation
from services.rag.core.answer import Answer, AnswerEvent, PassagesFound
from services.rag.core.options import Question
from services.rag.recorder import Recorder
from services.rag.retrieve import Retriever
from services.rag.statistics import RagStatistics

__all__ = ["RagServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class RagServicer(RagServiceServicer):
    """Answers questions.

    Args:
        retriever: Finds passages.
        answerer: Answers.
        statistics: Counts.
        clock: Measures.
        tracer: Makes the spans of the stages.
    """

    def __init__(
        self,
        *,
        retriever: Retriever,
        answerer: Answerer,
        statistics: RagStatistics,
        clock: Clock,
        tracer: Tracer,
    ) -> None:
        self._retriever = retriever
        self._answerer = answerer
        self._statistics = statistics
        self._clock = clock
        self._tracer = tracer

    async def Retrieve(self, request: pb.RetrieveRequest, context: Context) -> pb.RetrieveResponse:
        """Finds passages."""
        violations = Violations()
        convert.check_collection(request.collection, violations)
        convert.check_query(request.query, violations)
        options = convert.retrieval_of(request.options, violations, field="options")
        violations.raise_found()
        recorder = self._recorder()
        try:
            passages = await self._retriever.retrieve(
                current_identity.get().tenant_id,
                request.collection,
                request.query.strip(),
                options,
                recorder,
            )
        finally:
            self._statistics.add_stages(recorder)
        return convert.to_retrieve_response(passages, recorder)

    async def Query(self, request: pb.QueryRequest, context: Context) -> pb.QueryResponse:
        """Answers a question."""
        question = convert.question_of(request)
        recorder = self._recorder()
        response = pb.QueryResponse()
        async with aclosing(self._answer(question, recorder, partial_answers=False)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    response = convert.to_query_response(
                        event, recorder, trace_id=current_trace_id()
                    )
        return response

    async def StreamQuery(
        self, request: pb.StreamQueryRequest, context: Context
    ) -> AsyncIterator[pb.StreamQueryResponse]:
        """Answers a question as the answer comes."""
        question = convert.question_of(request.query)
        recorder = self._recorder()
        trace_id = current_trace_id()
        passages: tuple[Any, ...] = ()
        yield pb.StreamQueryResponse(started=convert.to_started(question, trace_id=trace_id))
        async with aclosing(self._answer(question, recorder, partial_answers=True)) as events:
            async for event in events:
                if isinstance(event, str):
                    yield pb.StreamQueryResponse(text_delta=event)
                elif isinstance(event, PassagesFound):
                    passages = event.passages
                    yield pb.StreamQueryResponse(retrieved=convert.to_retrieved(passages, recorder))
                elif isinstance(event, Answer):
                    yield pb.StreamQueryResponse(
                        completed=convert.to_query_response(event, recorder, trace_id=trace_id)
                    )
                else:
                    yield pb.StreamQueryResponse(citation=to_citation(event, passages))

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """Reports statistics."""
        return convert.to_stats(self._statistics)

    def _recorder(self) -> Recorder:
        return Recorder(clock=self._clock, tracer=self._tracer)

    async def _answer(
        self, question: Question, recorder: Recorder, *, partial_answers: bool
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Counts a question around its answer."""
        span = get_current_span()
        span.set_attribute("app.rag.mode", question.mode.value)
        span.set_attribute("app.rag.query_chars", len(question.text))
        self._statistics.begin(question.mode)
        answer: Answer | None = None
        outcome = "error"
        try:
            events = self._answerer.answer(
                current_identity.get().tenant_id,
                question,
                recorder,
                partial_answers=partial_answers,
            )
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Answer):
                        answer = event
                        span.set_attribute("app.rag.origin", answer.origin.value)
                        span.set_attribute("app.rag.citations", len(answer.citations))
                        span.set_attribute("app.rag.degraded", bool(recorder.degradations))
                    yield event
            outcome = "success"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "success" if answer is not None else "cancelled"
            raise
        finally:
            self._statistics.end(question.mode, recorder, answer, outcome)
