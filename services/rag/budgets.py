"""Goes by the budgets of tenants, from memory.

What this replica spends counts at once. What others spend, and new limits, are read from the store
every two seconds or so (see `services.rag.books`), so a tenant may spend more than its budget by
what all replicas spend together in that time and what is under way when it ends.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from services.common.clock import Clock
from services.common.metrics import Metrics
from services.rag.core.bookkeeping_errors import BudgetExceeded
from services.rag.core.budget import WARNING_RATIO, Budget, Limit, Period, Spending, period_of
from services.rag.core.usage import Amounts

__all__ = ["Budgets"]

_STATES = ("within", "warned", "exceeded")
_NOTHING = Amounts()


@dataclass(slots=True)
class _Account:
    budget: Budget
    spent: Spending


class Budgets:
    """Knows who may still spend.

    Args:
        clock: Tells the day.
        metrics: Receives how many tenants are within their budgets.
    """

    def __init__(self, *, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._period = period_of(clock.now())
        self._accounts: dict[str, _Account] = {}
        for state in _STATES:
            metrics.set_gauge("rag_budgets", 0, state)

    def spend(self, tenant_id: str, amounts: Amounts) -> None:
        """Counts what a tenant has just spent."""
        account = self._accounts.get(tenant_id)
        if account is not None:
            account.spent = account.spent.plus(
                cost_nanos=amounts.cost_nanos, token_count=amounts.token_count
            )

    def check(self, tenant_id: str) -> None:
        """Says whether a model may be asked for a tenant.

        Raises:
            BudgetExceeded: It may not.
        """
        account = self._account(tenant_id)
        if account is None:
            return
        limit = account.budget.exceeded(account.spent)
        if limit is not None:
            end = self._period.day_end_seconds if limit.is_daily else self._period.month_end_seconds
            remaining_seconds = max(0.0, end - self._clock.now())
            raise BudgetExceeded(tenant_id, limit, remaining_seconds=remaining_seconds)

    def nearest_limit(self, tenant_id: str) -> Limit | None:
        """Returns the limit of a tenant that is most spent, if that is worth a warning."""
        account = self._account(tenant_id)
        if account is None:
            return None
        limits = account.budget.limits(account.spent)
        return limits[0] if limits and limits[0].ratio >= WARNING_RATIO else None

    def replace(
        self,
        period: Period,
        known: Mapping[str, tuple[Budget, Spending]],
        unwritten: Mapping[str, Amounts],
    ) -> None:
        """Takes over what the store knows.

        Args:
            period: What `known` is of.
            known: Budgets by tenant, with what is spent as far as the store knows.
            unwritten: What the store does not know yet.
        """
        self._period = period
        self._accounts = {
            tenant_id: _Account(
                budget,
                spent.plus(
                    cost_nanos=unwritten.get(tenant_id, _NOTHING).cost_nanos,
                    token_count=unwritten.get(tenant_id, _NOTHING).token_count,
                ),
            )
            for tenant_id, (budget, spent) in known.items()
        }
        counts = Counter(_state(each) for each in self._accounts.values())
        for state in _STATES:
            self._metrics.set_gauge("rag_budgets", counts[state], state)

    def _account(self, tenant_id: str) -> _Account | None:
        account = self._accounts.get(tenant_id)
        if account is None or self._clock.now() < self._period.day_end_seconds:
            return account
        # Until the store is read again nothing is spent of a new period.
        period = period_of(self._clock.now())
        same_month = period.month == self._period.month
        self._period = period
        for each in self._accounts.values():
            each.spent = Spending(
                monthly_cost_nanos=each.spent.monthly_cost_nanos if same_month else 0,
                monthly_token_count=each.spent.monthly_token_count if same_month else 0,
            )
        return account


def _state(account: _Account) -> str:
    limits = account.budget.limits(account.spent)
    if not limits or limits[0].ratio < WARNING_RATIO:
        return "within"
    return "exceeded" if limits[0].ratio >= 1 else "warned"
