"""The calls of RagService on conversations: read the request, call, write the response."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from pannier.rag.v1 import conversation_pb2, rag_service_pb2
from services.common.errors import PageTokenMismatch
from services.common.identity import Identity
from services.common.pagination import (
    check_page_size,
    decode_page_number,
    decode_page_token,
    encode_page_token,
)
from services.common.unknown_fields import unknown_field_violations
from services.common.validation import Violations
from services.rag.chat import Chats
from services.rag.chat_convert import span_of, to_conversation, to_turn
from services.rag.conversation_port import ConversationStore
from services.rag.convert import question_of
from services.rag.core.dialogue import KeptTurn
from services.rag.core.filters import Access
from services.rag.store_port import DocumentStore

__all__ = ["ChatCalls"]

MAXIMUM_ID_LENGTH = 64
# Messages have 4 MiB at the most.
_PAGE_BYTES = 2 * 1024 * 1024
_MICROSECONDS = 1_000_000


class ChatCalls:
    """Serves conversations.

    Args:
        chats: Answers questions.
        conversations: Keeps conversations.
        documents: Has what is quoted.
    """

    def __init__(
        self, *, chats: Chats, conversations: ConversationStore, documents: DocumentStore
    ) -> None:
        self._chats = chats
        self._conversations = conversations
        self._documents = documents

    async def chat(
        self, request: rag_service_pb2.ChatRequest, caller: Identity
    ) -> AsyncGenerator[rag_service_pb2.ChatResponse, None]:
        """Answers the next question of a conversation."""
        violations = Violations()
        _check_id(request.conversation_id, violations)
        violations.require(
            not request.query.history,
            "query.history",
            "Must be empty: the conversation is the history.",
        )
        violations.raise_found()
        question = question_of(request.query)
        events = self._chats.ask(caller, request.conversation_id, question)
        async with aclosing(events):
            async for event in events:
                yield event

    async def list_conversations(
        self, request: conversation_pb2.ListConversationsRequest, caller: Identity
    ) -> conversation_pb2.ListConversationsResponse:
        """Lists the caller's conversations."""
        violations = Violations()
        size = check_page_size(request.page_size, violations)
        violations.raise_found()
        scope = f"conversations\0{caller.user_id}"
        page = await self._conversations.list_conversations(
            caller.tenant_id,
            caller.user_id,
            page_size=size,
            after=_place_of(decode_page_token(scope, request.page_token)),
        )
        return conversation_pb2.ListConversationsResponse(
            conversations=[
                to_conversation(each, with_summary=False) for each in page.conversations
            ],
            next_page_token=(
                encode_page_token(scope, _position_of(page.next_after)) if page.next_after else ""
            ),
        )

    async def get_conversation(
        self, request: conversation_pb2.GetConversationRequest, caller: Identity
    ) -> conversation_pb2.GetConversationResponse:
        """Gets a conversation with some of its turns."""
        violations = Violations()
        _check_id(request.conversation_id, violations, required=True)
        size = check_page_size(request.page_size, violations)
        violations.raise_found()
        scope = f"turns\0{caller.user_id}\0{request.conversation_id}"
        after = decode_page_number(scope, request.page_token)
        conversation = await self._conversations.get_conversation(
            caller.tenant_id, caller.user_id, request.conversation_id
        )
        page = await self._conversations.list_turns(
            caller.tenant_id,
            request.conversation_id,
            page_size=size,
            after=after or 0,
        )
        turns = await self._with_quotes(page.turns, caller)
        return conversation_pb2.GetConversationResponse(
            conversation=to_conversation(conversation, with_summary=True),
            turns=turns,
            next_page_token=(
                encode_page_token(scope, str(turns[-1].number))
                if page.next_after is not None or len(turns) < len(page.turns)
                else ""
            ),
        )

    async def delete_conversation(
        self, request: conversation_pb2.DeleteConversationRequest, caller: Identity
    ) -> conversation_pb2.DeleteConversationResponse:
        """Deletes a conversation."""
        violations = Violations()
        violations.extend(unknown_field_violations(request))
        _check_id(request.conversation_id, violations, required=True)
        violations.raise_found()
        count = await self._conversations.delete_conversation(
            caller.tenant_id, caller.user_id, request.conversation_id
        )
        return conversation_pb2.DeleteConversationResponse(turn_count=count)

    async def _with_quotes(
        self, turns: tuple[KeptTurn, ...], caller: Identity
    ) -> list[conversation_pb2.KeptTurn]:
        """Writes the turns that fit a message, with what the caller may read of their sources."""
        spans = {
            span_of(citation)
            for each in turns
            for citation in each.turn.citations
            if citation.chunk_id
        }
        quotes = await self._documents.load_spans(
            caller.tenant_id, tuple(spans), access=Access.of(caller.user_id, caller.group_ids)
        )
        messages: list[conversation_pb2.KeptTurn] = []
        size = 0
        for each in turns:
            message = to_turn(each, quotes)
            size += message.ByteSize()
            if size > _PAGE_BYTES and messages:
                break
            messages.append(message)
        return messages


def _check_id(conversation_id: str, violations: Violations, *, required: bool = False) -> None:
    violations.check_text(
        "conversation_id",
        conversation_id,
        minimum_length=1 if required else 0,
        maximum_length=MAXIMUM_ID_LENGTH,
    )
    violations.check_plain("conversation_id", conversation_id)


def _position_of(place: tuple[datetime, str]) -> str:
    time, conversation_id = place
    return f"{round(time.timestamp() * _MICROSECONDS)} {conversation_id}"


def _place_of(position: str) -> tuple[datetime, str] | None:
    if not position:
        return None
    time, _, conversation_id = position.partition(" ")
    try:
        return datetime.fromtimestamp(int(time) / _MICROSECONDS, UTC), conversation_id
    except (ValueError, OverflowError, OSError):
        raise PageTokenMismatch from None
