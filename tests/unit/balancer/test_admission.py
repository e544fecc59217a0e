from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.admission import (
    Admitted,
    Full,
    QueueLimit,
    QueueLimits,
    admit,
    to_shed,
    unreachable,
)
from services.balancer.core.demand import Demand, Kind, Priority

SMALL = QueueLimits(system=3, interactive=6, batch=8)
SYSTEM, INTERACTIVE, BATCH = Priority


def demand(number=0, tenant="a", priority=INTERACTIVE, arrived_at=None, deadline=None):
    return Demand(
        id=number,
        model_key="m",
        kind=Kind.CHAT,
        tenant=tenant,
        priority=priority,
        arrived_at=float(number) if arrived_at is None else arrived_at,
        deadline=deadline,
        prompt_token_count=10,
        output_token_count=10.0,
    )


def many(count, tenant, priority, start=0):
    return [demand(start + number, tenant, priority) for number in range(count)]


def verdict(waiting, newcomer, limits=SMALL):
    counts = Counter(each.priority for each in waiting)
    own = sum(
        each.tenant == newcomer.tenant and each.priority is newcomer.priority for each in waiting
    )
    return admit(counts, own, newcomer, limits)


def offer(waiting, newcomer, limits=SMALL):
    """Does what the queue does with a request; tells whether it waits, and who had to go."""
    answer = verdict(waiting, newcomer, limits)
    shed = None
    if isinstance(answer, Full):
        shed = to_shed(waiting, limits, newcomer) if answer.limit is QueueLimit.CLASS else None
        if shed is None:
            return False, None
        waiting.remove(shed)
    waiting.append(newcomer)
    return True, shed


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abc"), st.sampled_from(Priority)),
        st.integers(0, 30),  # the place in the queue of a request that leaves it
    ),
    max_size=150,
)


@given(STEPS)
def test_the_queue_never_holds_more_than_its_limits(steps):
    waiting = []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            if step < len(waiting):
                waiting.pop(step)
            continue
        newcomer = demand(number, *step)
        accepted, shed = offer(waiting, newcomer)
        if shed is not None:
            assert accepted
            assert shed.priority >= newcomer.priority
        counts = Counter(each.priority for each in waiting)
        assert counts[BATCH] <= 8
        assert counts[BATCH] + counts[INTERACTIVE] <= 14
        assert len(waiting) <= 17


@given(STEPS)
def test_nobody_who_holds_the_share_is_admitted_beside_others(steps):
    waiting = []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            if step < len(waiting):
                waiting.pop(step)
            continue
        newcomer = demand(number, *step)
        peers = Counter(each.tenant for each in waiting if each.priority is newcomer.priority)
        accepted, _ = offer(waiting, newcomer)
        held = peers[newcomer.tenant]
        if held >= SMALL.tenant_places(newcomer.priority) and held < peers.total():
            assert not accepted


@given(STEPS)
def test_a_request_of_a_higher_class_is_never_refused_while_batch_of_others_is_in_the_way(steps):
    waiting = []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            if step < len(waiting):
                waiting.pop(step)
            continue
        newcomer = demand(number, *step)
        held = sum(
            each.tenant == newcomer.tenant and each.priority is newcomer.priority
            for each in waiting
        )
        batch_waits = any(each.priority is BATCH for each in waiting)
        accepted, _ = offer(waiting, newcomer)
        if newcomer.priority < BATCH and batch_waits:
            assert accepted or held >= SMALL.tenant_places(newcomer.priority)


def test_one_tenant_alone_may_fill_its_class():
    waiting = []
    assert sum(offer(waiting, each)[0] for each in many(20, "a", INTERACTIVE)) == 6
    assert verdict(waiting, demand(99)) == Full(limit=QueueLimit.CLASS)


