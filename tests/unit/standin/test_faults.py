"""Rules for faults."""

import pytest

from services.common.clock import SystemClock
from services.standin.core.decode import DecodeError
from services.standin.faults import (
    NO_FAULT,
    BreakStreamError,
    DropConnectionError,
    Fault,
    FaultPlan,
)


class Time:
    """A clock that stands still."""

    seconds = 0.0

    def monotonic(self):
        return self.seconds


def test_without_rules_nothing_goes_wrong():
    assert FaultPlan(SystemClock()).take("/api/chat") == NO_FAULT


def test_fail_next_counts_requests_down():
    plan = FaultPlan(SystemClock())
    plan.add({"fail_next": 2, "status": 503})
    taken = [plan.take("/api/chat").status for _ in range(3)]
    assert taken == [503, 503, 0]


def test_a_rule_without_a_count_lasts_until_it_is_cleared():
    plan = FaultPlan(SystemClock())
    plan.add({"hang": True})
    assert all(plan.take("/api/chat").hang for _ in range(5))
    plan.clear()
    assert plan.take("/api/chat") == NO_FAULT


def test_the_oldest_rule_with_uses_left_applies():
    plan = FaultPlan(SystemClock())
    plan.add({"delay_seconds": 1, "count": 1})
    plan.add({"no_done": True})
    assert [plan.take("/api/chat").no_done for _ in range(2)] == [False, True]


def test_a_rule_may_be_limited_to_a_path():
    plan = FaultPlan(SystemClock())
    plan.add({"fail_next": 1, "path": "/api/chat"})
    assert plan.take("/api/embed") == NO_FAULT
    assert plan.take("/api/chat").status == 500


def test_a_rule_may_be_limited_to_a_model_by_any_of_its_names():
    plan = FaultPlan(SystemClock())
    plan.add({"hang": True, "model": "Llama3"})
    assert plan.take("/api/chat", "other") == NO_FAULT
    assert plan.take("/api/chat", "library/llama3:latest").hang


def test_a_probability_affects_its_share_in_a_repeatable_order():
    orders = []
    for _ in range(2):
        plan = FaultPlan(SystemClock())
        plan.add({"hang": True, "probability": 0.3, "seed": 7})
        orders.append([plan.take("/api/chat").hang for _ in range(1000)])
    assert orders[0] == orders[1]
    assert 250 < sum(orders[0]) < 350


def test_a_rule_ends_after_its_time():
    clock = Time()
    plan = FaultPlan(clock)
    plan.add({"hang": True, "for_seconds": 5})
    clock.seconds = 4.9
    assert plan.take("/api/chat").hang
    clock.seconds = 5.0
    assert plan.take("/api/chat") == NO_FAULT
    assert plan.dump() == []


def test_faults_of_requests_loads_and_the_server_do_not_meet():
    plan = FaultPlan(SystemClock())
    plan.add({"load_fails": True, "count": 1})
    plan.add({"slowdown": 3, "model": "m"})
    assert plan.take("/api/chat", "m") == NO_FAULT
    assert plan.slowdown("m") == 3
    assert plan.slowdown("other") == 1
    assert [plan.take_load("m").load_fails for _ in range(2)] == [True, False]


def test_requests_that_do_no_work_are_affected_only_by_their_path():
    plan = FaultPlan(SystemClock())
    plan.add({"delay_seconds": 1})
    assert plan.take_other("/api/ps") == NO_FAULT
    plan.add({"delay_seconds": 2, "path": "/api/ps"})
    assert plan.take_other("/api/tags") == NO_FAULT
    assert plan.take("/api/chat").delay_seconds == 1
    plan.clear()
    plan.add({"delay_seconds": 2, "path": "/api/ps"})
    assert plan.take_other("/api/ps").delay_seconds == 2


@pytest.mark.parametrize(
    "rule",
    [
        {"colour": 1},
        {"hang": "yes"},
        {"count": "1"},
        {"count": True},
        {"refuse": True},
        {"slowdown": 0},
        {"hang": True, "load_fails": True},
    ],
)
def test_an_unknown_or_mistyped_field_is_refused(rule):
    with pytest.raises(DecodeError):
        FaultPlan(SystemClock()).add(rule)


def test_a_break_happens_at_its_token_only():
    Fault(drop_after_tokens=3).check(2)
    with pytest.raises(DropConnectionError):
        Fault(drop_after_tokens=3).check(3)
    with pytest.raises(BreakStreamError):
        Fault(error_line_after_tokens=0).check(0)


def test_the_next_break_is_the_first_that_is_still_to_come():
    fault = Fault(garbage_after_tokens=2, drop_after_tokens=5)
    assert [fault.next_break(tokens) for tokens in (0, 2, 3, 6)] == [2, 2, 5, None]
