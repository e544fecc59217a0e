"""Errors of kept conversations.

ServiceError
+-- ConversationNotFound        NOT_FOUND             CONVERSATION_NOT_FOUND
+-- ConversationBusy            ABORTED               CONVERSATION_BUSY
"""

from services.common.errors import ServiceError, StatusCode

__all__ = ["ConversationBusy", "ConversationNotFound"]

CONVERSATION_RETRY_DELAY_SECONDS = 1.0


class ConversationNotFound(ServiceError):
    """The user has no such conversation.

    Args:
        conversation_id: The conversation asked for.
    """

    reason = "CONVERSATION_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"There is no conversation {conversation_id!r}. Begin one by leaving its id out.",
            metadata={"conversation_id": conversation_id},
        )


class ConversationBusy(ServiceError):
    """Another question of the same conversation is just being answered.

    Args:
        conversation_id: The conversation.
    """

    reason = "CONVERSATION_BUSY"
    code = StatusCode.ABORTED

    def __init__(self, conversation_id: str) -> None:
        super().__init__(
            f"Another question of conversation {conversation_id!r} is just being answered. "
            "Ask again when that is done.",
            metadata={"conversation_id": conversation_id},
            retry_delay_seconds=CONVERSATION_RETRY_DELAY_SECONDS,
        )