def test_a_tenant_that_has_filled_a_class_makes_room_for_another_up_to_half():
    waiting = many(6, "flood", INTERACTIVE)
    outcomes = [offer(waiting, each) for each in many(5, "other", INTERACTIVE, start=10)]
    assert [accepted for accepted, _ in outcomes] == [True, True, True, False, False]
    assert [shed.id for _, shed in outcomes[:3]] == [5, 4, 3]
    answer = verdict(waiting, demand(20, "flood"))
    assert answer == Full(limit=QueueLimit.TENANT)


def test_a_third_tenant_gets_places_from_the_two_that_hold_all():
    waiting = many(3, "a", INTERACTIVE) + many(3, "b", INTERACTIVE, start=10)
    assert [offer(waiting, each)[0] for each in many(3, "c", INTERACTIVE, start=20)] == [
        True,
        True,
        False,
    ]
    assert Counter(each.tenant for each in waiting) == {"a": 2, "b": 2, "c": 2}


def test_nobody_displaces_a_tenant_that_has_but_one_more_waiting():
    waiting = many(2, "a", INTERACTIVE) + many(2, "b", INTERACTIVE, start=10)
    waiting += many(2, "c", INTERACTIVE, start=20)
    assert to_shed(waiting, SMALL, demand(30, "d")).id == 21
    assert to_shed(waiting[1:], SMALL, demand(30, "a")) is None


def test_whoever_floods_a_class_makes_room_before_batch_does():
    waiting = many(6, "flood", INTERACTIVE) + many(8, "b", BATCH, start=10)
    assert to_shed(waiting, SMALL, demand(30, "other")).id == 5


def test_a_higher_class_displaces_the_youngest_batch_request_of_whoever_has_most():
    waiting = many(3, "a", BATCH) + many(4, "b", BATCH, start=10)
    waiting += many(3, "c", INTERACTIVE, start=20) + many(3, "d", INTERACTIVE, start=30)
    assert to_shed(waiting, SMALL, demand(40, "e", INTERACTIVE)).id == 13
    assert to_shed(waiting, SMALL, demand(40, "e", SYSTEM)).id == 13


def test_who_holds_the_share_of_a_class_displaces_only_batch_of_its_own():
    waiting = many(6, "a", INTERACTIVE) + many(2, "b", BATCH, start=10)
    assert to_shed(waiting, SMALL, demand(40, "a")) is None
    waiting += many(1, "a", BATCH, start=20)
    assert to_shed(waiting, SMALL, demand(40, "a")).id == 20


def test_batch_displaces_no_higher_class():
    waiting = many(6, "a", INTERACTIVE) + many(8, "b", BATCH, start=10)
    shed = to_shed(waiting, SMALL, demand(40, "c", BATCH))
    assert shed.priority is BATCH


def test_batch_gives_way_to_what_a_higher_class_has_displaced():
    waiting = many(3, "a", INTERACTIVE) + many(3, "b", INTERACTIVE, start=10)
    waiting += many(8, "c", BATCH, start=20)
    assert offer(waiting, demand(40, "d"))[0]
    # A place of batch is taken: its class is full with seven.
    assert isinstance(verdict(waiting, demand(41, "e", BATCH)), Full)


def test_an_empty_queue_admits_anyone():
    assert all(
        admit({}, 0, demand(priority=each), QueueLimits()) == Admitted() for each in Priority
    )


@pytest.mark.parametrize(
    ("remaining", "predicted", "refused"),
    [
        (10.0, 9.0, False),
        (10.0, 14.0, False),  # predictions may be a third too long
        (10.0, 15.0, True),
        (0.0, 0.0, True),
        (-1.0, 0.0, True),
    ],
)
def test_only_what_cannot_make_its_deadline_is_unreachable(remaining, predicted, refused):
    late = demand(deadline=100.0)
    assert unreachable(late, predicted, 100.0 - remaining) is refused


def test_without_a_deadline_everything_is_reachable():
    assert not unreachable(demand(), 1e9, 1e9)
