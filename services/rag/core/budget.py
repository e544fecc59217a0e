"""What a tenant may spend in a day and in a month of UTC, and how much of it is gone."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["WARNING_RATIO", "Budget", "Limit", "Period", "Spending", "period_of"]

WARNING_RATIO = 0.8
"""Share of a budget from which on answers carry a warning."""


@dataclass(frozen=True, slots=True)
class Period:
    """The day and the month that a time is in.

    Attributes:
        day: The day, as YYYY-MM-DD.
        day_end_seconds: When it ends, seconds since the epoch.
        month_end_seconds: When the month ends.
    """

    day: str
    day_end_seconds: float
    month_end_seconds: float

    @property
    def month(self) -> str:
        """The month, as YYYY-MM."""
        return self.day[:7]


def period_of(seconds: float) -> Period:
    """Returns the day and the month that a time is in, by UTC."""
    time = datetime.fromtimestamp(seconds, UTC)
    day = time.replace(hour=0, minute=0, second=0, microsecond=0)
    month_end = (day.replace(day=28) + timedelta(days=4)).replace(day=1)
    return Period(
        day.date().isoformat(),
        (day + timedelta(days=1)).timestamp(),
        month_end.timestamp(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What was spent, of a day and of the month it is in."""

    daily_cost_nanos: int = 0
    monthly_cost_nanos: int = 0
    daily_token_count: int = 0
    monthly_token_count: int = 0

    def plus(self, *, cost_nanos: int, token_count: int) -> "Spending":
        """Returns it with more spent today."""
        return Spending(
            daily_cost_nanos=self.daily_cost_nanos + cost_nanos,
            monthly_cost_nanos=self.monthly_cost_nanos + cost_nanos,
            daily_token_count=self.daily_token_count + token_count,
            monthly_token_count=self.monthly_token_count + token_count,
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a budget.

    Attributes:
        name: For example `daily_token_count`.
        allowed: What may be spent.
        spent: What is.
    """

    name: str
    allowed: int
    spent: int

    @property
    def ratio(self) -> float:
        """How much of it is gone; 1 and more where nothing is left."""
        return self.spent / self.allowed if self.allowed else 1.0

    @property
    def is_daily(self) -> bool:
        """Whether it is of a day, else of a month."""
        return self.name.startswith("daily")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent; None where there is no limit."""

    daily_cost_nanos: int | None = None
    monthly_cost_nanos: int | None = None
    daily_token_count: int | None = None
    monthly_token_count: int | None = None

    def limits(self, spent: Spending) -> tuple[Limit, ...]:
        """Returns the limits there are with what is spent of each, the most spent first."""
        found = [
            Limit(name, allowed, getattr(spent, name))
            for name in self.__slots__
            if (allowed := getattr(self, name)) is not None
        ]
        return tuple(sorted(found, key=lambda each: -each.ratio))

    def exceeded(self, spent: Spending) -> Limit | None:
        """Returns the limit that forbids to spend more, that which holds longest; None if none."""
        over = [each for each in self.limits(spent) if each.ratio >= 1]
        return min(over, key=lambda each: each.is_daily, default=None)

    @property
    def is_empty(self) -> bool:
        """Whether there is no limit."""
        return all(getattr(self, name) is None for name in self.__slots__)
