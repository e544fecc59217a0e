"""What the books need of a store, as the use cases see it.

Every method raises `StoreUnavailable` where the store cannot be reached.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.rag.core.budget import Budget, Period, Spending
from services.rag.core.experiment_report import FeedbackCounts, VariantFigures
from services.rag.core.feedback import Feedback, FeedbackPage
from services.rag.core.query_record import QueryFilter, QueryPage, QueryRecord
from services.rag.core.usage import Amounts, Usage, UsageBucket, UsageDimension, UsageRow

__all__ = ["Batch", "FeedbackStore", "ProfiledQuery", "Retention", "UsageSpan", "UsageStore"]


@dataclass(frozen=True, slots=True)
class ProfiledQuery:
    """A query as it is kept.

    Attributes:
        record: What became of it.
        bottleneck: The stage that took longest by itself.
        profile: A `pannier.rag.v1.Profile`, serialised.
    """

    record: QueryRecord
    bottleneck: str
    profile: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written together, once however often it is tried.

    Attributes:
        batch_id: A UUID.
        queries: Queries.
        usage: Sums of usage, in the order of `in_order`.
    """

    batch_id: str
    queries: tuple[ProfiledQuery, ...]
    usage: tuple[Usage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long things are kept, in seconds.

    Attributes:
        queries: Queries and feedback.
        usage: Sums of usage.
    """

    queries: float
    usage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSpan:
    """Which usage is summed up, and how.

    Attributes:
        start_seconds: From when on, seconds since the epoch.
        end_seconds: Until when.
        bucket: Over which periods.
        group_by: What is told apart.
    """

    start_seconds: int
    end_seconds: int
    bucket: UsageBucket = UsageBucket.TOTAL
    group_by: tuple[UsageDimension, ...] = ()


class UsageStore(Protocol):
    """Keeps queries, usage and budgets."""

    async def apply(self, batch: Batch) -> None:
        """Writes a batch, unless it has been written before."""
        ...

    async def find_query(self, tenant_id: str, query_id: str) -> ProfiledQuery | None:
        """Returns a query; None where there is none."""
        ...

    async def list_queries(
        self,
        tenant_id: str,
        wanted: QueryFilter,
        *,
        page_size: int,
        after: tuple[float, str] | None,
    ) -> QueryPage:
        """Returns queries, the latest first, from after an arrival and id on."""
        ...

    async def sum_usage(
        self, tenant_id: str, span: UsageSpan, *, page_size: int, offset_row: UsageRow | None
    ) -> tuple[UsageRow, ...]:
        """Returns sums by period and by what is told apart, those that come after a row."""
        ...

    async def total_usage(self, tenant_id: str, span: UsageSpan) -> Amounts:
        """Returns the sum of all."""
        ...

    async def track(self, usage: Usage, *, idempotency_key: str) -> bool:
        """Counts usage at once; returns False where one of that key has been counted before."""
        ...

    async def load_budgets(self, period: Period) -> Mapping[str, tuple[Budget, Spending]]:
        """Returns all budgets by tenant, with what is spent in a period."""
        ...

    async def load_budget(self, tenant_id: str, period: Period) -> tuple[Budget, Spending]:
        """Returns the budget of a tenant, with what is spent in a period."""
        ...

    async def put_budget(self, tenant_id: str, budget: Budget) -> None:
        """Sets the budget of a tenant; one without limits removes it."""
        ...

    async def sweep(self, retention: Retention) -> None:
        """Removes what has had its time, unless another process is doing so."""
        ...


class FeedbackStore(Protocol):
    """Keeps what users think of answers, and compares variants by it."""

    async def put_feedback(self, tenant_id: str, feedback: Feedback) -> None:
        """Keeps what a user says; it replaces what the user said of the same answer before."""
        ...

    async def list_feedback(
        self,
        tenant_id: str,
        *,
        rating: int | None,
        since_seconds: float | None,
        page_size: int,
        after: tuple[float, str, str] | None,
    ) -> FeedbackPage:
        """Returns what users said, the latest first, from after a time, query and user on."""
        ...

    async def count_feedback(
        self, tenant_id: str, *, start_seconds: float | None, end_seconds: float | None
    ) -> FeedbackCounts:
        """Counts ratings given in a time."""
        ...

    async def compare_variants(
        self, tenant_id: str, experiment: str, *, since_seconds: float | None
    ) -> Sequence[VariantFigures]:
        """Returns what the log knows of each variant of an experiment."""
        ...
