"""What the rag service needs to keep conversations."""

from datetime import datetime
from typing import Protocol

from services.rag.core.dialogue import (
    Conversation,
    ConversationPage,
    NewTurn,
    OpenConversation,
    TurnPage,
)

__all__ = ["ConversationStore"]


class ConversationStore(Protocol):
    """The conversations of all tenants. Every method may raise `StoreUnavailable`.

    A conversation belongs to a user of a tenant; for others it is not there.
    """

    async def create(
        self, tenant_id: str, user_id: str, *, title: str, claim_seconds: float
    ) -> OpenConversation:
        """Makes a conversation, and gives the caller the right to add a turn; see `claim`.

        It is not listed before it has a turn.
        """
        ...

    async def claim(
        self,
        tenant_id: str,
        user_id: str,
        conversation_id: str,
        *,
        claim_seconds: float,
        turn_limit: int,
    ) -> OpenConversation:
        """Gives the caller alone the right to add a turn.

        Args:
            tenant_id: Owner.
            user_id: The caller.
            conversation_id: The conversation.
            claim_seconds: After so long another caller may have the right.
            turn_limit: How many of the last turns to return.

        Raises:
            ConversationNotFound: The user has no such conversation.
            ConversationBusy: Another caller has the right.
        """
        ...

    async def add_turn(
        self, tenant_id: str, conversation_id: str, claim: str, turn: NewTurn
    ) -> bool:
        """Keeps a turn and gives the right back.

        Returns:
            Whether it was kept; not where the right was lost or the conversation deleted meanwhile.
        """
        ...

    async def release(self, tenant_id: str, conversation_id: str, claim: str) -> None:
        """Gives the right back without a turn."""
        ...

    async def put_summary(
        self, tenant_id: str, conversation_id: str, summary: str, *, summarized_turn_count: int
    ) -> None:
        """Keeps what the first turns were about, unless there is a summary of more of them."""
        ...

    async def list_conversations(
        self, tenant_id: str, user_id: str, *, page_size: int, after: tuple[datetime, str] | None
    ) -> ConversationPage:
        """Returns a user's conversations, the one with the latest turn first."""
        ...

    async def get_conversation(
        self, tenant_id: str, user_id: str, conversation_id: str
    ) -> Conversation:
        """Returns a conversation; raises `ConversationNotFound`."""
        ...

    async def list_turns(
        self, tenant_id: str, conversation_id: str, *, page_size: int, after: int
    ) -> TurnPage:
        """Returns turns by their numbers, those above `after`."""
        ...

    async def delete_conversation(self, tenant_id: str, user_id: str, conversation_id: str) -> int:
        """Deletes a conversation, returns its number of turns; raises `ConversationNotFound`."""
        ...
