"""Rules for faults."""

import pytest

from services.standin.core.decode import DecodeError
from services.standin.faults import (
    NO_FAULT,
    BreakStreamError,
    DropConnectionError,
    Fault,
    FaultPlan,
)


def test_without_rules_nothing_goes_wrong():
    assert FaultPlan().take("/api/chat") == NO_FAULT


def test_fail_next_counts_requests_down():
    plan = FaultPlan()
    plan.add({"fail_next": 2, "status": 503})
    taken = [plan.take("/api/chat").status for _ in range(3)]
    assert taken == [503, 503, 0]


def test_a_rule_without_a_count_lasts_until_it_is_cleared():
    plan = FaultPlan()
    plan.add({"hang": True})
    assert all(plan.take("/api/chat").hang for _ in range(5))
    plan.clear()
    assert plan.take("/api/chat") == NO_FAULT


def test_the_oldest_rule_with_uses_left_applies():
    plan = FaultPlan()
    plan.add({"delay_seconds": 1, "count": 1})
    plan.add({"no_done": True})
    assert [plan.take("/api/chat").no_done for _ in range(2)] == [False, True]


def test_a_rule_may_be_limited_to_a_path():
    plan = FaultPlan()
    plan.add({"fail_next": 1, "path": "/api/chat"})
    assert plan.take("/api/embed") == NO_FAULT
    assert plan.take("/api/chat").status == 500


@pytest.mark.parametrize("rule", [{"colour": 1}, {"hang": "yes"}, {"count": "1"}])
def test_an_unknown_or_mistyped_field_is_refused(rule):
    with pytest.raises(DecodeError):
        FaultPlan().add(rule)


def test_a_break_happens_at_its_token_only():
    Fault(drop_after_tokens=3).check(2)
    with pytest.raises(DropConnectionError):
        Fault(drop_after_tokens=3).check(3)
    with pytest.raises(BreakStreamError):
        Fault(error_line_after_tokens=0).check(0)
