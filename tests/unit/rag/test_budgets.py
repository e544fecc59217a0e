"""Budgets are gone by from memory, in a time that a test turns."""

from datetime import UTC, datetime

import pytest

from services.common.metrics import Metrics
from services.rag.budgets import Budgets
from services.rag.core.bookkeeping_errors import BudgetExceeded
from services.rag.core.budget import Budget, Spending, period_of
from services.rag.core.usage import Amounts
from services.rag.metrics import CATALOGUE

START = datetime(2026, 11, 29, 23, 0, tzinfo=UTC).timestamp()


class TurnedClock:
    def __init__(self, now):
        self.time = now

    def now(self):
        return self.time

    def monotonic(self):
        return self.time


class Known:
    def __init__(self, **limits):
        self.clock = TurnedClock(START)
        self.metrics = Metrics(CATALOGUE, version="test")
        self.budgets = Budgets(clock=self.clock, metrics=self.metrics)
        self.budget = Budget(**limits)
        self.read()

    def read(self, spent=Spending(), unwritten=None):  # noqa: B008 - never changed
        known = {"acme": (self.budget, spent)}
        self.budgets.replace(period_of(self.clock.now()), known, unwritten or {})

    def state(self, state):
        return self.metrics.registry.get_sample_value("rag_budgets", {"state": state})


def tokens(count):
    return Amounts(prompt_token_count=count)


def test_what_is_spent_here_counts_at_once():
    known = Known(daily_token_count=100)
    known.budgets.spend("acme", tokens(99))
    known.budgets.check("acme")
    known.budgets.spend("other", tokens(99))
    known.budgets.spend("acme", tokens(1))
    with pytest.raises(BudgetExceeded) as told:
        known.budgets.check("acme")
    assert told.value.retry_delay_seconds == 3600
    known.budgets.check("other")


def test_what_the_store_does_not_know_yet_is_not_forgotten():
    known = Known(daily_token_count=100)
    known.read(Spending(daily_token_count=60), {"acme": tokens(40)})
    with pytest.raises(BudgetExceeded):
        known.budgets.check("acme")
    assert (known.state("exceeded"), known.state("within")) == (1, 0)


def test_a_new_day_begins_with_nothing_spent_and_a_month_goes_on():
    known = Known(daily_token_count=10, monthly_token_count=100)
    known.budgets.spend("acme", tokens(50))
    known.clock.time += 3601
    known.budgets.check("acme")
    known.budgets.spend("acme", tokens(9))
    known.budgets.check("acme")
    known.budgets.spend("acme", tokens(41))
    with pytest.raises(BudgetExceeded) as told:
        known.budgets.check("acme")
    assert told.value.metadata["limit"] == "monthly_token_count"
    known.clock.time += 86_400
    known.budgets.check("acme")


def test_a_warning_comes_from_four_fifths_on():
    known = Known(monthly_token_count=100)
    known.budgets.spend("acme", tokens(79))
    assert known.budgets.nearest_limit("acme") is None
    known.budgets.spend("acme", tokens(1))
    assert known.budgets.nearest_limit("acme").ratio == 0.8
    known.read(Spending(monthly_token_count=80))
    assert known.state("warned") == 1


def test_who_has_no_budget_is_never_stopped():
    known = Known(daily_token_count=0)
    known.budgets.spend("other", tokens(10**18))
    known.budgets.check("other")
    assert known.budgets.nearest_limit("other") is None
