"""Counts every call to a model and what it cost, wherever it is made.

Calls that a tenant's budget does not allow are refused.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar

from services.common.clock import Clock
from services.common.identity import current_identity
from services.rag.books import Books
from services.rag.budgets import Budgets
from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    Sampling,
    TokenUsage,
)
from services.rag.core.options import OutputFormat
from services.rag.core.prices import PriceTable
from services.rag.core.tokens import estimate_tokens
from services.rag.core.usage import Amounts, UsageKey, UsageKind, hour_of
from services.rag.meter import current_meter, current_mode
from services.rag.ports import Embedded, LikelihoodPort, ModelFacts, ModelsPort
from services.rag.spending import INFERENCE_LAYER, LLM, RETRIEVAL, TOOL, Spending

__all__ = ["Ledger", "MeteredModels", "counted_chat"]

_Event = TypeVar("_Event")

# So many characters of a prompt say how many tokens a character has.
_SAMPLE_LENGTH = 4000
_RETRIEVE_TOOL = "retrieve"


class Ledger:
    """Counts what is used.

    Args:
        books: Take it down.
        budgets: Know what may be used.
        prices: Say what it costs.
        clock: Tells the hour.
        spending: Measures the same as metrics.
    """

    def __init__(
        self,
        books: Books,
        *,
        budgets: Budgets,
        prices: PriceTable,
        clock: Clock,
        spending: Spending,
    ) -> None:
        self.budgets = budgets
        self.prices = prices
        self.spending = spending
        self._books = books
        self._clock = clock

    def add_call(
        self, kind: UsageKind, model: str, usage: TokenUsage, *, estimated: bool = False
    ) -> None:
        """Counts a call to a model, for the caller and the query that the task works for."""
        cost = self.cost_nanos(model, usage)
        self._add(
            kind,
            model,
            Amounts(
                call_count=1,
                estimated_call_count=int(estimated),
                prompt_token_count=usage.prompt_token_count,
                completion_token_count=usage.completion_token_count,
                cost_nanos=cost,
            ),
        )
        if kind is UsageKind.GENERATION:
            meter = current_meter.get()
            if meter is not None:
                meter.generation_count += 1
            self.spending.add_text(current_mode(), model, usage)
        self._spend(cost, LLM if kind is UsageKind.GENERATION else RETRIEVAL, model)

    def add_cached_text(self, model: str, usage: TokenUsage) -> None:
        """Counts a text that a model was not asked for, since it was asked the same before.

        Answers are counted by `add_query`; this is for what they are prepared with.
        """
        cost = self.cost_nanos(model, usage)
        saved = usage.prompt_token_count + usage.completion_token_count
        amounts = Amounts(saved_token_count=saved, saved_cost_nanos=cost)
        self._add(UsageKind.GENERATION, model, amounts)
        self.spending.add_cached_text(current_mode(), model, layer=INFERENCE_LAYER, cost_nanos=cost)

    def add_tool_call(self, tool: str) -> None:
        """Counts a call of a tool."""
        cost = self.prices.tool_cost_nanos(tool)
        self._add(UsageKind.TOOL, tool, Amounts(call_count=1, cost_nanos=cost))
        self._spend(cost, RETRIEVAL if tool == _RETRIEVE_TOOL else TOOL)

    def add_query(self, mode: str, model: str, amounts: Amounts, *, layer: str = "") -> None:
        """Counts a query that has ended, beside what its calls have used.

        Args:
            mode: How it was answered.
            model: The model whose answer it was; empty where it was none's.
            amounts: What it counts for itself.
            layer: Where the answer was known from; empty where it was not known.
        """
        self._add(UsageKind.QUERY, model, amounts, mode=mode)
        if layer:
            self.spending.add_cached_text(
                mode, model, layer=layer, cost_nanos=amounts.saved_cost_nanos
            )

    def cost_nanos(self, model: str, usage: TokenUsage) -> int:
        """Returns what a model asks for tokens, in billionths of the currency."""
        return self.prices.cost_nanos(
            model,
            prompt_token_count=usage.prompt_token_count,
            completion_token_count=usage.completion_token_count,
        )

    def key(self, kind: UsageKind, mode: str, model: str) -> UsageKey:
        """Returns what usage of now and of the running call's caller is counted under."""
        identity = current_identity.get()
        return UsageKey(
            hour_seconds=hour_of(self._clock.now()),
            tenant_id=identity.tenant_id,
            user_id=identity.user_id,
            mode=mode,
            model=model,
            kind=kind,
        )

    def measure_tracked(
        self, mode: str, model: str, usage: TokenUsage, *, cached: bool, cost_nanos: int
    ) -> None:
        """Measures a call that a caller has made by itself, with what it cost or has saved."""
        model = self.spending.tracked(model)
        if cached:
            self.spending.add_cached_text(mode, model, layer=INFERENCE_LAYER, cost_nanos=cost_nanos)
        else:
            self.spending.add_text(mode, model, usage)
            self._spend(cost_nanos, LLM, model, mode=mode)

    def _spend(self, cost_nanos: int, kind: str, model: str = "", *, mode: str = "") -> None:
        self.spending.add_cost(
            cost_nanos,
            tenant_id=current_identity.get().tenant_id,
            mode=mode or current_mode(),
            kind=kind,
            model=model,
        )

    def _add(self, kind: UsageKind, model: str, amounts: Amounts, *, mode: str = "") -> None:
        meter = current_meter.get()
        if meter is not None:
            meter.amounts = meter.amounts + amounts
        self._books.add_usage(self.key(kind, mode or current_mode(), model), amounts)


