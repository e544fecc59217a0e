"""Errors of the books.

ServiceError
+-- BudgetExceeded              RESOURCE_EXHAUSTED    BUDGET_EXCEEDED
+-- QueryUnknown                NOT_FOUND             QUERY_NOT_FOUND
+-- ExperimentNotFound          NOT_FOUND             EXPERIMENT_NOT_FOUND
"""

from services.common.errors import QuotaViolation, ServiceError, StatusCode
from services.rag.core.budget import Limit

__all__ = ["BudgetExceeded", "ExperimentNotFound", "QueryUnknown"]


class BudgetExceeded(ServiceError):
    """The tenant has spent its budget, and a model would have to be asked.

    Args:
        tenant_id: The tenant.
        limit: The limit that is reached.
        remaining_seconds: How long the period still lasts.
    """

    reason = "BUDGET_EXCEEDED"
    code = StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, tenant_id: str, limit: Limit, *, remaining_seconds: float) -> None:
        period = "day" if limit.is_daily else "month"
        state = f"{limit.name} is {limit.spent} of {limit.allowed}."
        super().__init__(
            f"The budget of the {period} is spent: {state} Answers that are cached, "
            "and sentences of the sources, are still given. "
            f"Raise the budget, or come again when the {period} (UTC) is over.",
            metadata={
                "limit": limit.name,
                "allowed": str(limit.allowed),
                "spent": str(limit.spent),
            },
            retry_delay_seconds=remaining_seconds,
            quota_violations=[QuotaViolation(f"tenant:{tenant_id}", f"Of the {period}, {state}")],
        )


class QueryUnknown(ServiceError):
    """The tenant has asked no such query, or too long ago.

    Args:
        query_id: The query asked for.
    """

    reason = "QUERY_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, query_id: str) -> None:
        super().__init__(
            f"There is no query {query_id!r}. Queries are forgotten after some time, and one that "
            "has just been answered by another replica is known a second later.",
            metadata={"query_id": query_id},
        )


class ExperimentNotFound(ServiceError):
    """No experiment of that name is set.

    Args:
        name: The name asked for.
        known: Those there are.
    """

    reason = "EXPERIMENT_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, name: str, *, known: tuple[str, ...]) -> None:
        others = f"Those there are: {', '.join(known)}." if known else "None are set."
        super().__init__(
            f"There is no experiment {name!r}. {others}", metadata={"experiment": name}
        )
