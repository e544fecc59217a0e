"""Answers the questions of a conversation one after the other, and keeps its turns."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import ServiceError
from services.common.identity import Identity
from services.common.metrics import Metrics
from services.rag.background import BackgroundWork
from services.rag.brief import BriefAnswers
from services.rag.chat_convert import cited_spans, to_conversation_started
from services.rag.conversation_port import ConversationStore
from services.rag.core.dialogue import (
    MOST_HISTORY_TURNS,
    NewTurn,
    OpenConversation,
    Recollection,
    due_for_summary,
    history_of,
    summary_messages,
    summary_of,
    title_of,
)
from services.rag.core.options import Question
from services.rag.core.profile import WarningKind
from services.rag.recorder import Recorder
from services.rag.store_wait import waiting_for_store

__all__ = ["AnswerStreams", "Chats"]

_logger = logging.getLogger(__name__)

# A turn is kept within this time, or the conversation is freed when the claim runs out.
_KEEPING_SECONDS = 5.0
_LONGEST_CLAIM_SECONDS = 600.0
_SUMMARY_TOKEN_COUNT = 150
_SUMMARY_SECONDS = 60.0
_NOT_KEPT = "The turn was not kept: the next question of the conversation will not know of it."


class AnswerStreams(Protocol):
    """Answers questions as streams of events."""

    def open(
        self, question: Question, *, tenant: str, user: str, resumable: bool
    ) -> AsyncGenerator[pb.StreamQueryResponse, None]:
        """Answers a question; the first event is `started`, the last `completed` or `failed`."""
        ...


@dataclass(slots=True)
class _Turn:
    """A turn on its way."""

    question: Question
    query_id: str = ""
    texts: list[str] = field(default_factory=list)

    def note(self, event: pb.StreamQueryResponse) -> None:
        if event.HasField("started"):
            self.query_id = event.started.query_id
        elif event.HasField("text_delta"):
            self.texts.append(event.text_delta)

    def completed(self, response: pb.QueryResponse) -> NewTurn:
        return NewTurn(
            question=self.question.text,
            answer=response.answer,
            query_id=self.query_id,
            model=response.model,
            collection=self.question.collection,
            citations=cited_spans(response),
        )

    def interrupted(self) -> NewTurn:
        return NewTurn(
            question=self.question.text,
            answer="".join(self.texts),
            interrupted=True,
            query_id=self.query_id,
            collection=self.question.collection,
        )


class Chats:
    """Answers the questions of conversations.

    Args:
        store: Keeps conversations.
        streams: Answers questions.
        answers: Sums up what is too long ago to be read again.
        background: Takes what nobody waits for.
        make_recorder: Makes the recorder of work that belongs to no call.
        metrics: Receives what becomes of turns.
        context_token_count: Context window of the model.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        *,
        store: ConversationStore,
        streams: AnswerStreams,
        answers: BriefAnswers,
        background: BackgroundWork,
        make_recorder: Callable[[], Recorder],
        metrics: Metrics,
        context_token_count: int,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._store = store
        self._streams = streams
        self._answers = answers
        self._background = background
        self._make_recorder = make_recorder
        self._metrics = metrics
        self._context_token_count = context_token_count
        self._remaining_seconds = remaining_seconds

    async def ask(
        self, caller: Identity, conversation_id: str, question: Question
    ) -> AsyncGenerator[pb.ChatResponse, None]:
        """Answers the next question of a conversation.

        Args:
            caller: Who asks; owner of the conversation.
            conversation_id: The conversation; empty for a new one.
            question: The question, without history.

        Raises:
            ConversationNotFound: The caller has no such conversation.
            ConversationBusy: Another question of it is just being answered.
            StoreUnavailable: The conversation cannot be read, or not in a quarter of the time left.
            ServiceError: After `failed`: what the answer has failed with.
        """
        opened = await self._open(caller, conversation_id, question)
        recollection = history_of(
            opened.conversation, opened.recent, context_token_count=self._context_token_count
        )
        turn = _Turn(replace(question, history=recollection.turns))
        is_over = False
        try:
            yield pb.ChatResponse(started=to_conversation_started(opened))
            events = self._streams.open(
                turn.question, tenant=caller.tenant_id, user=caller.user_id, resumable=False
            )
            async with aclosing(events):
                async for event in events:
                    turn.note(event)
                    if event.HasField("completed"):
                        is_over = True
                        if await self._keep(caller, opened, turn.completed(event.completed)):
                            self._start_summary(caller, opened, recollection)
                        else:
                            event.completed.warnings.append(_NOT_KEPT)
                            self._metrics.count("rag_warnings_total", WarningKind.NOT_KEPT.value)
                    yield pb.ChatResponse(answer=event)
        finally:
            if not is_over:
                await self._break_off(caller, opened, turn)

    async def _open(
        self, caller: Identity, conversation_id: str, question: Question
    ) -> OpenConversation:
        remaining = self._remaining_seconds()
        limit = _LONGEST_CLAIM_SECONDS
        seconds = _KEEPING_SECONDS + (limit if remaining is None else min(limit, remaining))
        async with waiting_for_store(remaining):
            if not conversation_id:
                return await self._store.create(
                    caller.tenant_id,
                    caller.user_id,
                    title=title_of(question.text),
                    claim_seconds=seconds,
                )
            return await self._store.claim(
                caller.tenant_id,
                caller.user_id,
                conversation_id,
                claim_seconds=seconds,
                turn_limit=MOST_HISTORY_TURNS,
            )

    async def _keep(self, caller: Identity, opened: OpenConversation, turn: NewTurn) -> bool:
        """Keeps a turn; returns whether that was possible."""
        kept = False
        try:
            async with asyncio.timeout(_KEEPING_SECONDS):
                kept = await self._store.add_turn(
                    caller.tenant_id, opened.conversation.conversation_id, opened.claim, turn
                )
        except (ServiceError, TimeoutError) as error:
            _logger.warning("turn not kept", extra={"cause": str(error)})
        outcome = "interrupted" if turn.interrupted else "complete"
        self._metrics.count("rag_turns_total", outcome if kept else "lost")
        return kept

    async def _break_off(self, caller: Identity, opened: OpenConversation, turn: _Turn) -> None:
        """Keeps what there is of an answer that will not be complete."""
        if any(text.strip() for text in turn.texts):
            await self._keep(caller, opened, turn.interrupted())
            return
        self._metrics.count("rag_turns_total", "empty")
        try:
            async with asyncio.timeout(_KEEPING_SECONDS):
                await self._store.release(
                    caller.tenant_id, opened.conversation.conversation_id, opened.claim
                )
        except (ServiceError, TimeoutError) as error:
            _logger.warning("conversation not released", extra={"cause": str(error)})

    def _start_summary(
        self, caller: Identity, opened: OpenConversation, recollection: Recollection
    ) -> None:
        count = due_for_summary(opened.conversation, recollection)
        if count:
            self._background.start("summary", lambda: self._sum_up(caller, opened, count))

    async def _sum_up(self, caller: Identity, opened: OpenConversation, count: int) -> None:
        """Sums up the first turns of a conversation, as far as they are not yet."""
        conversation = opened.conversation
        first = conversation.summarized_turn_count
        page = await self._store.list_turns(
            caller.tenant_id,
            conversation.conversation_id,
            page_size=min(count - first, MOST_HISTORY_TURNS),
            after=first,
        )
        if not page.turns:
            return
        with self._make_recorder().stage("summarize") as stage:
            output = await self._answers.ask(
                summary_messages(conversation.summary, page.turns),
                None,
                stage,
                output_token_count=_SUMMARY_TOKEN_COUNT,
                time_limit_seconds=_SUMMARY_SECONDS,
                keep=False,
                urgent=False,
            )
        summary = summary_of(output)
        if summary:
            await self._store.put_summary(
                caller.tenant_id,
                conversation.conversation_id,
                summary,
                summarized_turn_count=page.turns[-1].number,
            )
