from datetime import UTC, datetime

import pytest

from services.rag.core.budget import Budget, Spending, period_of


def at(*parts):
    return datetime(*parts, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("time", "day", "day_end", "month_end"),
    [
        ((2026, 2, 28, 23, 59), "2026-02-28", (2026, 3, 1), (2026, 3, 1)),
        ((2028, 2, 28), "2028-02-28", (2028, 2, 29), (2028, 3, 1)),
        ((2026, 12, 31, 12), "2026-12-31", (2027, 1, 1), (2027, 1, 1)),
        ((2026, 1, 31), "2026-01-31", (2026, 2, 1), (2026, 2, 1)),
    ],
)
def test_days_and_months_are_those_of_utc(time, day, day_end, month_end):
    period = period_of(at(*time))
    assert (period.day, period.month) == (day, day[:7])
    assert (period.day_end_seconds, period.month_end_seconds) == (at(*day_end), at(*month_end))


def test_a_budget_is_spent_when_one_of_its_limits_is_reached():
    budget = Budget(daily_token_count=100, monthly_cost_nanos=1000)
    spent = Spending(daily_token_count=99, monthly_cost_nanos=500)
    assert budget.exceeded(spent) is None
    assert budget.exceeded(spent.plus(cost_nanos=0, token_count=1)).name == "daily_token_count"


def test_of_several_the_limit_that_holds_longest_is_told():
    budget = Budget(daily_token_count=1, monthly_token_count=1)
    assert not budget.exceeded(Spending(daily_token_count=9, monthly_token_count=9)).is_daily


def test_a_budget_of_nothing_is_spent_from_the_start():
    assert Budget(daily_cost_nanos=0).exceeded(Spending()).name == "daily_cost_nanos"
    assert Budget().exceeded(Spending(daily_cost_nanos=10**18)) is None
    assert Budget().is_empty


def test_the_most_spent_limit_comes_first():
    budget = Budget(daily_token_count=100, monthly_token_count=1000)
    limits = budget.limits(Spending(daily_token_count=50, monthly_token_count=900))
    assert [(each.name, each.ratio) for each in limits] == [
        ("monthly_token_count", 0.9),
        ("daily_token_count", 0.5),
    ]
