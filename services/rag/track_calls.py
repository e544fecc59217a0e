"""Counts calls to models that callers have made by themselves."""

from dataclasses import dataclass

from services.rag.budgets import Budgets
from services.rag.core.conversation import TokenUsage
from services.rag.core.usage import Amounts, Usage, UsageKind
from services.rag.ledger import Ledger
from services.rag.usage_port import UsageStore

__all__ = ["CallTracker", "TrackedCall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedCall:
    """A call that a caller has made.

    Attributes:
        model: The model.
        mode: What it was for.
        prompt_token_count: Tokens read.
        completion_token_count: Tokens generated.
        cached: Whether the answer came from a cache.
        cost_nanos: What it cost, in billionths of the currency; None to go by the prices.
        idempotency_key: Name by which it is counted once; empty for none.
    """

    model: str
    mode: str
    prompt_token_count: int
    completion_token_count: int
    cached: bool
    cost_nanos: int | None
    idempotency_key: str


class CallTracker:
    """Counts calls at once in the store, so that each is counted once.

    Args:
        store: Keeps usage.
        budgets: Learn of what is spent.
        ledger: Knows prices.
    """

    def __init__(self, store: UsageStore, *, budgets: Budgets, ledger: Ledger) -> None:
        self._store = store
        self._budgets = budgets
        self._ledger = ledger

    async def track(self, call: TrackedCall) -> tuple[bool, int]:
        """Counts a call; returns whether it is new, and its cost.

        Raises:
            StoreUnavailable: It cannot be counted.
        """
        usage = TokenUsage(call.prompt_token_count, call.completion_token_count)
        cost = call.cost_nanos
        if cost is None:
            cost = self._ledger.cost_nanos(call.model, usage)
        if call.cached:
            amounts = Amounts(
                cached_query_count=1,
                saved_token_count=call.prompt_token_count + call.completion_token_count,
                saved_cost_nanos=cost,
            )
        else:
            amounts = Amounts(
                call_count=1,
                prompt_token_count=call.prompt_token_count,
                completion_token_count=call.completion_token_count,
                cost_nanos=cost,
            )
        key = self._ledger.key(UsageKind.TRACKED, call.mode, call.model)
        counted = await self._store.track(Usage(key, amounts), idempotency_key=call.idempotency_key)
        if counted:
            self._budgets.spend(key.tenant_id, amounts)
            self._ledger.measure_tracked(
                call.mode, call.model, usage, cached=call.cached, cost_nanos=cost
            )
        return counted, cost
