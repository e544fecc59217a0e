"""Counts what models cost that are asked for tools, and asks them within the budget."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    Sampling,
    ToolCall,
    ToolDefinition,
)
from services.rag.ledger import Ledger, counted_chat
from services.rag.ports import ToolModels

__all__ = ["MeteredToolModels"]


class MeteredToolModels:
    """Models that may ask for tools; each call to them is counted.

    Args:
        models: The fleet.
        ledger: Counts.
    """

    def __init__(self, models: ToolModels, *, ledger: Ledger) -> None:
        self._models = models
        self._ledger = ledger

    async def chat_with_tools(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        tools: Sequence[ToolDefinition],
        *,
        time_limit_seconds: float | None = None,
    ) -> AsyncGenerator[ChatStarted | str | tuple[ToolCall, ...] | ChatCompleted, None]:
        """Answers a conversation: started, then texts and calls of tools, then completed.

        Raises:
            BudgetExceeded: The tenant may not spend more.
        """
        chat = self._models.chat_with_tools(
            model, messages, sampling, tools, time_limit_seconds=time_limit_seconds
        )
        async with aclosing(counted_chat(self._ledger, model, messages, chat)) as events:
            async for event in events:
                yield event
