import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.budgets import RatioBudget

# A request, or an attempt to spend, each some time after what was before it.
STEPS = st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=150)


def spend_all(budget, now):
    return sum(1 for _ in itertools.takewhile(lambda _: budget.try_spend(now), range(1000)))


@given(STEPS, st.floats(0, 1), st.integers(0, 6))
def test_no_window_sees_more_spent_than_its_share_of_requests_and_the_burst(steps, ratio, burst):
    budget, now = RatioBudget(ratio=ratio, burst=burst), 0.0
    requests, spent = [], []
    for is_request, pause in steps:
        now += pause
        if is_request:
            budget.note_request(now)
            requests.append(now)
        elif budget.try_spend(now):
            spent.append(now)
        assert 0.0 <= budget.level(now) <= 1.0
    for end in spent:
        # Spans are told apart by the tenth.
        inside = sum(end - 9.0 < each <= end for each in spent)
        asked = sum(end - 10.0 <= each <= end for each in requests)
        assert inside <= ratio * asked + burst + 1e-6


def test_a_fifth_of_the_requests_and_a_burst_of_five_may_be_retried():
    budget = RatioBudget(ratio=0.2, burst=5)
    for number in range(100):
        budget.note_request(number * 0.05)
    assert spend_all(budget, 5.0) == 25
    assert budget.level(5.0) == 0.0


def test_a_quiet_service_may_retry_the_burst_every_ten_seconds():
    budget = RatioBudget(ratio=0.2, burst=5)
    assert [spend_all(budget, now) for now in (0.0, 5.0, 11.0)] == [5, 0, 5]


def test_requests_of_long_ago_allow_nothing_now():
    budget = RatioBudget(ratio=0.5, burst=1)
    for _ in range(100):
        budget.note_request(0.0)
    assert spend_all(budget, 30.0) == 1


def test_the_level_falls_with_what_is_spent_and_recovers():
    budget = RatioBudget(ratio=0.0, burst=4)
    assert budget.level(0.0) == 1.0
    budget.try_spend(0.0)
    assert budget.level(0.0) == pytest.approx(0.75)
    assert budget.level(11.0) == 1.0


def test_the_level_does_not_fall_below_nothing_when_what_allowed_it_is_forgotten():
    budget = RatioBudget(ratio=0.5, burst=1)
    for _ in range(10):
        budget.note_request(0.0)
    assert spend_all(budget, 9.0) == 6
    assert budget.level(12.0) == 0.0


def test_a_budget_of_nothing_allows_nothing():
    budget = RatioBudget(ratio=0.0, burst=0)
    budget.note_request(0.0)
    assert not budget.try_spend(0.0)
    assert budget.level(0.0) == 0.0