class MeteredModels:
    """The models of the fleet; each call to them is counted, and generates within the budget.

    Args:
        models: The fleet.
        likelihoods: The fleet, asked for how likely words are.
        ledger: Counts.
    """

    def __init__(self, models: ModelsPort, *, likelihoods: LikelihoodPort, ledger: Ledger) -> None:
        self._models = models
        self._likelihoods = likelihoods
        self._ledger = ledger

    async def list_models(self) -> tuple[ModelFacts, ...]:
        """Lists the models of the fleet by name."""
        return await self._models.list_models()

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        time_limit_seconds: float | None = None,
        urgent: bool = True,
    ) -> Embedded:
        """Turns 1 to 512 texts into vectors."""
        embedded = await self._models.embed(
            model, texts, time_limit_seconds=time_limit_seconds, urgent=urgent
        )
        usage = TokenUsage(prompt_token_count=embedded.token_count)
        self._ledger.add_call(UsageKind.EMBEDDING, model, usage)
        return embedded

    async def chat(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        *,
        time_limit_seconds: float | None = None,
        urgent: bool = True,
        output_format: OutputFormat | None = None,
    ) -> AsyncGenerator[ChatStarted | str | ChatCompleted, None]:
        """Answers a conversation: started, then texts to append, then completed.

        Raises:
            BudgetExceeded: The tenant may not spend more.
        """
        chat = self._models.chat(
            model,
            messages,
            sampling,
            time_limit_seconds=time_limit_seconds,
            urgent=urgent,
            output_format=output_format,
        )
        async with aclosing(counted_chat(self._ledger, model, messages, chat)) as events:
            async for event in events:
                yield event

    async def first_token_logprobs(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        *,
        alternative_count: int,
        time_limit_seconds: float | None = None,
    ) -> Mapping[str, float]:
        """Returns the likeliest first tokens of an answer with their logarithmic probabilities.

        Raises:
            BudgetExceeded: The tenant may not spend more.
        """
        self._ledger.budgets.check(current_identity.get().tenant_id)
        found = await self._likelihoods.first_token_logprobs(
            model,
            messages,
            alternative_count=alternative_count,
            time_limit_seconds=time_limit_seconds,
        )
        usage = TokenUsage(_prompt_tokens(messages), 1)
        self._ledger.add_call(UsageKind.GENERATION, model, usage, estimated=True)
        return found


async def counted_chat(
    ledger: Ledger,
    model: str,
    messages: Sequence[ChatMessage],
    chat: AsyncGenerator[_Event, None],
) -> AsyncGenerator[_Event, None]:
    """Passes on the events of a generation within the budget, and counts what it cost.

    Args:
        ledger: Counts.
        model: The model that is asked.
        messages: The prompt.
        chat: The generation, not begun.

    Raises:
        BudgetExceeded: The tenant may not spend more.
    """
    ledger.budgets.check(current_identity.get().tenant_id)
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
            ledger.add_call(UsageKind.GENERATION, name or model, completed.usage)
        elif name or text_count:
            # A fleet says what it cost at the end only; a text is about a token.
            usage = TokenUsage(_prompt_tokens(messages), text_count)
            ledger.add_call(UsageKind.GENERATION, name or model, usage, estimated=True)


def _prompt_tokens(messages: Sequence[ChatMessage]) -> int:
    """Estimates the tokens of a prompt, from the beginnings of its parts."""
    total = 0.0
    for each in messages:
        sample = each.content[:_SAMPLE_LENGTH]
        if sample:
            total += estimate_tokens(sample) * len(each.content) / len(sample)
    return round(total)
