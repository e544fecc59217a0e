"""Counts every call to a model and what it cost, wherever it is made.

Calls that a tenant's budget does not allow are refused.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from services.common.clock import Clock
from services.common.identity import current_identity
from services.common.metrics import Metrics
from services.rag.books import Books
from services.rag.budgets import Budgets
from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    Sampling,
    TokenUsage,
)
from services.rag.core.options import Mode, OutputFormat
from services.rag.core.prices import PriceTable
from services.rag.core.tokens import estimate_tokens
from services.rag.core.usage import Amounts, UsageKey, UsageKind, hour_of
from services.rag.ports import Embedded, LikelihoodPort, ModelFacts, ModelsPort

__all__ = ["Ledger", "Meter", "MeteredModels", "counted_chat", "current_meter", "mode_label"]

_Event = TypeVar("_Event")

_NANOS = 1e9
# So many characters of a prompt say how many tokens a character has.
_SAMPLE_LENGTH = 4000
_MOST_MODELS = 32
_OTHER = "other"
RETRIEVE_MODE = "retrieve"
_MODE_LABELS = frozenset({*(each.value for each in Mode), RETRIEVE_MODE})


@dataclass(slots=True)
class Meter:
    """What one query has used.

    Attributes:
        mode: How it is answered.
        amounts: What was used so far.
    """

    mode: str
    amounts: Amounts = field(default_factory=Amounts)


current_meter: ContextVar[Meter | None] = ContextVar("current_meter", default=None)
"""The query that the running task works for; None for work behind the scenes."""


def mode_label(mode: str) -> str:
    """Returns a mode as metrics are labelled by it, of which there are few."""
    return mode if mode in _MODE_LABELS else _OTHER


class Ledger:
    """Counts what is used.

    Args:
        books: Take it down.
        budgets: Know what may be used.
        prices: Say what it costs.
        clock: Tells the hour.
        metrics: Receives the same as metrics.
    """

    def __init__(
        self,
        books: Books,
        *,
        budgets: Budgets,
        prices: PriceTable,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.budgets = budgets
        self.prices = prices
        self._books = books
        self._clock = clock
        self._metrics = metrics
        self._model_labels: set[str] = set()
        for mode in (*sorted(_MODE_LABELS), _OTHER):
            metrics.count("rag_llm_cost_saved_total", mode, amount=0)
            for cached in ("true", "false"):
                metrics.count("rag_llm_calls_total", mode, cached, amount=0)

    def add_call(
        self, kind: UsageKind, model: str, usage: TokenUsage, *, estimated: bool = False
    ) -> None:
        """Counts a call to a model, for the caller and the query that the task works for."""
        cost = self.prices.cost_nanos(
            model,
            prompt_token_count=usage.prompt_token_count,
            completion_token_count=usage.completion_token_count,
        )
        meter = current_meter.get()
        mode = meter.mode if meter is not None else ""
        self._add(
            kind,
            mode,
            model,
            Amounts(
                call_count=1,
                estimated_call_count=int(estimated),
                prompt_token_count=usage.prompt_token_count,
                completion_token_count=usage.completion_token_count,
                cost_nanos=cost,
            ),
        )
        self.measure_cost(mode, model, cost)
        if kind is UsageKind.GENERATION:
            self._metrics.count("rag_llm_calls_total", mode_label(mode), "false")

    def add_tool_call(self, tool: str) -> None:
        """Counts a call of a tool."""
        meter = current_meter.get()
        amounts = Amounts(call_count=1, cost_nanos=self.prices.tool_cost_nanos(tool))
        self._add(UsageKind.TOOL, meter.mode if meter is not None else "", tool, amounts)

    def add_query(self, mode: str, model: str, amounts: Amounts) -> None:
        """Counts a query that has ended, beside what its calls have used."""
        self._add(UsageKind.QUERY, mode, model, amounts)
        if amounts.cached_query_count:
            self._metrics.count("rag_llm_calls_total", mode_label(mode), "true")
            self.measure_saving(mode, amounts.saved_cost_nanos)

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

    def measure_cost(self, mode: str, model: str, cost_nanos: int) -> None:
        """Measures what was spent."""
        if cost_nanos:
            labels = (mode_label(mode), self._model_label(model))
            self._metrics.count("rag_llm_cost_total", *labels, amount=cost_nanos / _NANOS)

    def measure_saving(self, mode: str, cost_nanos: int) -> None:
        """Measures what was not spent since the answer was known."""
        self._metrics.count(
            "rag_llm_cost_saved_total", mode_label(mode), amount=cost_nanos / _NANOS
        )

    def measure_tracked(self, mode: str, *, cached: bool) -> None:
        """Measures a call that a caller has made by itself."""
        self._metrics.count("rag_llm_calls_total", mode_label(mode), str(cached).lower())

    def _add(self, kind: UsageKind, mode: str, model: str, amounts: Amounts) -> None:
        meter = current_meter.get()
        if meter is not None:
            meter.amounts = meter.amounts + amounts
        self._books.add_usage(self.key(kind, mode, model), amounts)

    def _model_label(self, model: str) -> str:
        """Returns the model's name for the first few, as names may come from callers."""
        if model not in self._model_labels:
            if len(self._model_labels) >= _MOST_MODELS:
                return _OTHER
            self._model_labels.add(model)
        return model


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
