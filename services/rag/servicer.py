"""RagService over gRPC: read the request, call, write the response."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc

from pannier.rag.v1 import conversation_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from pannier.rag.v1.rag_service_pb2_grpc import RagServiceServicer
from services.common.identity import current_identity
from services.common.tracing import current_trace_id
from services.common.validation import Violations
from services.rag import convert, retrieval_convert, stream_convert
from services.rag.bookkeeping import Bookkeeping
from services.rag.chat_calls import ChatCalls
from services.rag.core.answer import Answer
from services.rag.core.options import Question
from services.rag.counted_answers import CountedAnswers
from services.rag.query_stream import QueryStreams
from services.rag.recorder import Recorder
from services.rag.retrieve import Retriever
from services.rag.statistics import RagStatistics

__all__ = ["RagServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class RagServicer(RagServiceServicer):
    """Answers questions.

    Args:
        retriever: Finds passages.
        answers: Answers at once.
        streams: Answers as the answer comes.
        chat: Serves conversations.
        statistics: Counts.
        make_recorder: Makes the recorder of a call.
        bookkeeping: Keeps the books.
    """

    def __init__(
        self,
        *,
        retriever: Retriever,
        answers: CountedAnswers,
        streams: QueryStreams,
        chat: ChatCalls,
        statistics: RagStatistics,
        make_recorder: Callable[[], Recorder],
        bookkeeping: Bookkeeping,
    ) -> None:
        self._retriever = retriever
        self._answers = answers
        self._streams = streams
        self._chat = chat
        self._statistics = statistics
        self._make_recorder = make_recorder
        self._bookkeeping = bookkeeping

    async def Retrieve(self, request: pb.RetrieveRequest, context: Context) -> pb.RetrieveResponse:
        """Finds passages."""
        violations = Violations()
        retrieval_convert.check_collection(request.collection, violations)
        retrieval_convert.check_query(request.query, violations)
        options = retrieval_convert.retrieval_of(request.options, violations, field="options")
        violations.raise_found()
        recorder = self._make_recorder()
        question = Question(
            collection=request.collection, text=request.query.strip(), retrieval=options
        )
        with self._bookkeeping.retrieval(question, recorder) as question:
            try:
                retrieved = await self._retriever.retrieve(
                    current_identity.get().tenant_id,
                    question.collection,
                    question.text,
                    question.retrieval,
                    recorder,
                )
            finally:
                self._statistics.add_stages(recorder)
            return retrieval_convert.to_retrieve_response(retrieved, recorder)

    async def Query(self, request: pb.QueryRequest, context: Context) -> pb.QueryResponse:
        """Answers a question."""
        question = convert.question_of(request)
        recorder = self._make_recorder()
        response = pb.QueryResponse()
        events = self._answers.answer(
            current_identity.get().tenant_id, question, recorder, partial_answers=False
        )
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Answer):
                    response = convert.to_query_response(
                        event,
                        recorder,
                        trace_id=current_trace_id(),
                        shows_passage_texts=question.shows_passage_texts,
                    )
        response.query_id = recorder.query_id
        return response

    async def StreamQuery(
        self, request: pb.StreamQueryRequest, context: Context
    ) -> AsyncIterator[pb.StreamQueryResponse]:
        """Answers a question as the answer comes."""
        question = convert.question_of(request.query)
        identity = current_identity.get()
        events = self._streams.open(
            question,
            tenant=identity.tenant_id,
            user=identity.user_id,
            resumable=request.resumable,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """Reports statistics."""
        return stream_convert.to_stats(
            self._statistics, resumable_count=self._streams.resumable_count
        )

    async def ResumeQuery(
        self, request: pb.ResumeQueryRequest, context: Context
    ) -> AsyncIterator[pb.ResumeQueryResponse]:
        """Goes on with an answer."""
        stream_convert.check_resume(request)
        identity = current_identity.get()
        events = self._streams.resume(
            request.query_id,
            after_sequence=request.after_sequence,
            tenant=identity.tenant_id,
            user=identity.user_id,
        )
        async with aclosing(events):
            async for event in events:
                yield pb.ResumeQueryResponse(event=event)

    async def Chat(
        self, request: pb.ChatRequest, context: Context
    ) -> AsyncIterator[pb.ChatResponse]:
        """Answers the next question of a conversation."""
        async with aclosing(self._chat.chat(request, current_identity.get())) as events:
            async for event in events:
                yield event

    async def ListConversations(
        self, request: conversation_pb2.ListConversationsRequest, context: Context
    ) -> conversation_pb2.ListConversationsResponse:
        """Lists the caller's conversations."""
        return await self._chat.list_conversations(request, current_identity.get())

    async def GetConversation(
        self, request: conversation_pb2.GetConversationRequest, context: Context
    ) -> conversation_pb2.GetConversationResponse:
        """Gets a conversation."""
        return await self._chat.get_conversation(request, current_identity.get())

    async def DeleteConversation(
        self, request: conversation_pb2.DeleteConversationRequest, context: Context
    ) -> conversation_pb2.DeleteConversationResponse:
        """Deletes a conversation."""
        return await self._chat.delete_conversation(request, current_identity.get())
