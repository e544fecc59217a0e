"""What was used and what it cost, summed up by the hour."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from enum import Enum

__all__ = [
    "AMOUNTS",
    "HOUR_SECONDS",
    "Amounts",
    "Usage",
    "UsageBucket",
    "UsageDimension",
    "UsageKey",
    "UsageKind",
    "UsageRow",
    "UsageSums",
    "hour_of",
    "in_order",
]

HOUR_SECONDS = 3600


class UsageKind(Enum):
    """What was used."""

    QUERY = "query"
    GENERATION = "generation"
    EMBEDDING = "embedding"
    TOOL = "tool"
    TRACKED = "tracked"


class UsageBucket(Enum):
    """How long the periods are that usage is summed up over."""

    TOTAL = "total"
    HOUR = "hour"
    DAY = "day"


class UsageDimension(Enum):
    """What usage is told apart by; the values are attributes of `UsageKey`."""

    USER = "user_id"
    MODE = "mode"
    MODEL = "model"
    KIND = "kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much was used; sums are exact, all figures are whole.

    Attributes:
        query_count: Queries.
        failed_query_count: Of these, those that failed or were cancelled.
        cached_query_count: Answers that came from the cache; of tracked calls too.
        call_count: Calls to models and paid tools.
        estimated_call_count: Of these, those that broke off, whose tokens are estimated.
        prompt_token_count: Tokens read.
        completion_token_count: Tokens generated.
        cost_nanos: What they cost, in billionths of the currency.
        saved_token_count: Tokens that cached answers had cost when they were made.
        saved_cost_nanos: What these would have cost.
    """

    query_count: int = 0
    failed_query_count: int = 0
    cached_query_count: int = 0
    call_count: int = 0
    estimated_call_count: int = 0
    prompt_token_count: int = 0
    completion_token_count: int = 0
    cost_nanos: int = 0
    saved_token_count: int = 0
    saved_cost_nanos: int = 0

    @property
    def token_count(self) -> int:
        """Tokens read and generated."""
        return self.prompt_token_count + self.completion_token_count

    def __add__(self, other: "Amounts") -> "Amounts":
        """Returns the sum of both."""
        return Amounts(**{name: getattr(self, name) + getattr(other, name) for name in AMOUNTS})

    def values(self) -> tuple[int, ...]:
        """Returns the figures in the order of `AMOUNTS`."""
        return astuple(self)


AMOUNTS = tuple(each.name for each in fields(Amounts))
"""Names of the figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageKey:
    """What usage is told apart by.

    Attributes:
        hour_seconds: Begin of the hour, seconds since the epoch.
        tenant_id: Whose usage it is.
        user_id: Who of the tenant; empty where that is not known.
        mode: How a question was to be answered; empty for work behind the scenes.
        model: Full name of the model, or name of the tool; empty where none was asked.
        kind: What was used.
    """

    hour_seconds: int
    tenant_id: str
    user_id: str
    mode: str
    model: str
    kind: UsageKind


@dataclass(frozen=True, slots=True)
class Usage:
    """An amount of one kind."""

    key: UsageKey
    amounts: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What was used in a period; what is not told apart is empty.

    Attributes:
        start_seconds: Begin of the period, seconds since the epoch; None for the whole time.
        user_id: See `UsageKey`.
        mode: See `UsageKey`.
        model: See `UsageKey`.
        kind: See `UsageKey`.
        amounts: How much.
    """

    start_seconds: int | None
    user_id: str
    mode: str
    model: str
    kind: str
    amounts: Amounts


class UsageSums:
    """Sums of usage by key, bounded.

    Args:
        key_limit: Most keys. Beyond, users and models are no longer told apart: nothing is lost
            of the sums of a tenant.
    """

    def __init__(self, key_limit: int) -> None:
        self._key_limit = key_limit
        self._sums: dict[UsageKey, Amounts] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, key: UsageKey, amounts: Amounts) -> None:
        """Adds to a sum."""
        known = self._sums.get(key)
        if known is None and len(self._sums) >= self._key_limit:
            key = UsageKey(
                hour_seconds=key.hour_seconds,
                tenant_id=key.tenant_id,
                user_id="",
                mode=key.mode,
                model="",
                kind=key.kind,
            )
            known = self._sums.get(key)
        self._sums[key] = amounts if known is None else known + amounts

    def take(self) -> Mapping[UsageKey, Amounts]:
        """Returns the sums, and begins anew."""
        taken, self._sums = self._sums, {}
        return taken

    def by_tenant(self) -> Mapping[str, Amounts]:
        """Returns the sums of each tenant."""
        sums: dict[str, Amounts] = {}
        for key, amounts in self._sums.items():
            sums[key.tenant_id] = sums.get(key.tenant_id, Amounts()) + amounts
        return sums


def hour_of(seconds: float) -> int:
    """Returns the begin of the hour that a time is in, both in seconds since the epoch."""
    return int(seconds // HOUR_SECONDS) * HOUR_SECONDS


def in_order(sums: Mapping[UsageKey, Amounts]) -> tuple[Usage, ...]:
    """Returns sums in an order that is the same everywhere.

    Replicas that write the same rows in the same order never wait for each other in a circle.
    """
    return tuple(Usage(key, sums[key]) for key in sorted(sums, key=_order))


def _order(key: UsageKey) -> tuple[object, ...]:
    return (
        key.tenant_id,
        key.hour_seconds,
        key.user_id,
        key.mode,
        key.model,
        key.kind.value,
    )
