"""Counts what models cost that are asked for tools, and asks them within the budget."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from services.common.identity import current_identity
from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    Sampling,
    TokenUsage,
    ToolCall,
    ToolDefinition,
)
from services.rag.core.tokens import estimate_tokens
from services.rag.core.usage import UsageKind
from services.rag.ledger import Ledger
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
        self._ledger.budgets.check(current_identity.get().tenant_id)
        chat = self._models.chat_with_tools(
            model, messages, sampling, tools, time_limit_seconds=time_limit_seconds
        )
        name, text_count = "", 0
        completed: ChatCompleted | None = None
        try:
            async with aclosing(chat):
                async for event in chat:
                    if isinstance(event, str):
                        text_count += 1
                    elif isinstance(event, ChatStarted):
                        name = event.model
                    elif isinstance(event, ChatCompleted):
                        completed = event
                    yield event
        finally:
            if completed is not None:
                self._ledger.add_call(UsageKind.GENERATION, name or model, completed.usage)
            elif name or text_count:
                # A fleet says what it cost at the end only; a text is about a token.
                read = round(sum(estimate_tokens(each.content) for each in messages))
                usage = TokenUsage(read, text_count)
                self._ledger.add_call(UsageKind.GENERATION, name or model, usage, estimated=True)
